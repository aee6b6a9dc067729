"""A second person says yes or no to a digest; what was approved is what runs."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models.functions import Now

from deployments.models import Approval, Deployment, Principal, Revision, Team, User, Wanted
from deployments.services import events, holds, states, waiting
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError, StaleError
from deployments.services.text import line_of
from deployments.services.transactions import in_transaction


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
    deployment = _locked(principal, revision)
    now = Revision.objects.select_related("flavor").get(pk=revision.pk)
    if digest != now.digest or deployment.latest_id != now.pk:
        raise StaleError("This request was changed since the page was loaded. Look at the newest revision.")
    if now.verdict != Revision.Verdict.PENDING:
        raise ConflictError(f"This revision is decided already: {now.get_verdict_display().lower()}.")
    if deployment.wanted == Wanted.DELETED:
        raise ConflictError("This deployment is being deleted.")
    standing = standing_of(principal, now)
    if not (standing.approve if approve else standing.reject):
        raise NotAllowedError(standing.why)
    text = line_of(comment, field="comment", longest=500, required=False)
    if not approve and not text:
        why = "Say why it is rejected: the one who asked reads this."
        raise InvalidError(why, field="comment", pointer="/comment", code="required")
    return _record(deployment, now, kind=standing.kind, approve=approve, actor=principal.user, comment=text)


def by_policy(*, deployment: Deployment, revision: Revision) -> Approval | None:
    """Approve at once what the team's policy lets through: within quota and without guarded options."""
    if deployment.team.policy != Team.Policy.AUTO:
        return None  # Said apart: what it would cost takes five queries.
    if not policy_covers(deployment.team, guarded=bool(revision.guarded), within=cost_of(revision).within):
        return None
    return _record(deployment, revision, kind=Approval.Kind.POLICY, approve=True, actor=None, comment="")


def policy_covers(team: Team, *, guarded: bool, within: bool) -> bool:
    """True when a request of this team is approved without anybody looking."""
    return team.policy == Team.Policy.AUTO and within and not guarded


def who_decides(team: Team, *, guarded: bool, within: bool) -> str:
    """Who would decide about a request, in words for the form."""
    if policy_covers(team, guarded=guarded, within=within):
        return "Approved at once by the team's policy."
    if guarded:
        return "An admin approves: the request uses guarded options."
    if team.policy == Team.Policy.ASK:
        return "An admin approves every request of this team."
    if not within:
        return "An admin approves: the request goes beyond the team's quota."
    return "Another lead of the team or an admin approves."


def standing_of(principal: Principal, revision: Revision) -> Standing:
    """What the principal may decide about this revision, and in words why not more."""
    deployment = revision.deployment
    if not principal.may("approve"):
        return Standing(False, False, why="This token may not approve.")
    if principal.user.pk in authors_of(revision):
        return Standing(False, False, why="You asked for this or edited it: somebody else has to decide.")
    if principal.is_admin:
        return Standing(True, True, Approval.Kind.ADMIN)
    if not Team.objects.led_by(principal).filter(pk=deployment.team_id).exists():
        return Standing(False, False, why="Only a lead of the team or an admin decides.")
    if revision.guarded:
        why = "The request uses guarded options: an admin has to approve it."
    elif deployment.team.policy == Team.Policy.ASK:
        why = "Every request of this team is approved by an admin."
    elif not cost_of(revision).within:
        why = "The request goes beyond the team's quota: an admin has to approve it."
    else:
        return Standing(True, True, Approval.Kind.LEAD)
    return Standing(False, True, Approval.Kind.LEAD, why)


def authors_of(revision: Revision) -> set[int]:
    """Users who wrote any part of what this revision would change: none of them may approve it."""
    revisions = Revision.objects.filter(deployment_id=revision.deployment_id, number__lte=revision.number)
    approved = revision.deployment.approved
    if approved is not None and approved.number < revision.number:
        revisions = revisions.filter(number__gt=approved.number)
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


def _record(
    deployment: Deployment, revision: Revision, *, kind: str, approve: bool, actor: User | None, comment: str
) -> Approval:
    approval = Approval.objects.create(
        revision=revision, digest=revision.digest, kind=kind, actor=actor, approved=approve, comment=comment
    )
    verdict = Revision.Verdict.APPROVED if approve else Revision.Verdict.REJECTED
    Revision.objects.filter(pk=revision.pk).update(verdict=verdict)
    revision.verdict = verdict
    who = "policy" if actor is None else actor.get_full_name() or actor.username
    events.record(
        kind="approved" if approve else "rejected",
        message=f"Revision {revision.number} {'approved' if approve else 'rejected'} by {who}"
        + (f": {comment}" if comment else ""),
        deployment=deployment,
        actor=actor,
        level="good" if approve else "warning",
        data={
            "revision": revision.number,
            "digest": revision.digest,
            "as": kind,
            **events.changed({"verdict": Revision.Verdict.PENDING}, {"verdict": verdict}),
        },
    )
    if approve:
        waiting.accept(deployment=deployment, revision=revision, actor=actor)
    else:
        Deployment.objects.filter(pk=deployment.pk).update(updated_at=Now())
        states.refresh(deployment.pk)
    return approval


def _locked(principal: Principal, revision: Revision) -> Deployment:
    rows = Deployment.objects.alive().visible_to(principal).locked().select_related("team", "applied")
    row = rows.filter(pk=revision.deployment_id).first()
    if row is None:
        raise MissingError("There is no such deployment.")
    return row
