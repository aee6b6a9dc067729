"""What teams may hold and hold: the quota of each, who has it since when, and what ends next."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import BooleanField, Case, F, Value, When
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import quota_schemas as shapes
from deployments.api import schemas
from deployments.api.base import PAGING, ApiViewSet, keyset, word_of
from deployments.api.deployments import PAGE, PROBLEMS
from deployments.models import Team, Wanted
from deployments.services import holds, quota_outlook

BY_TEAM = OpenApiParameter("team", str, description="Slug of a team; all that one may see without it")


class QuotaViewSet(ApiViewSet):
    """Quota and what is held of it."""

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {
        "list": ("team",),
        "holders": (*PAGING, "team", "flavor"),
        "ends": ("team",),
    }

    @extend_schema(
        operation_id="quotas_list", parameters=[BY_TEAM], responses={200: shapes.TeamQuotaAnswer(many=True), **PROBLEMS}
    )
    def list(self, request: Request) -> Response:
        """What the teams one may see hold and may hold of each flavor."""
        teams = _teams(self, request)
        usages, used = holds.usage_of(teams), quota_outlook.in_use(team.pk for team in teams)
        return Response(
            [
                {
                    "team": team.slug,
                    "flavor": usage.flavor.slug,
                    "limit": usage.limit,
                    "reserved": usage.reserved,
                    "in_use": min(usage.reserved, used.get((team.pk, usage.flavor.product), 0)),
                    "free": usage.free,
                    "over": usage.over,
                    "valid_until": usage.until,
                    "ending": usage.ending,
                }
                for team in teams
                for usage in usages[team.pk]
            ]
        )

    @extend_schema(
        operation_id="quotas_holders",
        parameters=[*PAGE, BY_TEAM, OpenApiParameter("flavor", str, description="Slug of a flavor")],
        responses={200: schemas.page_of(shapes.HoldAnswer), **PROBLEMS},
        filters=False,
    )
    @action(detail=False, methods=["get"])
    def holders(self, request: Request) -> Response:
        """Which deployments hold GPUs of these teams' quota, since when, and which are giving them back."""
        rows: Any = quota_outlook.holds_since(_teams(self, request))
        if flavor := word_of(request, "flavor"):
            rows = rows.filter(account__flavor__slug=flavor)
        columns = rows.values(
            "id",
            "gpus",
            "since",
            deployment_pk=F("deployment"),
            deployment_name=F("deployment__name"),
            team_slug=F("account__team__slug"),
            flavor_slug=F("account__flavor__slug"),
            next_grant_ends=F("ends"),
            coming_back=Case(
                When(deployment__wanted=Wanted.RUNNING, then=Value(False)),
                default=Value(True),
                output_field=BooleanField(),
            ),
        )
        return keyset(request, columns, _hold)

    @extend_schema(
        operation_id="quotas_ends",
        parameters=[BY_TEAM],
        responses={200: shapes.EndAnswer(many=True), **PROBLEMS},
        filters=False,
    )
    @action(detail=False, methods=["get"])
    def ends(self, request: Request) -> Response:
        """Which grants end within thirty days, the soonest first, at most 100, and what is held beyond them then."""
        teams = _teams(self, request)
        return Response(
            [
                {
                    "grant": one.grant.pk,
                    "team": one.grant.team.slug,
                    "flavor": one.grant.flavor.slug,
                    "gpus": one.grant.gpus,
                    "valid_until": one.grant.valid_until,
                    "left": one.left,
                    "over": one.over,
                    "at_expiry": one.grant.team.at_expiry,
                }
                for one in quota_outlook.endings_of(teams, holds.usage_of(teams))
            ]
        )


def _teams(view: ApiViewSet, request: Request) -> list[Team]:
    """Those that are asked for, of those that the caller may see; none where there is none of that name."""
    rows = Team.objects.active().visible_to(view.principal)
    slug = word_of(request, "team")
    return list(rows if slug is None else rows.filter(slug=slug))


def _hold(row: dict[str, Any]) -> dict[str, Any]:
    names = {
        "deployment_pk": "deployment",
        "deployment_name": "name",
        "team_slug": "team",
        "flavor_slug": "flavor",
    }
    return {names.get(key, key): value for key, value in row.items()}
