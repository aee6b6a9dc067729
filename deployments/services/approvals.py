"""A second person says yes or no to a digest; what was approved is what runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from django.db import connection
from django.db.models.functions import Now

from deployments.models import Approval, Deployment, Principal, Revision, Team, User, Wanted
from deployments.services import events, holds, impartial, states, telling, waiting
from deployments.services.asks import ADMIN, Ask, needs_admin, reasons
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError, StaleError
from deployments.services.inserting import insert
from deployments.services.text import line_of
from deployments.services.transactions import in_transaction

# Whether they rule, and what people call them. By hand, for each word needs it, and Django takes longer to write it.
# Columns in the order of the model, in which `from_db` takes them.
_DECIDER = """
SELECT id, username, first_name, last_name, is_active, is_platform_admin, admin_by_group, single_sign_on_at
  FROM deployments_user WHERE id = %s
"""
_OF_DECIDER = (
    *("id", "username", "first_name", "last_name"),
    *("is_active", "is_platform_admin", "admin_by_group", "single_sign_on_at"),
)
_DECIDED = "UPDATE deployments_revision SET verdict = %s WHERE id = %s"


@dataclass(frozen=True)
class Standing:
    """Whether a principal may decide about a revision, in which role, and if not why."""

    approve: bool
    reject: bool
    kind: str = ""
    why: str = ""


@dataclass(frozen=True)
class Cost:
    """What approving a revision would take from its team's quota, in GPUs."""

    charge: int
    held: int
    limit: int
    free: int

    @property
    def more(self) -> int:
        """GPUs to be reserved on top of what the deployment holds."""
        return max(0, self.charge - self.held)

    @property
    def within(self) -> bool:
        """True when the quota covers it now."""
        return self.more <= self.free


@in_transaction
def decide(*, principal: Principal, revision: Revision, digest: str, approve: bool, comment: str = "") -> Approval:
    """Approve or reject the newest revision; `digest` is the one that the page showed.

    Raises StaleError when that is not what would run any more, NotAllowedError for the author and for those without
    the role, InvalidError for a rejection without a reason. Approved without quota it waits in line.
    """
    deployment, now = undecided(principal, revision, digest)
    may = standing_of(decided_anew(principal), now)
    if not (may.approve if approve else may.reject):
        raise NotAllowedError(may.why)
    text = line_of(comment, field="comment", longest=500, required=False)
    if not approve and not text:
        why = "Say why it is rejected: the one who asked reads this."
        raise InvalidError(why, field="comment", pointer="/comment", code="required")
    return record(deployment, now, kind=may.kind, approve=approve, actor=principal.user, comment=text)


def by_policy(*, deployment: Deployment, revision: Revision) -> Approval | None:
    """Approve at once what the team's policy lets through: within quota, not too large, without guarded options.

    Never what an admin asks for, nor whoever set that policy or granted that quota.
    """
    if deployment.team.policy != Team.Policy.AUTO:
        return None  # Said apart: what it would cost takes five queries.
    if asks_of(revision):
        return None
    return record(deployment, revision, kind=Approval.Kind.POLICY, approve=True, actor=None, comment="")


def standing_of(principal: Principal, revision: Revision) -> Standing:
    """What the principal may decide about this revision, and in words why not more."""
    author = principal.user.pk in authors_of(revision)
    leads = not principal.is_admin and Team.objects.led_by(principal).filter(pk=revision.deployment.team_id).exists()
    # Only a lead's word depends on them, and they take four queries.
    asks = asks_of(revision) if leads and not author else ()
    guest = leads and not author and not impartial.hosts_of(principal.user).isdisjoint(authors_of(revision))
    return standing(principal, asks=asks, author=author, leads=leads, guest=guest)


def standing(principal: Principal, *, asks: Sequence[Ask], author: bool, leads: bool, guest: bool = False) -> Standing:
    """`standing_of` from what is known: the reasons to ask, and what the principal is to revision and team.

    `guest`: their account came of an invitation by somebody who asks (`impartial.hosts_of`).
    """
    if not principal.may("approve"):
        return Standing(False, False, why="This token may not approve.")
    if author:
        return Standing(False, False, why="You asked for this or edited it: somebody else has to decide.")
    if principal.is_admin:
        return Standing(True, True, Approval.Kind.ADMIN)
    if not leads:
        return Standing(False, False, why="Only a lead of the team or an admin decides.")
    if guest:
        words = "Who asks for this invited you to your account: another lead or an admin has to approve it."
        return Standing(False, True, Approval.Kind.LEAD, words)
    if not needs_admin(asks):
        return Standing(True, True, Approval.Kind.LEAD)
    words = " ".join(ask.message for ask in asks if ask.who == ADMIN)
    return Standing(False, True, Approval.Kind.LEAD, f"An admin has to approve it. {words}")


