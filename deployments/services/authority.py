"""Whether those who approved may still decide: a word that was not carried out yet ends with the right to give it."""

from __future__ import annotations

from django.utils import timezone

from deployments.models import Approval, Deployment, Membership, Revision, Team, User, admins_now
from deployments.services import events, states


def stands(approval: Approval, team_id: int) -> bool:
    """True while whoever gave this word could give it still. What policy let through stands."""
    people = [pk for pk in (approval.actor_id, approval.second_id) if pk is not None]
    if approval.kind == Approval.Kind.POLICY:
        return True
    if approval.kind == Approval.Kind.LEAD:
        leads = Membership.objects.in_force().filter(team=team_id, role=Membership.Role.LEAD, user__is_active=True)
        return leads.filter(user__in=people).exists()
    admins = User.objects.filter(admins_now(), pk__in=people)
    return admins.count() == len(set(people))


def word_on(revision: Revision) -> Approval | None:
    """The newest approval of what this revision signs; None when nobody approved it."""
    return revision.approvals.filter(approved=True, digest=revision.digest).order_by("-pk").first()


def withdraw(user: User, team: Team | None = None) -> int:
    """Void this person's approvals of what still waits for GPUs, in one team or everywhere. Returns how many ended."""
    given = Approval.objects.filter(approved=True, actor=user) | Approval.objects.filter(approved=True, second=user)
    waiting = Deployment.objects.awaiting_quota().filter(latest__approvals__in=given)
    if team is not None:
        waiting = waiting.filter(team=team)
    ended = 0
    for pk in sorted(set(waiting.values_list("pk", flat=True))):
        row = Deployment.objects.hold(pk, "latest")
        if row is not None and Deployment.objects.awaiting_quota().filter(pk=pk).exists():
            ended += void_if_fallen(row)
    return ended


def void_if_fallen(deployment: Deployment) -> bool:
    """Let the newest revision wait for a decision again when its approval stands no more. The caller holds the lock."""
    revision = deployment.latest
    assert revision is not None
    word = word_on(revision)
    if word is None or stands(word, deployment.team_id):
        return False
    Revision.objects.filter(pk=revision.pk).update(verdict=Revision.Verdict.PENDING)
    revision.verdict = Revision.Verdict.PENDING
    Deployment.objects.filter(pk=deployment.pk).update(updated_at=timezone.now())
    who = word.actor.username if word.actor else ""
    events.record(
        kind="approval_void",
        message=f"Revision {revision.number} waits for a decision again: {who} may not decide about it any more",
        deployment=deployment,
        level="warning",
        data={
            "revision": revision.number,
            "approval": word.pk,
            **events.changed({"verdict": Revision.Verdict.APPROVED}, {"verdict": Revision.Verdict.PENDING}),
        },
    )
    states.refresh(deployment.pk)
    return True
