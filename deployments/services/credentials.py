"""Credentials of a team: added, entered again and deleted by its leads. What workers do: credential_records.

A value is sealed before it is stored, and no page, answer, message, event or log line ever shows it again.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max, Q, QuerySet
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from deployments.models import Credential, Deployment, Principal, SealedValue, SecretVersion, Team, User
from deployments.preflight.credential import OPENS
from deployments.services import events, sealing
from deployments.services.credential_values import Entered, entered, refuse_inside
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError
from deployments.services.principals import anew
from deployments.services.transactions import in_transaction
from deployments.sources import SourceError, parse
from deployments.sources.oci import is_same_registry, parse_image
from deployments.spec import MAX_ADAPTERS
from portal.lib.hints import RECONCILE_TEAM, hint

# How long a value waits for a worker; who forgets it comes every twenty seconds, so none lies there for ten minutes.
LIVES = timedelta(minutes=9, seconds=30)
PER_TEAM = 50
# Of one test: a model with as many adapters as a deployment takes, and what a row holds of their addresses.
MOST_TESTED, LONGEST_TEST = 1 + MAX_ADAPTERS, 512
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,38}[a-z0-9])?")


class NotConfiguredError(ConflictError):
    """Without a public key nothing can be sealed, and nothing is stored in the clear instead."""

    code = "no_sealing_key"


@sensitive_variables("fields")
def create(
    *, principal: Principal, team: Team, name: str, kind: str, fields: Mapping[str, Any], test_uri: str = ""
) -> Credential:
    """Add a credential: its value is sealed, tested by a worker (with `test_uri`, where given) and made a Secret.

    Raises NotAllowedError for members who do not lead, MissingError for strangers.
    """
    if kind in Credential.Kind.values and Team.objects.active().managed_by(principal).filter(pk=team.pk).exists():
        # Before anything is locked, and for nobody who may not add it.
        refuse_inside(entered(kind, fields))
    return _create(principal, team, name, kind, fields, test_uri)


@sensitive_variables("fields", "what")
@in_transaction
def _create(
    principal: Principal, team: Team, name: str, kind: str, fields: Mapping[str, Any], test_uri: str
) -> Credential:
    row = _led(principal, team)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        words = "Use 1 to 40 lower-case letters, digits, “-” and “.”."
        raise InvalidError(words, field="name", pointer="/name")
    if kind not in Credential.Kind.values:
        raise InvalidError("Choose one of the kinds.", field="kind", pointer="/kind")
    what = entered(kind, fields)
    uri = _test_uri(kind, test_uri, what)
    _needs_key()
    if Credential.objects.kept().filter(team=row).count() >= PER_TEAM:
        raise InvalidError(f"At most {PER_TEAM} credentials per team.", field="name", pointer="/name")
    try:
        with transaction.atomic():
            credential = Credential.objects.create(team=row, name=name, kind=kind, created_by=principal.user)
    except IntegrityError:
        raise ConflictError("The team has a credential of this name.", field="name", pointer="/name") from None
    version = _enter(credential, row, principal.user, what, uri)
    _record("credential_added", f"Credential “{name}” added", credential, principal.user, {}, _facts(version))
    return credential


@sensitive_variables("fields")
def rotate(
    *, principal: Principal, credential_id: int, fields: Mapping[str, Any], test_uri: str | None = None
) -> Credential:
    """Enter a new value. What runs goes on with the old one until the new one is stored; then its pods are rolled.

    `test_uri` None: with the model of the last test.
    """
    known = Credential.objects.manageable_by(principal).filter(pk=credential_id).first()
    if known is not None:
        refuse_inside(entered(known.kind, fields))
    return _rotate(principal, credential_id, fields, test_uri)


@sensitive_variables("fields", "what")
@in_transaction
def _rotate(principal: Principal, credential_id: int, fields: Mapping[str, Any], test_uri: str | None) -> Credential:
    credential = _managed(principal, credential_id)
    what = entered(credential.kind, fields)
    uri = _test_uri(credential.kind, test_uri, what) if test_uri is not None else credential.test_uri
    if test_uri is None and _is_elsewhere(uri, what):
        uri = ""  # It was tested with a model of the registry that it was for.
    _needs_key()
    before = credential.versions.order_by("-number").first()
    # What was entered before and is not in use yet never will be.
    _retire(credential.versions.exclude(pk=credential.current_id or 0))
    version = _enter(credential, credential.team, principal.user, what, uri)
    _record(
        "credential_rotated",
        f"Credential “{credential.name}” entered again",
        credential,
        principal.user,
        _facts(before) if before else {},
        _facts(version),
    )
    return credential


@in_transaction
def delete(*, principal: Principal, credential_id: int) -> None:
    """Delete a credential and its Secret. ConflictError while a deployment names it: that could not start again."""
    credential = _managed(principal, credential_id)
    users = sorted(users_of(credential).values_list("name", flat=True)[:6])
    if users:
        named = ", ".join(users[:5]) + (" and others" if len(users) > 5 else "")
        words = f"{named} use{'s' if len(users) == 1 else ''} it: choose another credential there, or delete them."
        raise ConflictError(words, code="in_use")
    _end(credential)
    before = _facts(credential.versions.order_by("-number").first())
    _record("credential_deleted", f"Credential “{credential.name}” deleted", credential, principal.user, before, {})


def end_all_of(team: Team) -> int:
    """End the credentials of a team that is being archived; returns how many."""
    rows = list(Credential.objects.kept().filter(team=team))
    for row in rows:
        _end(row)
    return len(rows)


def users_of(credential: Credential) -> QuerySet[Deployment]:
    """The deployments whose newest, approved or applied revision names it."""
    name = credential.name
    naming = Q(latest__spec__source__credential=name) | Q(approved__spec__source__credential=name)
    naming |= Q(applied__spec__source__credential=name)
    return Deployment.objects.alive().filter(naming, team=credential.team_id)


def expire() -> int:
    """Remove values that no worker took in time; the sweep calls this. Returns how many."""
    due = SealedValue.objects.filter(expires_at__lte=timezone.now()).values_list("version__credential", flat=True)
    return sum(_expire(pk) for pk in due[:200])


@in_transaction
def _expire(credential_id: int) -> int:
    credential = Credential.objects.select_related("team").get(pk=credential_id)
    _lock(credential.team_id)
    late = credential.versions.filter(sealed__expires_at__lte=timezone.now())
    number = late.count()
    if number:
        Credential.objects.filter(pk=credential.pk).update(problem="expired")
        events.record(
            kind="credential_expired",
            message=f"The value of “{credential.name}” was not stored within ten minutes: enter it again",
            team=credential.team,
            level="warning",
            data={"credential": credential.pk, "name": credential.name},
        )
        _retire(late)
        _due(credential.team_id)
    return number


def _enter(credential: Credential, team: Team, user: User, what: Entered, test_uri: str) -> SecretVersion:
    last = credential.versions.aggregate(last=Max("number"))["last"] or 0
    version = SecretVersion.objects.create(
        credential=credential,
        number=last + 1,
        fingerprint=sealing.fingerprint(what.value),
        settings=dict(what.settings),
        namespace=team.namespace,
        # Random: nobody else can have the name, so whatever has it may be deleted.
        name=f"slipway-{secrets.token_hex(12)}",
        entered_by=user,
    )
    expires = timezone.now() + LIVES
    key_name, ciphertext = sealing.seal(version, what.value, team_id=team.pk, expires_at=expires)
    SealedValue.objects.create(
        version=version, key_name=key_name, ciphertext=ciphertext, test_uri=test_uri, expires_at=expires
    )
    Credential.objects.filter(pk=credential.pk).update(problem="")
    credential.problem = ""
    _due(team.pk)
    return version


def _end(credential: Credential) -> None:
    Credential.objects.filter(pk=credential.pk).update(deleted_at=timezone.now(), current=None, test_facts={})
    _retire(credential.versions.all())
    _due(credential.team_id)


def _retire(versions: QuerySet[SecretVersion]) -> None:
    """Mark versions as not to be used any more, and forget what is sealed for them."""
    found = list(versions.values_list("pk", flat=True))
    SealedValue.objects.filter(version__in=found).delete()
    SecretVersion.objects.filter(pk__in=found, retired_at=None).update(retired_at=timezone.now())


def _due(team_id: int) -> None:
    Team.objects.filter(pk=team_id).update(next_reconcile_at=timezone.now())
    hint(RECONCILE_TEAM, team_id)


def _needs_key() -> None:
    if not sealing.can_seal():
        words = "This installation has no sealing key: an admin must set SLIPWAY_SEAL_PUBLIC_KEY."
        raise NotConfiguredError(words)


def _test_uri(kind: str, uri: object, what: Entered) -> str:
    """What to test with, which must be of a source that this kind opens; "" for none.

    Tokens of a hub also take the LoRA adapters that are wanted with a model: several addresses, one space between.
    """
    if uri in (None, ""):
        return ""
    if not isinstance(uri, str) or len(uri) > LONGEST_TEST:
        raise _wrong_uri("Must be the address of a model.")
    if kind != Credential.Kind.HF:
        found = _address(kind, uri)
        if _is_elsewhere(found, what):
            server = what.settings["server"]
            raise _wrong_uri(f"This login opens no image of another registry than {server}: name one of {server}.")
        return found
    found = " ".join(dict.fromkeys(_address(kind, each) for each in uri.split()))
    if len(found.split()) > MOST_TESTED or len(found) > LONGEST_TEST:
        raise _wrong_uri(f"At most {MOST_TESTED} addresses, of {LONGEST_TEST} characters together.")
    return found


def _is_elsewhere(uri: str, what: Entered) -> bool:
    """True for an image in another registry than the one that a login is for."""
    server = what.settings.get("server", "")
    return bool(uri and server) and not is_same_registry(parse_image(uri).registry, server)


def _address(kind: str, uri: str) -> str:
    try:
        source = parse(uri if "://" in uri or kind != Credential.Kind.HF else f"hf://{uri}")
    except SourceError as error:
        raise _wrong_uri(error.finding.message) from None
    if OPENS.get(source.scheme, ("",))[0] != kind:
        shown = next(scheme.value for scheme, (opened, _) in OPENS.items() if opened == kind)
        raise _wrong_uri(f"This is tested with a model of {shown}://….")
    return source.uri


def _wrong_uri(message: str) -> InvalidError:
    return InvalidError(message, field="test_uri", pointer="/test_uri")


def _led(principal: Principal, team: Team) -> Team:
    """The team under a lock, so that credentials are counted one at a time."""
    row = Team.objects.active().managed_by(principal).hold(team.pk)
    if row is not None and Team.objects.managed_by(anew(principal)).filter(pk=row.pk).exists():
        return row
    if Team.objects.active().visible_to(principal).filter(pk=team.pk).exists():
        raise NotAllowedError("Credentials are added by leads of the team.", field="team", pointer="/team")
    raise MissingError("There is no such team.")


def _managed(principal: Principal, credential_id: int) -> Credential:
    """The credential, its team locked. MissingError for one that is not seen, NotAllowedError for who only sees it."""
    mine = Credential.objects.manageable_by(principal).filter(pk=credential_id)
    team_id = mine.values_list("team_id", flat=True).first()
    if team_id is not None:
        _lock(team_id)
        # Again: it may have been deleted while we waited, and so may the right to change it.
        row = Credential.objects.manageable_by(anew(principal)).hold(credential_id, "team")
        if row is not None:
            return row
    if Credential.objects.visible_to(principal).filter(pk=credential_id).exists():
        raise NotAllowedError("Only leads of the team and admins change its credentials.")
    raise MissingError("There is no such credential.")


def _lock(team_id: int) -> None:
    """The team's row is the lock of its credentials, for people and for workers, who hold their lease by it."""
    Team.objects.select_for_update(no_key=True).values_list("pk").get(pk=team_id)


def _facts(version: SecretVersion | None) -> dict[str, Any]:
    """What the audit keeps of a value: never the value."""
    if version is None:
        return {}
    return {"version": version.number, "fingerprint": version.fingerprint, **version.settings}


def _record(
    kind: str, message: str, credential: Credential, actor: User, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    about = {"credential": credential.pk, "name": credential.name, "kind": credential.kind}
    events.record(
        kind=kind,
        message=message,
        team=credential.team,
        actor=actor,
        data={**about, **events.changed(before, after)},
    )