def asks_of(revision: Revision) -> tuple[Ask, ...]:
    """Why somebody has to decide about this revision now."""
    team, within = revision.deployment.team, cost_of(revision).within
    found = reasons(team, gpus=revision.gpus, guarded=revision.guarded, within=within)
    if found:
        return found
    own = impartial.own_rule(authors_of(revision), team, revision.flavor)
    return (own,) if own else ()


def decided_anew(principal: Principal) -> Principal:
    """The principal as the database knows the user now: an open page of a demoted admin decides nothing."""
    with connection.cursor() as cursor:
        cursor.execute(_DECIDER, [principal.user.pk])
        found = cursor.fetchone()
    return replace(principal, user=User.from_db(connection.alias, _OF_DECIDER, found)) if found else principal


def authors_of(revision: Revision) -> set[int]:
    """Users who wrote any part of what this revision would change: none of them may approve it."""
    approved = revision.deployment.approved
    since = approved.number if approved is not None and approved.number < revision.number else 0
    if revision.number == since + 1:
        return {revision.author_id}  # The most usual case: nothing of anybody else is in it.
    revisions = Revision.objects.filter(
        deployment_id=revision.deployment_id, number__gt=since, number__lte=revision.number
    )
    return set(revisions.values_list("author_id", flat=True))


def cost_of(revision: Revision) -> Cost:
    """What approving this revision would take from the quota now."""
    deployment = revision.deployment
    usage = holds.usage_in(team=deployment.team, flavor=revision.flavor)
    return Cost(
        charge=holds.charge(old=deployment.applied, new=revision),
        held=holds.held_by(deployment, revision.flavor),
        limit=usage.limit,
        free=usage.free,
    )


def undecided(principal: Principal, revision: Revision, digest: str) -> tuple[Deployment, Revision]:
    """The locked deployment and its newest revision, which waits and which `digest` names.

    Raises MissingError where there is nothing to see, StaleError for another digest, ConflictError once it is decided.
    """
    deployment = _locked(principal, revision)
    now = deployment.latest
    if now is None or now.pk != revision.pk or digest != now.digest:
        raise StaleError("This request was changed since the page was loaded. Look at the newest revision.")
    if now.verdict != Revision.Verdict.PENDING:
        raise ConflictError(f"This revision is decided already: {now.get_verdict_display().lower()}.")
    if deployment.wanted == Wanted.DELETED:
        raise ConflictError("This deployment is being deleted.")
    return deployment, now


def record(
    deployment: Deployment,
    revision: Revision,
    *,
    kind: str,
    approve: bool,
    actor: User | None,
    comment: str,
    second: User | None = None,
) -> Approval:
    """Write a verdict down, and let what was approved run or wait in line.

    The caller has checked who may, holds the deployment's lock and has read it since.
    """
    with telling.together():
        approval = _verdict(deployment, revision, kind, approve, actor, comment, second)
        if approve:
            waiting.accept(deployment=deployment, revision=revision, actor=actor)
        else:
            states.move(deployment, updated_at=Now())
    return approval


def _verdict(
    deployment: Deployment,
    revision: Revision,
    kind: str,
    approve: bool,
    actor: User | None,
    comment: str,
    second: User | None,
) -> Approval:
    approval = Approval(
        revision=revision,
        digest=revision.digest,
        kind=kind,
        actor=actor,
        approved=approve,
        comment=comment,
        second=second,
    )
    insert([approval])
    verdict = Revision.Verdict.APPROVED if approve else Revision.Verdict.REJECTED
    with connection.cursor() as cursor:
        cursor.execute(_DECIDED, [verdict, revision.pk])
    revision.verdict = verdict
    who = " and ".join(person.get_full_name() or person.username for person in (actor, second) if person) or "policy"
    emergency = " in an emergency" if second is not None else ""
    events.record(
        kind="approved" if approve else "rejected",
        message=f"Revision {revision.number} {'approved' if approve else 'rejected'}{emergency} by {who}"
        + (f": {comment}" if comment else ""),
        deployment=deployment,
        actor=actor,
        level="bad" if second is not None else "good" if approve else "warning",
        data={
            "revision": revision.number,
            "digest": revision.digest,
            "as": kind,
            **({"second": second.pk} if second is not None else {}),
            **events.changed({"verdict": Revision.Verdict.PENDING}, {"verdict": verdict}),
        },
    )
    return approval


def _locked(principal: Principal, revision: Revision) -> Deployment:
    rows = states.computable(Deployment.objects.alive().visible_to(principal), "applied")
    row = rows.hold(revision.deployment_id)
    if row is None:
        raise MissingError("There is no such deployment.")
    if row.latest is not None:
        row.latest.deployment = row  # what is asked of the revision is answered by what was read under the lock
    return row
