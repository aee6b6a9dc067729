"""Keys with which programs call models: shown once, stored as SHA-256, narrow, ending, and dead once revoked.

A team's own keys are its leads' to make (and an admin's); everybody else makes keys of their own person, which end with
their membership. `invoke.admit` says what a key opens; the gateway remembers its answer for four seconds at most.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from deployments.models import Deployment, EndpointKey, Event, Principal, Team
from deployments.services import events
from deployments.services.errors import Checks, ConflictError, InvalidError, MissingError, NotAllowedError
from deployments.services.principals import anew
from deployments.services.text import line_of
from deployments.services.tokens import SEEN_EVERY, check_alive, digest_of
from deployments.services.transactions import in_transaction

PREFIX = "slk_"
LONGEST = 200
MOST_DAYS = 365
DEFAULT_DAYS = 90
PER_TEAM = 200
MOST_DEPLOYMENTS = 100
MOST_REQUESTS = 1_000_000
MOST_TOKENS = 1_000_000_000
MOST_GRACE_HOURS = 30 * 24
DEFAULT_GRACE_HOURS = 24


@dataclass(frozen=True)
class Limits:
    """What a key may use in a minute; None: as much as the deployments give."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


NO_LIMITS = Limits()


def may_make_for_team(principal: Principal, team: Team) -> bool:
    """True for those whose keys may belong to the team itself: its leads, and admins."""
    if not (principal.may("write") and principal.may("invoke")):
        return False
    governed = Team.objects.governed_by(principal, "write").filter(pk=team.pk).exists()
    return governed or Team.objects.led_by(principal).filter(pk=team.pk).exists()


@in_transaction
def create(
    *,
    principal: Principal,
    team: Team,
    name: str,
    personal: bool = False,
    every_deployment: bool = False,
    deployments: Collection[Deployment] = (),
    days: int = DEFAULT_DAYS,
    limits: Limits = NO_LIMITS,
    text: str | None = None,
) -> tuple[EndpointKey, str]:
    """Make a key and return it with its text, which is never shown again. `days` is its life, at most 365.

    It opens the deployments named, or with `every_deployment` all of the team's, those to come too. An API token makes
    one with the scopes write and invoke, in one of its own teams, and the key ends with it. Living keys of one owner,
    the team or a person in it, have different names, but for successors that `rotate` makes. `text` is for an
    installation that derives it from its own secret key: as long and as random as ours.
    """
    _may_give_calls(principal)
    check_alive(principal)
    team = _locked_team(principal, team)
    # Who waited for the lock may have lost a right meanwhile.
    principal = anew(principal)
    if personal:
        if not Team.objects.writable_by(principal).filter(pk=team.pk).exists():
            raise NotAllowedError("Only members of the team hold keys of their own in it.", field="personal")
    elif not may_make_for_team(principal, team):
        raise NotAllowedError("Keys of the team are made by its leads. Make one of your own.", field="personal")
    checks = Checks()
    label = checks.of(lambda: line_of(name, field="name", longest=80), "")
    words = f"A key lives 1 to {MOST_DAYS} days."
    checks.of(lambda: _check_number(days, 1, MOST_DAYS, field="days", words=words), None)
    checks.of(lambda: _check_limits(limits), None)
    nothing: Sequence[Deployment] = ()
    reach = checks.of(lambda: _reach(principal, team, deployments, every=every_deployment), nothing)
    checks.done()
    if EndpointKey.objects.live().filter(team=team).count() >= PER_TEAM:
        raise InvalidError(f"At most {PER_TEAM} keys per team: revoke one first.", field="name", pointer="/name")
    person = principal.user if personal else None
    # Under the lock of their team: a button that was pressed twice makes one.
    if EndpointKey.objects.live().filter(team=team, person=person, name=label).exists():
        words = f"There is a living key “{label}” already: choose another name, rotate it, or revoke it first."
        raise InvalidError(words, field="name", pointer="/name", code="name_taken")
    key, text = _new(
        text or PREFIX + secrets.token_urlsafe(32),
        team=team,
        person=person,
        every_deployment=every_deployment,
        name=label,
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        created_by=principal.user,
        made_by_token_id=principal.token_id,
        expires_at=_ends(principal, timedelta(days=days)),
    )
    key.deployments.set(reach)
    _record("key_created", f"Endpoint key “{key.name}” made", key, principal, events.changed({}, _facts(key)))
    return key, text


