"""Requests that wait for a word: the querysets behind the inbox and its count."""

from __future__ import annotations

from django.db.models import F, Q, QuerySet

from deployments.models import Principal, Revision, Team


def undecided(principal: Principal) -> QuerySet[Revision]:
    """Newest revisions that wait and about which this principal may have the word: never the own ones."""
    return pending_for(principal).exclude(author=principal.user)


def pending_for(principal: Principal) -> QuerySet[Revision]:
    """Newest revisions that wait in teams whose requests the principal decides, the own ones among them."""
    return Revision.objects.pending().filter(_decided_by(principal), deployment__latest=F("pk"))


def decided_for(principal: Principal) -> QuerySet[Revision]:
    """Revisions of those teams about which somebody, or policy, has decided."""
    verdicts = [Revision.Verdict.APPROVED, Revision.Verdict.REJECTED]
    return Revision.objects.filter(_decided_by(principal), verdict__in=verdicts)


def _decided_by(principal: Principal) -> Q:
    if not principal.may("approve"):
        return Q(pk__in=[])
    teams = Team.objects.visible_to(principal) if principal.is_admin else Team.objects.led_by(principal)
    return Q(deployment__team__in=teams)
