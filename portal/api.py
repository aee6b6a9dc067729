"""The REST API of the site, below /api/. Charts of a deployment come from monitoring; `live` serves its logs."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request
from rest_framework.routers import SimpleRouter

from deployments.api.deployments import DeploymentViewSet, PreflightViewSet
from deployments.api.others import (
    CatalogViewSet,
    EventViewSet,
    FlavorViewSet,
    GrantViewSet,
    ProfileViewSet,
    ReservationViewSet,
    TeamViewSet,
    TokenViewSet,
    WhoViewSet,
)
from monitoring.api import DeploymentMetrics

router = SimpleRouter()
router.register("deployments", DeploymentViewSet, basename="api-deployment")
router.register("preflight", PreflightViewSet, basename="api-preflight")
router.register("teams", TeamViewSet, basename="api-team")
router.register("flavors", FlavorViewSet, basename="api-flavor")
router.register("quota-grants", GrantViewSet, basename="api-grant")
router.register("reservations", ReservationViewSet, basename="api-reservation")
router.register("catalog", CatalogViewSet, basename="api-catalog")
router.register("events", EventViewSet, basename="api-event")
router.register("profiles", ProfileViewSet, basename="api-profile")
router.register("tokens", TokenViewSet, basename="api-token")
router.register("whoami", WhoViewSet, basename="api-whoami")


class Schema(SpectacularAPIView):
    """The one version that there is; what somebody asks for would end in a header as it came."""

    def _get_version_parameter(self, request: Request) -> None:
        return None


version_1: list[URLPattern | URLResolver] = [
    path("schema/", Schema.as_view(), name="api-schema"),
    path("deployments/<int:pk>/metrics/", DeploymentMetrics.as_view(), name="api-deployment-metrics"),
    path("", include(router.urls)),
]
urlpatterns = [path("v1/", include(version_1))]