@in_transaction
def rotate(
    *, principal: Principal, key_id: int, grace_hours: int = DEFAULT_GRACE_HOURS, text: str | None = None
) -> tuple[EndpointKey, str]:
    """Make the successor of a key, with its name, reach, limits and length of life; return it with its text.

    The old key goes on for `grace_hours` (0: it ends now), never longer than it would have lived.
    """
    _may_give_calls(principal)
    check_alive(principal)
    old = _held(principal, key_id)
    if old.person_id is not None and old.person_id != principal.user.pk:
        # Whoever rotated it would learn a text that speaks for somebody else.
        raise NotAllowedError("A person's key is rotated by that person alone; you may revoke it.")
    words = f"The old key goes on for 0 to {MOST_GRACE_HOURS} hours."
    _check_number(grace_hours, 0, MOST_GRACE_HOURS, field="grace_hours", words=words)
    if not EndpointKey.objects.live().filter(pk=old.pk).exists():
        raise ConflictError("This key has ended: make a new one.")
    if old.successors.filter(revoked_at=None).exists():
        raise ConflictError("This key was rotated already: rotate its successor.")
    life = (old.expires_at - old.created_at) if old.expires_at else timedelta(days=DEFAULT_DAYS)
    key, text = _new(
        text or PREFIX + secrets.token_urlsafe(32),
        team=old.team,
        person=old.person,
        every_deployment=old.every_deployment,
        name=old.name,
        requests_per_minute=old.requests_per_minute,
        tokens_per_minute=old.tokens_per_minute,
        created_by=principal.user,
        made_by_token_id=principal.token_id,
        expires_at=_ends(principal, life),
        rotated_from=old,
        counted_with_id=old.counted_with_id or old.pk,
    )
    key.deployments.set(old.deployments.all())
    before = _facts(old)
    now = timezone.now()
    if grace_hours == 0:
        old.revoked_at = now
    else:
        until = now + timedelta(hours=grace_hours)
        old.expires_at = min(old.expires_at, until) if old.expires_at else until
    old.save(update_fields=["revoked_at", "expires_at"])
    change = events.changed(before, _facts(old)) | {"successor": key.pk, "grace_hours": grace_hours}
    _record("key_rotated", f"Endpoint key “{old.name}” rotated", old, principal, change)
    return key, text


@in_transaction
def revoke(*, principal: Principal, key_id: int) -> EndpointKey:
    """End a key: no gateway admits it more than five seconds later. A second time changes nothing."""
    key = _held(principal, key_id)
    if key.revoked_at is None:
        before = _facts(key)
        key.revoked_at = timezone.now()
        key.save(update_fields=["revoked_at"])
        change = events.changed(before, _facts(key))
        _record("key_revoked", f"Endpoint key “{key.name}” revoked", key, principal, change)
    return key


def authenticate(text: str) -> EndpointKey | None:
    """The live key with this text; None for anything else. `last_used_at` is kept to the minute."""
    if not text.startswith(PREFIX) or len(text) > LONGEST or not text.isascii():
        return None
    key = EndpointKey.objects.live().filter(digest=digest_of(text)).first()
    if key is None:
        return None
    now = timezone.now()
    if key.last_used_at is None or key.last_used_at < now - SEEN_EVERY:
        stale = Q(last_used_at=None) | Q(last_used_at__lt=now - SEEN_EVERY)
        EndpointKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)
    return key


def _may_give_calls(principal: Principal) -> None:
    if not (principal.may("write") and principal.may("invoke")):
        raise NotAllowedError("A token makes keys with the scopes “write” and “invoke”: it gives no more than it has.")


