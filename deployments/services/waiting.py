"""The waiting line of an account: approved deployments that wait for GPUs, first approved first served.

One that needs more than the whole limit waits for a grant and lets others pass; one that only waits for GPUs to come
back is not overtaken.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from django.db import transaction
from django.db.models import F, Max
from django.db.models.functions import Greatest, Now

from deployments.models import Deployment, DeploymentQuerySet, QuotaAccount, Revision, Team, User, Wanted
from deployments.services import authority, events, holds, states
from deployments.services.errors import QuotaExceededError
from deployments.services.text import gpus_in_words
from deployments.services.transactions import in_transaction
from portal.lib.hints import RECONCILE, hint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where an approved deployment waits. `beyond` are GPUs by which the whole quota is too small for it."""

    flavor: str
    place: int
    of: int
    beyond: int

    @property
    def words(self) -> str:
        """The place, as it goes on after “approved”."""
        if self.beyond:
            return f"waits for quota: {gpus_in_words(self.beyond)} of {self.flavor} more than the team may hold"
        return f"number {self.place} of {self.of} in line for {self.flavor}"


def accept(*, deployment: Deployment, revision: Revision, actor: User | None) -> bool:
    """Make an approved revision the one that runs: reserve its worst case, or join the line. True when it runs.

    The caller holds the deployment's lock, in the transaction of the approval.
    """
    if deployment.wanted != Wanted.RUNNING:
        _make_current(deployment, revision)  # Nothing runs, so nothing is reserved before it is started.
        return True
    room = holds.room_for(deployment, revision)
    if someone_before(deployment, room, charged(room, deployment, revision)):
        wake_later(room.account.pk)
        _tell_waiting(deployment, "Others of the team wait before it.", actor)
        return False
    try:
        _take(room, deployment, revision, actor)
    except QuotaExceededError as error:
        # GPUs given back between the attempt and the commit woke nobody: look once more afterwards.
        wake_later(room.account.pk)
        _tell_waiting(deployment, error.message, actor)
        return False
    return True


def someone_before(deployment: Deployment, room: holds.Room, gpus: int) -> bool:
    """True when somebody whom the limit allows waits for GPUs of this account longer than the deployment.

    What takes none on top of what it holds (`gpus` in all) keeps nobody waiting, and waits for nobody.
    """
    if not room.awaited or gpus <= room.held or gpus > room.limit:
        return False  # Beyond the whole limit it waits for a grant, not for others.
    first = next((waiting.pk for waiting in line(room.account) if needs_of(waiting) <= room.limit), deployment.pk)
    return first != deployment.pk


def line(account: QuotaAccount) -> list[Deployment]:
    """Who waits for GPUs of this account, in order: since the approval, or since it was last started after that."""
    rows = _in_line(account).select_related("latest", "applied")
    since = Greatest(Max("latest__approvals__created_at"), "wanted_at")
    return list(rows.annotate(since=since, word=Max("latest__approvals__pk")).order_by("since", "word"))


def queued(team: Team, limits: Mapping[int, int], but: Deployment | None = None) -> Counter[int]:
    """How many deployments of a team wait for GPUs of each flavor, by its primary key: whoever asks now is after them.

    Those beyond the whole limit (`limits`, by flavor) are left out: they let others pass. One query.
    """
    rows = Deployment.objects.awaiting_quota().filter(team=team).select_related("latest", "applied")
    waiting = rows.exclude(pk=but.pk) if but is not None else rows
    flavors = ((each.latest.flavor_id, needs_of(each)) for each in waiting if each.latest is not None)
    return Counter(flavor for flavor, needs in flavors if flavor is not None and needs <= limits.get(flavor, 0))


def needs_of(deployment: Deployment) -> int:
    """GPUs of its newest revision's flavor at the worst moment of the change to it."""
    assert deployment.latest is not None
    return holds.charge(old=deployment.applied, new=deployment.latest)


def _in_line(account: QuotaAccount) -> DeploymentQuerySet:
    return Deployment.objects.awaiting_quota().filter(team_id=account.team_id, latest__flavor_id=account.flavor_id)


