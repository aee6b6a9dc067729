"""Teams: made, renamed and archived by admins. Who belongs to them is in `memberships`."""

from __future__ import annotations

import re
import secrets

from django.db import IntegrityError, transaction
from django.db.models import Case, F, PositiveIntegerField, Q, Value, When
from django.db.models.functions import Greatest
from django.utils import timezone

from deployments.models import (
    ApiToken,
    Deployment,
    EndpointKey,
    GroupRule,
    Invitation,
    Principal,
    QuotaGrant,
    QuotaRequest,
    Team,
)
from deployments.services import credentials, events, memberships, policies
from deployments.services.errors import Checks, ConflictError, InvalidError, MissingError, NotAllowedError
from deployments.services.principals import anew
from deployments.services.text import line_of
from deployments.services.transactions import in_transaction
from portal.lib.hints import RECONCILE_TEAM, hint

SLUG = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")
# No vowels: a random word shall not be one.
SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz0123456789"


@in_transaction
def create(*, principal: Principal, slug: str, name: str, policy: str = Team.Policy.ASK) -> Team:
    """Make a team with a namespace of its own, whose random suffix nobody has had before."""
    _needs_admin(principal, "make teams")
    if principal.team_ids is not None:
        raise NotAllowedError("A token that is bound to teams makes no new ones.")
    checks = Checks()
    checks.of(lambda: _check_slug(slug), None)
    label = checks.of(lambda: line_of(name, field="name", longest=80), "")
    chosen = checks.of(lambda: policies.policy_named(policy), "")
    checks.done()
    suffix = "".join(secrets.choice(SUFFIX_LETTERS) for _ in range(5))
    try:
        with transaction.atomic():
            team = Team.objects.create(
                slug=slug,
                name=label,
                namespace=f"{slug}-{suffix}",
                policy=chosen,
            )
    except IntegrityError:
        raise ConflictError(f"There is a team “{slug}” already.", field="slug", pointer="/slug") from None
    events.record(
        kind="team_created",
        message=f"Team {team.name} made",
        team=team,
        actor=principal.user,
        data={"after": {"slug": slug, "namespace": team.namespace, "policy": team.policy}},
    )
    hint(RECONCILE_TEAM, team.pk)
    return team


@in_transaction
def rename(*, principal: Principal, team: Team, name: str) -> Team:
    """Change what people read. Slug and namespace stay: addresses and objects on the cluster carry them."""
    row = memberships.ruled(principal, team)
    before, row.name = row.name, line_of(name, field="name", longest=80)
    if before != row.name:
        row.save(update_fields=["name"])
        events.record(
            kind="team_renamed",
            message=f"{before} is called {row.name} now",
            team=row,
            actor=principal.user,
            data=events.changed({"name": before}, {"name": row.name}),
        )
    return row


@in_transaction
def archive(*, principal: Principal, team: Team) -> Team:
    """Close a team for good: no more requests, and tokens, keys, invitations, rules and grants of it end.

    ConflictError while it has deployments: whoever archives sees first what would stop. Its people can still read what
    was, and neither its slug nor its namespace is ever given to another team.
    """
    _needs_admin(principal, "archive teams")
    row = _governed(principal, team.pk)
    if row.archived_at is not None:
        return row
    living = Deployment.objects.alive().filter(team=row).count()
    if living:
        many = "deployment is" if living == 1 else "deployments are"
        raise ConflictError(f"{living} {many} left: delete them first, then archive the team.", code="has_deployments")
    row.archived_at = timezone.now()
    row.save(update_fields=["archived_at"])
    events.record(
        kind="team_archived",
        message=f"Team {row.name} archived",
        team=row,
        actor=principal.user,
        level="warning",
        data={"before": {"archived": False}, "after": {"archived": True}, "ended": _end_all_of(row)},
    )
    # The namespace's ResourceQuota follows the grants.
    Team.objects.filter(pk=row.pk).update(next_reconcile_at=timezone.now())
    hint(RECONCILE_TEAM, row.pk)
    memberships.tell_streams()
    return row


def _check_slug(slug: object) -> None:
    if not isinstance(slug, str) or not SLUG.fullmatch(slug):
        words = "Use 1 to 20 lower-case letters, digits and “-”, beginning with a letter."
        raise InvalidError(words, field="slug", pointer="/slug")


def _end_all_of(team: Team) -> dict[str, int]:
    """End what opens doors in the team's name, or holds GPUs for it. Returns how many of each ended."""
    now = team.archived_at
    active = set(Team.objects.active().values_list("pk", flat=True))
    tokens = ApiToken.objects.filter(revoked_at=None, team_ids__contains=[team.pk])
    # A token for several teams lives on in the others.
    bound_alone = [row.pk for row in tokens if not active & set(row.team_ids or ())]
    requests = QuotaRequest.objects.pending().filter(team=team)
    return {
        "tokens": ApiToken.objects.filter(pk__in=bound_alone).update(revoked_at=now),
        "keys": EndpointKey.objects.filter(team=team, revoked_at=None).update(revoked_at=now),
        "credentials": credentials.end_all_of(team),
        "invitations": Invitation.objects.filter(team=team, accepted_at=None, revoked_at=None).update(revoked_at=now),
        "group_rules": GroupRule.objects.filter(team=team).delete()[0],
        "quota_requests": requests.update(state=QuotaRequest.State.WITHDRAWN, decided_at=now),
        "grants": QuotaGrant.objects.filter(Q(valid_until=None) | Q(valid_until__gt=now), team=team).update(
            valid_until=Greatest(Value(now), F("valid_from")),
            gpus=Case(When(valid_from__gt=now, then=0), default=F("gpus"), output_field=PositiveIntegerField()),
        ),
    }


def _needs_admin(principal: Principal, what: str) -> None:
    if not (principal.is_admin and principal.may("approve")):
        raise NotAllowedError(f"Only an admin may {what}.")


def _governed(principal: Principal, team_id: int) -> Team:
    """The team, locked; to a token that does not reach it there is none."""
    row = Team.objects.governed_by(principal).hold(team_id)
    # Again: who waited for the lock may be no admin any more.
    if row is None or not Team.objects.governed_by(anew(principal)).filter(pk=team_id).exists():
        raise MissingError("There is no such team.")
    return row
