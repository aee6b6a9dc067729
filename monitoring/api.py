"""Figures of one deployment over the REST API."""

from __future__ import annotations

from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deployments.api.base import check_parameters, choices_of
from deployments.models import Deployment
from deployments.services.principals import principal_of

from . import pages
from .panels import BY_ID, PANELS, Scope
from .prometheus import prometheus
from .readings import read_health, read_panel


class DeploymentMetrics(APIView):
    """What the charts of a deployment show, as numbers."""

    @extend_schema(
        parameters=[
            OpenApiParameter("range", OpenApiTypes.STR, enum=list(pages.RANGES)),
            OpenApiParameter("panel", OpenApiTypes.STR, enum=list(BY_ID), many=True),
        ],
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request, pk: int) -> Response:
        """Every panel, or those that `panel` names, over `range`: its series, or why there are none."""
        check_parameters(request, ("range", "panel"), many=("panel",))
        named = choices_of(request, "panel", BY_ID)
        chosen = choices_of(request, "range", pages.RANGES)
        visible = Deployment.objects.visible_to(principal_of(request)).select_related("team")
        deployment = get_object_or_404(visible, pk=pk)
        wanted = [panel for panel in PANELS if not named or panel.id in named]
        over = pages.span(chosen[0] if chosen else pages.DEFAULT_RANGE)
        scope = Scope.deployment(deployment.pk, deployment.team.namespace)
        state = read_health(prometheus(), scope)
        readings = [read_panel(prometheus(), panel, scope, over, state) for panel in wanted]
        return Response(
            {
                "start": over.start,
                "end": over.end,
                "step": over.step,
                "panels": [
                    {
                        "id": reading.panel.id,
                        "title": reading.panel.title,
                        "unit": reading.panel.unit,
                        "display": reading.display.value,
                        "message": reading.sentence,
                        "series": [{"name": line.name, "points": line.points} for line in reading.series],
                    }
                    for reading in readings
                ],
            }
        )
