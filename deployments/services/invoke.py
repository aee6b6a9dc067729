"""Who may call an endpoint: endpoint keys, API tokens, short tokens that Slipway signs for prompt box and probe.

A signature alone admits nobody: user, membership and deployment are read again at every question. An answer says for
how long a gateway may remember it: four seconds at most, and no longer than the credential lives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.core import signing
from django.db.models import Q
from django.utils import timezone

from deployments.models import Deployment, Principal, User
from deployments.services import endpoint_keys, tokens
from deployments.services.errors import MissingError, NotAllowedError
from deployments.services.principals import principal_of_token

PREFIX = "sli_"
SALT = "slipway.invoke"
LONGEST_SECONDS = 900
LONGEST_HEADER = 2000
PROBE = "probe"
# Seconds for which a gateway may go by an answer: with a question under way, what is revoked is refused within five.
REMEMBERED = 4.0
# Seconds for which it may while it cannot ask: a restart of `live` is not noticed. Never for keys, which are revoked
# where this matters: there a gateway that gets no answer refuses.
WITHOUT_ANSWER = 60.0


@dataclass(frozen=True)
class KeyTerms:
    """The key that opened the door, and what it may use in a minute (None: no limit)."""

    key_id: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    # The key whose count this is: the first of those that took each other's place. 0: this one.
    counted_with: int = 0

    @property
    def limited(self) -> bool:
        """True where each request has to be counted before it passes."""
        return self.requests_per_minute is not None or self.tokens_per_minute is not None


@dataclass(frozen=True)
class Admission:
    """The caller may pass; `subject` names them for the gateway's log.

    The gateway may remember it for `remembered` seconds, and go by it for `without_answer` while it cannot ask.
    """

    subject: str
    deployment_id: int
    status: int = 200
    key: KeyTerms | None = None
    remembered: float = REMEMBERED
    without_answer: float = WITHOUT_ANSWER


@dataclass(frozen=True)
class Refusal:
    """The caller may not pass: 401 when nobody is known to ask, 403 when somebody is who may not call this.

    429 when a limit of the key `key_id` is used up: `limit` says which (requests, tokens), `retry_after` is in seconds.
    """

    status: int
    code: str
    message: str
    limit: str = ""
    retry_after: int = 0
    key_id: int = 0
    deployment_id: int = 0


def token_for(*, principal: Principal, deployment: Deployment, seconds: int = 300) -> str:
    """A bearer token for one endpoint in the name of the principal, for at most 15 minutes."""
    if not Deployment.objects.callable_by(principal).filter(pk=deployment.pk).exists():
        if Deployment.objects.visible_to(principal).filter(pk=deployment.pk).exists():
            raise NotAllowedError("This token may not call endpoints.")
        raise MissingError("There is no such deployment.")
    return _sign(deployment.pk, principal.user.pk, seconds)


def probe_token(*, deployment_id: int, seconds: int = 60) -> str:
    """A bearer token with which Slipway itself asks one endpoint for a sign of life."""
    return _sign(deployment_id, PROBE, seconds)


def admit(authorization_header: str, namespace: str, name: str, *, begun: bool = False) -> Admission | Refusal:
    """Whether the bearer of this header may call the deployment `name` in `namespace`.

    `begun`: an answer is under way that was admitted. The short tokens that Slipway signs are for beginning one: their
    end does not end it, the person's right does.
    """
    scheme, _, text = (authorization_header or "")[:LONGEST_HEADER].partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not text:
        return Refusal(401, "missing_token", "Send a key or token: “Authorization: Bearer …”.")
    if text.startswith(PREFIX):
        return _admit_signed(text, namespace, name, begun=begun)
    if text.startswith(endpoint_keys.PREFIX):
        return _admit_key(text, _named(namespace, name))
    token = tokens.authenticate(text)
    if token is None:
        return Refusal(401, "invalid_token", "This token is unknown, expired or revoked.")
    principal = principal_of_token(token)
    if not principal.may("invoke"):
        return Refusal(403, "scope", "This token may not call endpoints: it lacks the scope “invoke”.")
    return _admit_principal(principal, f"token:{token.prefix}", _named(namespace, name), token.expires_at)


def _admit_key(text: str, wanted: Q) -> Admission | Refusal:
    key = endpoint_keys.authenticate(text)
    if key is None:
        return Refusal(401, "invalid_api_key", "This key is unknown, expired or revoked.")
    reached = Deployment.objects.alive().filter(wanted, team=key.team_id)
    if not key.every_deployment:
        reached = reached.filter(endpoint_keys=key)
    pk = reached.values_list("pk", flat=True).first()
    if pk is None:
        return _unknown()
    terms = KeyTerms(key.pk, key.requests_per_minute, key.tokens_per_minute, key.counted_with_id or 0)
    # With a limit each request is a question of its own: only so one count holds for all gateways together.
    remembered = 0.0 if terms.limited else _remembered(key.expires_at)
    return Admission(f"key:{key.prefix}", pk, key=terms, remembered=remembered, without_answer=0.0)


def _admit_signed(text: str, namespace: str, name: str, *, begun: bool) -> Admission | Refusal:
    refused = Refusal(401, "invalid_token", "This token is not valid, or it has expired.")
    try:
        claims: Any = signing.loads(text.removeprefix(PREFIX), salt=SALT)
        deployment_id, subject, expires = int(claims["d"]), claims["u"], float(claims["e"])
    except (signing.BadSignature, KeyError, TypeError, ValueError):
        return refused
    if expires <= timezone.now().timestamp() and not begun:
        return refused
    wanted = _named(namespace, name) & Q(pk=deployment_id)
    if subject == PROBE:
        if Deployment.objects.alive().filter(wanted).exists():
            return Admission(PROBE, deployment_id)
        return _unknown()
    user = User.objects.filter(pk=subject, is_active=True).first()
    if user is None:
        return refused
    ends = datetime.fromtimestamp(expires, UTC)
    return _admit_principal(Principal(user=user), f"user:{user.username}", wanted, ends)


def _admit_principal(principal: Principal, subject: str, wanted: Q, ends: datetime | None) -> Admission | Refusal:
    pk = Deployment.objects.callable_by(principal).filter(wanted).values_list("pk", flat=True).first()
    return _unknown() if pk is None else Admission(subject, pk, remembered=_remembered(ends))


def _remembered(ends: datetime | None) -> float:
    """Seconds for which an answer counts whose credential ends then."""
    if ends is None:
        return REMEMBERED
    return max(0.0, min(REMEMBERED, (ends - timezone.now()).total_seconds()))


def _named(namespace: str, name: str) -> Q:
    # NUL cannot be in a name, and PostgreSQL would refuse the query instead of finding nothing.
    return Q(team__namespace=namespace.replace("\x00", "?"), name=name.replace("\x00", "?"))


def _unknown() -> Refusal:
    # The same whether it exists or not: strangers learn nothing.
    return Refusal(403, "not_allowed", "There is no such endpoint for this key or token.")


def _sign(deployment_id: int, subject: int | str, seconds: int) -> str:
    expires = timezone.now().timestamp() + min(max(1, seconds), LONGEST_SECONDS)
    return PREFIX + signing.dumps({"d": deployment_id, "u": subject, "e": math.floor(expires * 1000) / 1000}, salt=SALT)