def place_of(deployment_pk: int) -> Place | None:
    """The place of a deployment in its line; None for one that does not wait for quota (then one query)."""
    rows = Deployment.objects.awaiting_quota().select_related("latest__flavor", "applied")
    row = rows.filter(pk=deployment_pk).first()
    if row is None or row.latest is None:
        return None
    account_of = {"team_id": row.team_id, "flavor_id": row.latest.flavor_id}
    account = QuotaAccount.objects.filter(**account_of).first() or QuotaAccount(**account_of)
    pks = [each.pk for each in line(account)]
    place = pks.index(row.pk) + 1 if row.pk in pks else len(pks) + 1
    beyond = max(0, needs_of(row) - holds.limit_of(account))
    return Place(row.latest.flavor.name, place, max(len(pks), 1), beyond)


def wake_later(account_pk: int) -> None:
    """Serve the account's line once the open transaction has committed."""
    transaction.on_commit(partial(wake, account_pk), robust=True)


def wake(account_pk: int) -> int:
    """Serve the account's line until the GPUs do not suffice for its head. Returns how many were admitted."""
    account = QuotaAccount.objects.get(pk=account_pk)
    admitted = 0
    for waiting in line(account):
        if needs_of(waiting) > holds.limit_of(account):
            continue
        went = _admit(account, waiting.pk)
        if went is False:
            break
        admitted += went is True
    return admitted


def wake_all() -> int:
    """Serve every line; the sweep calls this, for lines whose waker died. One query when nobody waits.

    A line that cannot be served does not hold up the others: it is logged, and served with a later sweep.
    """
    accounts = Deployment.objects.awaiting_quota().values_list("team_id", F("latest__flavor_id")).distinct()
    admitted = 0
    for team, flavor in accounts:
        if flavor is None:
            continue
        try:
            admitted += wake(holds.account_of(team_id=team, flavor_id=flavor).pk)
        except Exception:
            logger.exception("the line of team %s for flavor %s could not be served", team, flavor)
    return admitted


@in_transaction
def _admit(account: QuotaAccount, pk: int) -> bool | None:
    """Admit one deployment: False when the GPUs do not suffice, None when it stopped waiting in this line meanwhile."""
    deployment = states.computable(Deployment.objects.all(), "applied").hold(pk, "team")
    if deployment is None or not Deployment.objects.awaiting_quota().filter(pk=pk).exists():
        return None
    assert deployment.latest is not None
    if deployment.latest.flavor_id != account.flavor_id or authority.void_if_fallen(deployment):
        return None
    try:
        _take(holds.room_for(deployment, deployment.latest), deployment, deployment.latest, None, waited=True)
    except QuotaExceededError:
        return False
    return True


def _take(
    room: holds.Room, deployment: Deployment, revision: Revision, actor: User | None, *, waited: bool = False
) -> None:
    gpus = charged(room, deployment, revision)
    taken = holds.take(room, deployment=deployment, revision=revision, gpus=gpus, actor=actor)
    _make_current(deployment, revision)
    if taken is not None:
        events.record(
            kind="gpus_reserved",
            message=f"{gpus_in_words(taken.delta)} reserved for revision {revision.number}"
            + (": it waited for quota, and starts now" if waited else ""),
            deployment=deployment,
            actor=actor,
            data={
                "gpus": taken.delta,
                "account": taken.account_id,
                "revision": revision.number,
                **({"waited": True} if waited else {}),
            },
        )


def charged(room: holds.Room, deployment: Deployment, revision: Revision) -> int:
    """GPUs that a revision takes in all once it is the one that runs."""
    # What runs nowhere any more is not replaced: then the new revision is all that there will be.
    return holds.charge(old=deployment.applied if room.held else None, new=revision)


def _make_current(deployment: Deployment, revision: Revision) -> None:
    states.move(deployment, approved=revision, next_reconcile_at=Now(), failures=0)
    hint(RECONCILE, deployment.pk)


def _tell_waiting(deployment: Deployment, why: str, actor: User | None) -> None:
    events.record(
        kind="waits_for_quota",
        message=f"Approved, and waits for quota. {why}",
        deployment=deployment,
        actor=actor,
        level="warning",
    )
    states.move(deployment)