def _locked_team(principal: Principal, team: Team) -> Team:
    """The team, so that keys are counted one at a time; MissingError for one that the principal does not see."""
    visible, writable = Team.objects.visible_to(principal), Team.objects.writable_by(principal)
    seen = Team.objects.active().filter(Q(pk__in=visible.values("pk")) | Q(pk__in=writable.values("pk")))
    found = seen.hold(team.pk)
    if found is None:
        raise MissingError("There is no such team.")
    return found


def _held(principal: Principal, key_id: int) -> EndpointKey:
    """The key, its team and itself locked. MissingError where it is not to be seen, NotAllowedError not to be changed.

    The team first, as who ends a membership does: a key that is rotated meanwhile leaves no successor behind.
    """
    mine = EndpointKey.objects.manageable_by(principal).filter(pk=key_id)
    team_id = mine.values_list("team_id", flat=True).first()
    if team_id is not None:
        Team.objects.hold(team_id)
        still = EndpointKey.objects.manageable_by(anew(principal)).values("pk")
        key = EndpointKey.objects.filter(pk__in=still).hold(key_id, "team", "person")
        if key is not None:
            return key
    if EndpointKey.objects.visible_to(principal).filter(pk=key_id).exists():
        raise NotAllowedError("Only its person, a lead of the team or an admin may change this key.")
    raise MissingError("There is no such key.")


def _reach(
    principal: Principal, team: Team, deployments: Collection[Deployment], *, every: bool
) -> Sequence[Deployment]:
    if every:
        if deployments:
            words = "Name deployments, or let it open all of them."
            raise InvalidError(words, field="deployments", pointer="/deployments")
        return ()
    wanted = {row.pk for row in deployments}
    if not 1 <= len(wanted) <= MOST_DEPLOYMENTS:
        words = f"Choose 1 to {MOST_DEPLOYMENTS} deployments, or all of the team."
        raise InvalidError(words, field="deployments", pointer="/deployments")
    found = list(Deployment.objects.callable_by(principal).filter(team=team, pk__in=wanted))
    if len(found) != len(wanted):
        raise InvalidError("The team has no such deployment.", field="deployments", pointer="/deployments")
    return found


def _check_limits(limits: Limits) -> None:
    checks = Checks()
    for field, most in (("requests_per_minute", MOST_REQUESTS), ("tokens_per_minute", MOST_TOKENS)):
        value = getattr(limits, field)
        if value is not None:
            words = f"A whole number from 1 to {most:,}, or nothing."
            checks.of(partial(_check_number, value, 1, most, field=field, words=words), None)
    checks.done()
    if limits.tokens_per_minute is not None and not (settings.GATEWAY_TOKEN or settings.METER):
        # A limit that nothing counts against would only look like one.
        words = "The gateway of this installation does not report tokens: limit requests instead."
        raise InvalidError(words, field="tokens_per_minute", pointer="/tokens_per_minute", code="not_counted")


def _check_number(value: object, least: int, most: int, *, field: str, words: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidError(words, field=field, pointer=f"/{field}")


def _ends(principal: Principal, life: timedelta) -> datetime:
    until = timezone.now() + life
    return until if principal.expires_at is None else min(until, principal.expires_at)


def _new(text: str, **fields: Any) -> tuple[EndpointKey, str]:
    return EndpointKey.objects.create(prefix=text[:12], digest=digest_of(text), **fields), text


def _facts(key: EndpointKey) -> dict[str, Any]:
    """What the audit keeps of a key: never its text or digest."""
    return {
        "name": key.name,
        "person": key.person_id,
        "every_deployment": key.every_deployment,
        "deployments": sorted(key.deployments.values_list("pk", flat=True)),
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "until": key.expires_at.isoformat() if key.expires_at else None,
        "revoked": key.revoked_at is not None,
    }


def _record(kind: str, message: str, key: EndpointKey, principal: Principal, change: dict[str, Any]) -> Event:
    return events.record(
        kind=kind,
        message=f"{message} ({key.prefix}…)",
        team=key.team,
        actor=principal.user,
        data={"key": key.pk, "prefix": key.prefix, **change},
    )
