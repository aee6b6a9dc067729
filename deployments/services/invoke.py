"""Who may call an endpoint: short tokens that Slipway signs for the prompt box and the probe, API tokens for programs.

A signature alone admits nobody: user, membership and deployment are read again at every question.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core import signing
from django.db.models import Q
from django.utils import timezone

from deployments.models import Deployment, Principal, User
from deployments.services import tokens
from deployments.services.errors import MissingError, NotAllowedError
from deployments.services.principals import principal_of_token

PREFIX = "sli_"
SALT = "slipway.invoke"
LONGEST_SECONDS = 900
LONGEST_HEADER = 2000
PROBE = "probe"


@dataclass(frozen=True)
class Admission:
    """The caller may pass; `subject` names them for the gateway's log."""

    subject: str
    deployment_id: int
    status: int = 200


@dataclass(frozen=True)
class Refusal:
    """The caller may not pass: 401 when nobody is known to ask, 403 when somebody is who may not call this."""

    status: int
    code: str
    message: str


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


def admit(authorization_header: str, namespace: str, name: str) -> Admission | Refusal:
    """Whether the bearer of this header may call the deployment `name` in `namespace`."""
    scheme, _, text = (authorization_header or "")[:LONGEST_HEADER].partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not text:
        return Refusal(401, "missing_token", "Send a token: “Authorization: Bearer …”.")
    if text.startswith(PREFIX):
        return _admit_signed(text, namespace, name)
    token = tokens.authenticate(text)
    if token is None:
        return Refusal(401, "invalid_token", "This token is unknown, expired or revoked.")
    principal = principal_of_token(token)
    if not principal.may("invoke"):
        return Refusal(403, "scope", "This token may not call endpoints: it lacks the scope “invoke”.")
    return _admit_principal(principal, f"token:{token.prefix}", _named(namespace, name))


def _admit_signed(text: str, namespace: str, name: str) -> Admission | Refusal:
    refused = Refusal(401, "invalid_token", "This token is not valid, or it has expired.")
    try:
        claims: Any = signing.loads(text.removeprefix(PREFIX), salt=SALT)
        deployment_id, subject, expires = int(claims["d"]), claims["u"], float(claims["e"])
    except (signing.BadSignature, KeyError, TypeError, ValueError):
        return refused
    if expires <= timezone.now().timestamp():
        return refused
    wanted = _named(namespace, name) & Q(pk=deployment_id)
    if subject == PROBE:
        if Deployment.objects.alive().filter(wanted).exists():
            return Admission(PROBE, deployment_id)
        return _unknown()
    user = User.objects.filter(pk=subject, is_active=True).first()
    if user is None:
        return refused
    return _admit_principal(Principal(user=user), f"user:{user.username}", wanted)


def _admit_principal(principal: Principal, subject: str, wanted: Q) -> Admission | Refusal:
    pk = Deployment.objects.callable_by(principal).filter(wanted).values_list("pk", flat=True).first()
    return _unknown() if pk is None else Admission(subject, pk)


def _named(namespace: str, name: str) -> Q:
    # NUL cannot be in a name, and PostgreSQL would refuse the query instead of finding nothing.
    return Q(team__namespace=namespace.replace("\x00", "?"), name=name.replace("\x00", "?"))


def _unknown() -> Refusal:
    # The same whether it exists or not: strangers learn nothing.
    return Refusal(403, "not_allowed", "There is no such endpoint for this token.")


def _sign(deployment_id: int, subject: int | str, seconds: int) -> str:
    expires = timezone.now().timestamp() + min(max(1, seconds), LONGEST_SECONDS)
    return PREFIX + signing.dumps({"d": deployment_id, "u": subject, "e": round(expires, 3)}, salt=SALT)
