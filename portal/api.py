"""The REST API of the site, below /api/. Charts of a deployment come from monitoring; `live` serves its logs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.routers import SimpleRouter

from deployments.api.accounts import AccountViewSet
from deployments.api.approvals import ApprovalViewSet, EmergencyViewSet, PolicyViewSet
from deployments.api.base import check_parameters, choices_of
from deployments.api.capacity import CapacityViewSet
from deployments.api.catalogue import CatalogViewSet
from deployments.api.credentials import CredentialViewSet
from deployments.api.deployments import DeploymentViewSet, PreflightViewSet
from deployments.api.endpoint_keys import EndpointKeyViewSet
from deployments.api.engines import ProfileViewSet
from deployments.api.events import EventViewSet
from deployments.api.notices import NoticeViewSet
from deployments.api.others import (
    GrantViewSet,
    ReservationViewSet,
    TokenViewSet,
    WhoViewSet,
)
from deployments.api.people import GroupRuleViewSet, InvitationViewSet, MemberViewSet, TeamViewSet
from deployments.api.quota_use import QuotaViewSet
from deployments.api.quotas import FlavorViewSet, QuotaRequestViewSet
from deployments.api.renderings import RenderingViewSet
from deployments.api.stopping import StoppingViewSet
from monitoring.api import DeploymentMetrics

router = SimpleRouter()
router.register("deployments", DeploymentViewSet, basename="api-deployment")
router.register("preflight", PreflightViewSet, basename="api-preflight")
router.register("teams", TeamViewSet, basename="api-team")
router.register("invitations", InvitationViewSet, basename="api-invitation")
router.register("accounts", AccountViewSet, basename="api-account")
router.register("group-rules", GroupRuleViewSet, basename="api-group-rule")
router.register("approvals", ApprovalViewSet, basename="api-approval")
router.register("emergencies", EmergencyViewSet, basename="api-emergency")
router.register("flavors", FlavorViewSet, basename="api-flavor")
router.register("capacity", CapacityViewSet, basename="api-capacity")
router.register("renderings", RenderingViewSet, basename="api-rendering")
router.register("quotas", QuotaViewSet, basename="api-quota")
router.register("quota-requests", QuotaRequestViewSet, basename="api-quota-request")
router.register("quota-grants", GrantViewSet, basename="api-grant")
router.register("reservations", ReservationViewSet, basename="api-reservation")
router.register("endpoint-keys", EndpointKeyViewSet, basename="api-endpoint-key")
router.register("credentials", CredentialViewSet, basename="api-credential")
router.register("catalog", CatalogViewSet, basename="api-catalog")
router.register("events", EventViewSet, basename="api-event")
router.register("notices", NoticeViewSet, basename="api-notice")
router.register("profiles", ProfileViewSet, basename="api-profile")
router.register("tokens", TokenViewSet, basename="api-token")
router.register("whoami", WhoViewSet, basename="api-whoami")


class ByFormat(DefaultContentNegotiation):
    """`?format=json` or `yaml`, which a browser can ask for; without it the Accept header counts."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """The renderer and its media type."""
        chosen: tuple[BaseRenderer, str] = super().select_renderer(
            request, renderers, request.query_params.get("format")
        )
        return chosen


class Schema(SpectacularAPIView):
    """The OpenAPI document of the one version that there is. For those who may use the API, unless settings open it."""

    content_negotiation_class = ByFormat

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Look at the parameters first: of a format that there is not the framework says that nothing is found."""
        check_parameters(request, ("format",))
        choices_of(request, "format", ("json", "yaml"))
        super().initial(request, *args, **kwargs)

    def get_permissions(self) -> list[BasePermission]:
        """Nobody has to sign in where SLIPWAY_PUBLIC_SCHEMA is set."""
        return [] if settings.SLIPWAY_PUBLIC_SCHEMA else [IsAuthenticated()]

    def _get_version_parameter(self, request: Request) -> None:
        # What somebody asks for would end in a header as it came.
        return None


version_1: list[URLPattern | URLResolver] = [
    path("schema/", Schema.as_view(), name="api-schema"),
    path("deployments/stop/", StoppingViewSet.as_view({"post": "create"}), name="api-deployments-stop"),
    path("deployments/<int:pk>/metrics/", DeploymentMetrics.as_view(), name="api-deployment-metrics"),
    path(
        "deployments/<int:pk>/emergency/",
        EmergencyViewSet.as_view({"post": "call"}),
        name="api-deployment-emergency",
    ),
    path(
        "teams/<slug:slug>/policy/",
        PolicyViewSet.as_view({"get": "retrieve", "patch": "partial_update"}),
        name="api-team-policy",
    ),
    path(
        "teams/<slug:slug>/members/",
        MemberViewSet.as_view({"get": "list", "post": "create"}),
        name="api-team-members",
    ),
    path(
        "teams/<slug:slug>/members/<int:pk>/",
        MemberViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        name="api-team-member",
    ),
    path("", include(router.urls)),
]
urlpatterns = [path("v1/", include(version_1))]
