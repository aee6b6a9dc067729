"""What waits for a word, deployments and quota in one line, with all that somebody needs to know to decide.

A page of the line costs the same number of queries whatever its length: what decides who may decide is read as SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.db.models import Case as SqlCase
from django.db.models import Exists, F, IntegerField, Model, OuterRef, Q, QuerySet, Subquery, Sum, When
from django.db.models.functions import Coalesce, Greatest

from deployments.models import (
    Approval,
    Emergency,
    Principal,
    QuotaAccount,
    QuotaGrant,
    QuotaHold,
    QuotaRequest,
    Revision,
    Team,
    User,
    admins_now,
)
from deployments.services import approvals, emergencies, impartial
from deployments.services.approvals import Cost, Standing
from deployments.services.asks import Ask, reasons

DEPLOYMENT, QUOTA = "deployment", "quota"
KINDS = (DEPLOYMENT, QUOTA)
HOURS_A_MONTH = 730
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T", bound=Model)


@dataclass(frozen=True)
class Case:
    """A revision that waits: what it takes, why somebody is asked, and what the principal may say about it."""

    revision: Revision
    cost: Cost
    asks: tuple[Ask, ...]
    standing: Standing
    author: bool
    may_call: bool
    emergency: Emergency | None = None
    kind: str = DEPLOYMENT

    @property
    def month(self) -> float:
        """What its most replicas cost in a month, in the currency of the flavors' prices."""
        return round(float(self.revision.flavor.price_per_hour) * self.revision.gpus * HOURS_A_MONTH, 2)

    @property
    def leaves(self) -> int:
        """GPUs that approving it leaves of the team's quota; negative where the quota does not cover it."""
        return self.cost.free - self.cost.more


@dataclass(frozen=True)
class QuotaCase:
    """A request for quota that waits; `limit` and `reserved` are the team's GPUs of that flavor now."""

    request: QuotaRequest
    limit: int
    reserved: int
    standing: Standing
    author: bool
    kind: str = QUOTA

    @property
    def month(self) -> float:
        """What its GPUs cost in a month, in the currency of the flavors' prices."""
        return round(float(self.request.flavor.price_per_hour) * self.request.gpus * HOURS_A_MONTH, 2)


@dataclass(frozen=True)
class Line:
    """One page of what waits, the oldest first; `after` is where the next one begins, empty on the last."""

    cases: list[Case | QuotaCase]
    after: str = ""


def waiting(
    principal: Principal, *, kinds: Sequence[str] = KINDS, team: str = "", after: str = "", size: int = 30
) -> Line:
    """What waits in the teams whose requests the principal decides, also what they may not decide (3 queries)."""
    rows: list[Any] = []
    if DEPLOYMENT in kinds:
        pending = known(principal, pending_for(principal))
        rows += _beyond(_of_team(pending, "deployment__team__slug", team), "d", after)[: size + 1]
    if QUOTA in kinds:
        asked = _with_share(quota_pending_for(principal).select_related("team", "flavor", "author"))
        rows += _beyond(_of_team(asked, "team__slug", team), "q", after)[: size + 1]
    rows.sort(key=_place)
    following = _cursor(rows[size - 1]) if len(rows) > size else ""
    return Line(list(cases_of(principal, rows[:size])), following)


def cases_of(principal: Principal, rows: Iterable[Revision | QuotaRequest]) -> Iterator[Case | QuotaCase]:
    """Rows of `known` and `quota_known` as cases, in their order (one query, for open emergencies)."""
    listed = list(rows)
    pks = [row.pk for row in listed if isinstance(row, Revision)]
    called = {row.revision_id: row for row in emergencies.live().filter(revision__in=pks).select_related("called_by")}
    for row in listed:
        if isinstance(row, Revision):
            yield _case(principal, row, called.get(row.pk))
        else:
            yield _quota_case(principal, row)


