"""Requests that wait for a word: the querysets behind the inbox and its count."""

from __future__ import annotations

from django.db.models import Case, Exists, F, IntegerField, OuterRef, Q, QuerySet, Subquery, Sum, When
from django.db.models.functions import Coalesce, Greatest

from deployments.models import Principal, QuotaAccount, QuotaGrant, QuotaHold, Revision, Team
from deployments.services import approvals, asks


def undecided(principal: Principal) -> QuerySet[Revision]:
    """Newest revisions that wait and that this principal may approve: what `approvals.standing_of` says, as SQL."""
    rows = pending_for(principal).exclude(Exists(_written_by(principal)))
    if principal.is_admin:
        return rows
    return (
        rows.exclude(deployment__team__policy=Team.Policy.ASK)
        .filter(guarded=[])
        .exclude(deployment__team__ask_above__lt=F("gpus"))
        .alias(charge=_charge(), held=_held(), left=_left())
        .filter(Q(charge__lte=F("held")) | Q(charge__lte=F("held") + F("left")))
    )


def pending_for(principal: Principal) -> QuerySet[Revision]:
    """Newest revisions that wait in teams whose requests the principal decides, the own ones among them."""
    return Revision.objects.pending().filter(_decided_by(principal), deployment__latest=F("pk"))


def decided_for(principal: Principal) -> QuerySet[Revision]:
    """Revisions of those teams about which somebody, or policy, has decided."""
    verdicts = [Revision.Verdict.APPROVED, Revision.Verdict.REJECTED]
    return Revision.objects.filter(_decided_by(principal), verdict__in=verdicts)


def decider_of(revision: Revision | None) -> str:
    """Who may approve a revision, in words; empty where none waits."""
    if revision is None or revision.verdict != Revision.Verdict.PENDING:
        return ""
    why = approvals.asks_of(revision)
    # Without a reason policy would approve it now: it did not when it was asked for.
    return asks.in_words(why) if why else "A lead of the team or an admin approves."


def _decided_by(principal: Principal) -> Q:
    if not principal.may("approve"):
        return Q(pk__in=[])
    teams = Team.objects.visible_to(principal) if principal.is_admin else Team.objects.led_by(principal)
    return Q(deployment__team__in=teams)


def _written_by(principal: Principal) -> QuerySet[Revision]:
    """Revisions by the principal that are part of what the outer one would change."""
    unsigned = Q(deployment__approved=None) | Q(number__gt=F("deployment__approved__number"))
    older = Q(deployment__approved__number__gte=OuterRef("number"))
    return Revision.objects.filter(
        unsigned | older, deployment=OuterRef("deployment"), author=principal.user, number__lte=OuterRef("number")
    )


def _charge() -> Case:
    """As `holds.charge`."""
    gpus, surge = Greatest(F("gpus"), F("deployment__applied__gpus")), F("deployment__applied__surge")
    rolls = gpus + Greatest(F("surge"), surge)
    return Case(
        When(deployment__applied__flavor=F("flavor"), then=rolls),
        default=F("gpus") + F("surge"),
        output_field=IntegerField(),
    )


def _held() -> Coalesce:
    holds = QuotaHold.objects.filter(deployment=OuterRef("deployment"), account__flavor=OuterRef("flavor"))
    return Coalesce(Subquery(holds.values("deployment").annotate(n=Sum("gpus")).values("n")), 0)


def _left() -> Greatest:
    """As `Usage.free`."""
    grants = QuotaGrant.objects.live().filter(team=OuterRef("deployment__team"), flavor=OuterRef("flavor"))
    accounts = QuotaAccount.objects.filter(team=OuterRef("deployment__team"), flavor=OuterRef("flavor"))
    limit = Coalesce(Subquery(grants.order_by().values("team").annotate(n=Sum("gpus")).values("n")), 0)
    return Greatest(limit - Coalesce(Subquery(accounts.values("reserved")[:1]), 0), 0)
