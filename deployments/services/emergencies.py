"""Breaking the glass: what only its authors could approve runs with the word of two admins, loudly and for a reason.

An admin who wrote a part of a request calls an emergency; a second admin signs it within the hour, or it lapses.
"""

from __future__ import annotations

from datetime import timedelta

from django.db.models import F, QuerySet
from django.db.models.functions import Now

from deployments.models import Approval, Deployment, Emergency, Principal, Revision, Team, User, admins_now
from deployments.services import approvals, events
from deployments.services.convergence import database_now
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError, StaleError
from deployments.services.text import line_of
from deployments.services.transactions import in_transaction

# So long a call waits for the second admin.
LASTS = timedelta(hours=1)


@in_transaction
def call(*, principal: Principal, revision: Revision, digest: str, reason: str) -> Emergency:
    """Ask a second admin to let the newest revision through although its author approves it.

    Raises StaleError for another digest, NotAllowedError for whom an ordinary decision is open or who is no admin,
    ConflictError while one is called already.
    """
    deployment, now = approvals.undecided(principal, revision, digest)
    caller = approvals.decided_anew(principal)
    if not may_call(caller, author=caller.user.pk in approvals.authors_of(now)):
        raise NotAllowedError("Only an admin who asked for this or edited it calls an emergency; others decide.")
    why = line_of(reason, field="reason", longest=500, required=False)
    if not why:
        words = "Say what the emergency is: it stays in the history."
        raise InvalidError(words, field="reason", pointer="/reason", code="required")
    if live().filter(revision=now).exists():
        raise ConflictError("An emergency is called for this revision already: another admin has to sign it.")
    made = Emergency.objects.create(
        revision=now, digest=digest, called_by=caller.user, reason=why, expires_at=database_now() + LASTS
    )
    events.record(
        kind="emergency_called",
        message=f"{_name(caller.user)} calls an emergency for revision {now.number}: {why}",
        deployment=deployment,
        actor=caller.user,
        level="bad",
        data={"revision": now.number, "digest": digest, "emergency": made.pk, "until": made.expires_at.isoformat()},
    )
    return made


@in_transaction
def sign(*, principal: Principal, emergency_id: int, digest: str) -> Approval:
    """Approve with the admin who called: what the digest names runs, or waits for quota.

    Raises StaleError when the call has lapsed or the request has changed since, NotAllowedError for the caller.
    """
    row = visible_to(principal).filter(pk=emergency_id).select_related("revision", "called_by").first()
    if row is None:
        raise MissingError("There is no such emergency.")
    deployment, revision = approvals.undecided(principal, row.revision, row.digest)
    signer = approvals.decided_anew(principal)
    if not (signer.is_admin and signer.may("approve")):
        raise NotAllowedError("Only an admin signs an emergency.")
    if digest != row.digest:
        raise StaleError("This is not what the emergency was called for. Look at the request again.")
    if signer.user.pk == row.called_by_id:
        raise NotAllowedError("You called it: another admin has to sign.")
    if not live().filter(pk=row.pk).exists():
        raise StaleError("This emergency has lapsed, or who called it is no admin any more.")
    approval = approvals.record(
        deployment,
        revision,
        kind=Approval.Kind.EMERGENCY,
        approve=True,
        actor=row.called_by,
        second=signer.user,
        comment=row.reason,
    )
    Emergency.objects.filter(pk=row.pk).update(approval=approval)
    return approval


@in_transaction
def withdraw(*, principal: Principal, emergency_id: int) -> Emergency:
    """Take back a call that nobody has signed: who called it alone; what it was for stays in the history.

    Raises StaleError when it was signed or has lapsed.
    """
    row = visible_to(principal).filter(pk=emergency_id).select_related("revision__deployment").first()
    if row is None:
        raise MissingError("There is no such emergency.")
    if row.called_by_id != principal.user.pk or not principal.may("approve"):
        raise NotAllowedError("Only who called the emergency withdraws it.")
    # As `sign` does: of a word and a withdrawal at once the later one hears of the other.
    Deployment.objects.hold(row.revision.deployment_id)
    if not live().filter(pk=row.pk).update(expires_at=database_now()):
        raise StaleError("This emergency is signed already, or has lapsed.")
    events.record(
        kind="emergency_withdrawn",
        message=f"{_name(principal.user)} withdraws the emergency for revision {row.revision.number}",
        deployment=row.revision.deployment,
        actor=principal.user,
        level="warning",
        data={"revision": row.revision.number, "emergency": row.pk},
    )
    return row


def may_call(principal: Principal, *, author: bool) -> bool:
    """True for an admin who wrote a part of a request, and so cannot decide about it."""
    return author and principal.is_admin and principal.may("approve")


def live() -> QuerySet[Emergency]:
    """Emergencies that can still be signed: neither signed nor lapsed, their revision waits, their caller rules."""
    return Emergency.objects.filter(
        approval=None,
        expires_at__gt=Now(),
        revision__verdict=Revision.Verdict.PENDING,
        revision__deployment__latest=F("revision"),
        called_by__in=User.objects.filter(admins_now()),
    )


def visible_to(principal: Principal) -> QuerySet[Emergency]:
    """Emergencies of teams that the principal rules as an admin."""
    return Emergency.objects.filter(revision__deployment__team__in=Team.objects.governed_by(principal))


def _name(user: User) -> str:
    return user.get_full_name() or user.username