def known(principal: Principal, rows: QuerySet[Revision]) -> QuerySet[Revision]:
    """Revisions with all that a case is made of, except for emergencies."""
    led = Team.objects.led_by(principal).filter(pk=OuterRef("deployment__team"))
    return (
        rows.select_related("deployment__team", "deployment__applied", "deployment__approved", "flavor", "author")
        .defer("objects_json", "deployment__applied__objects_json", "deployment__approved__objects_json")
        .annotate(
            case_charge=_charge(),
            case_held=_held(),
            case_limit=_limit("deployment__team"),
            case_reserved=_reserved("deployment__team"),
            case_own=Exists(_written_by(principal)),
            case_guest=Exists(_written_by_hosts(principal)),
            case_led=Exists(led),
            case_others=Exists(_other_admins(principal)),
        )
    )


def quota_known(principal: Principal, pk: int) -> QuotaRequest | None:
    """One request for quota that waits, with its team's share; None where there is none to see."""
    rows = quota_pending_for(principal).select_related("team", "flavor", "author")
    return _with_share(rows).filter(pk=pk).first()


def undecided(principal: Principal) -> QuerySet[Revision]:
    """Newest revisions that wait and that this principal may approve: what `approvals.standing_of` says, as SQL."""
    rows = pending_for(principal).exclude(Exists(_written_by(principal)))
    if principal.is_admin:
        return rows
    # Without whom those hosts were invited by: a count takes no further queries.
    hosts = impartial.guests_hosts(principal.user.pk)[:1]
    invited = _parts(OuterRef("deployment"), OuterRef("number")).filter(author__in=hosts)
    return (
        rows.exclude(Exists(invited))
        .exclude(deployment__team__policy=Team.Policy.ASK)
        .exclude(deployment__team__ask_above__lt=F("gpus"))
        .filter(guarded=[])
        .alias(charge=_charge(), held=_held(), left=_left())
        .filter(Q(charge__lte=F("held")) | Q(charge__lte=F("held") + F("left")))
    )


def pending_for(principal: Principal) -> QuerySet[Revision]:
    """Newest revisions that wait in teams whose requests the principal decides, the own ones among them."""
    return Revision.objects.pending().filter(deployment__team__in=decided_teams(principal), deployment__latest=F("pk"))


def quota_pending_for(principal: Principal) -> QuerySet[QuotaRequest]:
    """Requests for quota that wait in those teams."""
    return QuotaRequest.objects.pending().filter(team__in=decided_teams(principal))


def decided_teams(principal: Principal) -> QuerySet[Team]:
    """Teams whose requests the principal decides: an admin those that their token reaches, others those they lead."""
    if not principal.may("approve"):
        return Team.objects.none()
    return Team.objects.governed_by(principal) if principal.is_admin else Team.objects.led_by(principal)


def quota_undecided(principal: Principal) -> QuerySet[QuotaRequest]:
    """Requests for quota that this principal may decide."""
    return QuotaRequest.objects.pending().decidable_by(principal)


def _case(principal: Principal, row: Any, emergency: Emergency | None) -> Case:
    free = max(0, row.case_limit - row.case_reserved)
    cost = Cost(charge=row.case_charge, held=row.case_held, limit=row.case_limit, free=free)
    why = reasons(row.deployment.team, gpus=row.gpus, guarded=row.guarded, within=cost.within)
    if not why and row.author.is_platform_admin:
        why = (impartial.ADMIN_ASKS,)
    standing = approvals.standing(principal, asks=why, author=row.case_own, leads=row.case_led, guest=row.case_guest)
    return Case(
        revision=row,
        cost=cost,
        asks=why,
        standing=standing,
        author=row.case_own,
        # Where another admin may simply approve, there is no glass to break.
        may_call=emergency is None and not row.case_others and emergencies.may_call(principal, author=row.case_own),
        emergency=emergency,
    )


def _quota_case(principal: Principal, row: Any) -> QuotaCase:
    own = row.author_id == principal.user.pk
    why = "An admin decides about quota."
    if principal.is_admin:
        why = "You asked for this: another admin has to decide." if own else ""
    may = not why and principal.may("approve")
    return QuotaCase(
        request=row,
        limit=row.case_limit,
        reserved=row.case_reserved,
        standing=Standing(may, may, Approval.Kind.ADMIN if may else "", why),
        author=own,
    )


def _with_share(rows: QuerySet[QuotaRequest]) -> QuerySet[QuotaRequest]:
    return rows.annotate(case_limit=_limit("team"), case_reserved=_reserved("team"))


def _of_team(rows: QuerySet[T], column: str, slug: str) -> QuerySet[T]:
    return rows.filter(**{column: slug}) if slug else rows


def _place(row: Revision | QuotaRequest) -> tuple[datetime, str, int]:
    return row.created_at, "d" if isinstance(row, Revision) else "q", row.pk


def _cursor(row: Revision | QuotaRequest) -> str:
    at, kind, pk = _place(row)
    return f"{(at - EPOCH) // timedelta(microseconds=1)}-{kind}-{pk}"


def _beyond(rows: QuerySet[T], kind: str, cursor: str) -> QuerySet[T]:
    """The rows of this kind behind the cursor, the oldest first; all of them for a cursor that nobody was given."""
    ordered = rows.order_by("created_at", "pk")
    place = _read(cursor)
    if place is None:
        return ordered
    at, of, pk = place
    if kind == of:
        return ordered.filter(Q(created_at__gt=at) | Q(created_at=at, pk__gt=pk))
    return ordered.filter(created_at__gte=at) if kind > of else ordered.filter(created_at__gt=at)


def _read(cursor: str) -> tuple[datetime, str, int] | None:
    micros, _, rest = cursor.partition("-")
    kind, _, pk = rest.partition("-")
    if not (micros.isascii() and micros.isdecimal() and pk.isascii() and pk.isdecimal() and kind in {"d", "q"}):
        return None
    if len(micros) > 17 or len(pk) > 18:
        return None
    return EPOCH + timedelta(microseconds=int(micros)), kind, int(pk)


def _written_by(principal: Principal) -> QuerySet[Revision]:
    """Revisions by the principal that are part of what the outer one would change."""
    return _parts(OuterRef("deployment"), OuterRef("number")).filter(author=principal.user)


def _written_by_hosts(principal: Principal) -> QuerySet[Revision]:
    """Revisions of the outer change by somebody to whose invitation a lead owes the account (one query)."""
    hosts = set() if principal.is_admin else impartial.hosts_of(principal.user)
    return _parts(OuterRef("deployment"), OuterRef("number")).filter(author__in=hosts)


def _other_admins(principal: Principal) -> QuerySet[User]:
    """Other admins who wrote no part of the outer revision, and so may approve it as it is."""
    wrote = _parts(OuterRef(OuterRef("deployment")), OuterRef(OuterRef("number"))).filter(author=OuterRef("pk"))
    return User.objects.filter(~Exists(wrote), admins_now()).exclude(pk=principal.user.pk)


def _parts(deployment: OuterRef, number: OuterRef) -> QuerySet[Revision]:
    """Revisions whose changes a revision of that deployment and number would bring about."""
    unsigned = Q(deployment__approved=None) | Q(number__gt=F("deployment__approved__number"))
    older = Q(deployment__approved__number__gte=number)
    return Revision.objects.filter(unsigned | older, deployment=deployment, number__lte=number)


def _charge() -> SqlCase:
    """As `holds.charge`."""
    gpus, surge = Greatest(F("gpus"), F("deployment__applied__gpus")), F("deployment__applied__surge")
    rolls = gpus + Greatest(F("surge"), surge)
    return SqlCase(
        When(deployment__applied__flavor=F("flavor"), then=rolls),
        default=F("gpus") + F("surge"),
        output_field=IntegerField(),
    )


def _held() -> Coalesce:
    holds = QuotaHold.objects.filter(deployment=OuterRef("deployment"), account__flavor=OuterRef("flavor"))
    return Coalesce(Subquery(holds.values("deployment").annotate(n=Sum("gpus")).values("n")), 0)


def _left() -> Greatest:
    """As `Usage.free`."""
    return Greatest(_limit("deployment__team") - _reserved("deployment__team"), 0)


def _limit(team: str) -> Coalesce:
    grants = QuotaGrant.objects.live().filter(team=OuterRef(team), flavor=OuterRef("flavor"))
    return Coalesce(Subquery(grants.order_by().values("team").annotate(n=Sum("gpus")).values("n")), 0)


def _reserved(team: str) -> Coalesce:
    accounts = QuotaAccount.objects.filter(team=OuterRef(team), flavor=OuterRef("flavor"))
    return Coalesce(Subquery(accounts.values("reserved")[:1]), 0)
