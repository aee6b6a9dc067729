"""Kinds of GPU, and requests for quota."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import F
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import quota_schemas as shapes
from deployments.api import schemas
from deployments.api.base import PAGING, ApiViewSet, choices_of, keyset, word_of
from deployments.api.bodies import said_as_sent, validated
from deployments.api.deployments import PAGE, PROBLEMS, WRITES
from deployments.models import Flavor, QuotaRequest, Team
from deployments.services import flavor_proposals, flavors, quota_requests
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError
from deployments.services.grants import KEPT


class FlavorViewSet(ApiViewSet):
    """Kinds of GPU."""

    lookup_value_regex = "[a-z0-9][a-z0-9-]{0,39}"
    scopes: ClassVar[dict[str, str]] = {"create": "approve", "partial_update": "approve", "proposals": "approve"}

    @extend_schema(operation_id="flavors_list", responses={200: shapes.FlavorAnswer(many=True), **PROBLEMS})
    def list(self, request: Request) -> Response:
        """The flavors on offer, what the cluster has of each, and what was promised of it."""
        rows = list(Flavor.objects.filter(active=True))
        seen = flavors.capacities_of(rows)
        return Response([_flavor(seen[row.pk]) for row in rows])

    @extend_schema(responses={200: shapes.FlavorAnswer, **PROBLEMS})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One flavor; to admins also one that is not offered any more."""
        rows = Flavor.objects.all() if flavors.may_edit(self.principal) else Flavor.objects.filter(active=True)
        row = rows.filter(slug=pk).first()
        if row is None:
            raise MissingError("There is no such flavor.")
        return Response(_flavor(flavors.capacity_of(row)))

    @extend_schema(request=shapes.FlavorBody, responses={201: shapes.FlavorAnswer, **WRITES})
    def create(self, request: Request) -> Response:
        """Offer a kind of GPU (admins)."""
        row = flavors.create(principal=self.principal, **validated(shapes.FlavorBody, request))
        return Response(_flavor(flavors.capacity_of(row)), status=201)

    @extend_schema(request=shapes.FlavorChange, responses={200: shapes.FlavorAnswer, **WRITES})
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change a flavor (admins). Revisions keep what they were resolved to; later ones follow."""
        row = flavors.change(principal=self.principal, slug=pk, **validated(shapes.FlavorChange, request))
        return Response(_flavor(flavors.capacity_of(row)))

    @extend_schema(
        operation_id="flavors_proposals", responses={200: shapes.ProposalAnswer(many=True), **PROBLEMS}, filters=False
    )
    @action(detail=False, methods=["get"])
    def proposals(self, request: Request) -> Response:
        """Kinds of GPU that nodes report and no flavor covers (admins)."""
        if not flavors.may_edit(self.principal):
            raise NotAllowedError("Only an admin says which GPUs are offered.")
        found = flavor_proposals.proposals()
        return Response([{"flavor": item.values, "nodes": item.nodes, "gpus": item.gpus} for item in found])


class QuotaRequestViewSet(ApiViewSet):
    """Quota that leads ask for."""

    scopes: ClassVar[dict[str, str]] = {"decide": "approve"}
    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": (*PAGING, "team", "flavor", "state")}

    @extend_schema(
        operation_id="quota_requests_list",
        parameters=[
            *PAGE,
            OpenApiParameter("team", str, description="Slug of a team"),
            OpenApiParameter("flavor", str, description="Slug of a flavor"),
            OpenApiParameter("state", str, enum=QuotaRequest.State.values),
        ],
        responses={200: schemas.page_of(shapes.QuotaRequestAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """Requests of the teams one may see, newest first."""
        rows = QuotaRequest.objects.visible_to(self.principal)
        for parameter, column in (("team", "team__slug"), ("flavor", "flavor__slug")):
            value = word_of(request, parameter)
            if value is not None:
                rows = rows.filter(**{column: value})
        if states := choices_of(request, "state", QuotaRequest.State.values):
            rows = rows.filter(state__in=states)
        return keyset(request, _columns(rows), _request)

    @extend_schema(responses={200: shapes.QuotaRequestAnswer, **PROBLEMS})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One request."""
        row = _columns(QuotaRequest.objects.visible_to(self.principal).filter(pk=int(pk))).first()
        if row is None:
            raise MissingError("There is no such request.")
        return Response(_request(row))

    @extend_schema(
        operation_id="quota_requests_context", responses={200: shapes.ContextAnswer, **PROBLEMS, 409: schemas.Problem}
    )
    @action(detail=True, methods=["get"])
    def context(self, request: Request, pk: str) -> Response:
        """What an admin weighs: capacity, who has how much of it, what comes back next, what would be promised then."""
        rows = QuotaRequest.objects.visible_to(self.principal).select_related("flavor", "team")
        row = rows.filter(pk=int(pk)).first()
        if row is None:
            raise MissingError("There is no such request.")
        if row.state != QuotaRequest.State.PENDING:
            raise ConflictError("This request is decided already.")
        return Response(_context(quota_requests.contexts_of([row], named=self.principal.sees_all)[row.pk]))

    @extend_schema(request=shapes.QuotaRequestBody, responses={201: shapes.QuotaRequestAnswer, **WRITES})
    def create(self, request: Request) -> Response:
        """Ask for quota (leads)."""
        body = validated(shapes.QuotaRequestBody, request)
        team = Team.objects.active().filter(slug=body["team"]).first()
        if team is None or not Team.objects.writable_by(self.principal).filter(pk=team.pk).exists():
            words = "You do not belong to a team of this name."
            raise InvalidError(words, field="team", pointer="/team", code="team_unknown")
        with said_as_sent(shapes.QuotaRequestBody, request):
            made = quota_requests.ask(
                principal=self.principal,
                team=team,
                flavor=_flavor_called(body["flavor"]),
                gpus=body["gpus"],
                why=body["why"],
                valid_from=body.get("valid_from"),
                valid_until=body.get("valid_until"),
            )
        return Response(_shown(made.pk), status=201)

    @extend_schema(request=shapes.QuotaDecisionBody, responses={200: shapes.QuotaRequestAnswer, **WRITES})
    @action(detail=True, methods=["post"])
    def decide(self, request: Request, pk: str) -> Response:
        """Grant it whole, in part or otherwise, or deny it (admins, never the author)."""
        body = validated(shapes.QuotaDecisionBody, request)
        with said_as_sent(shapes.QuotaDecisionBody, request):
            quota_requests.decide(
                principal=self.principal,
                request_id=int(pk),
                grant=body["grant"],
                comment=body["comment"],
                flavor=_flavor_called(body["flavor"]) if "flavor" in body else None,
                gpus=body.get("gpus"),
                valid_from=body.get("valid_from", KEPT),
                valid_until=body.get("valid_until", KEPT),
                beyond=body.get("beyond", False),
            )
        return Response(_shown(int(pk)))

    @extend_schema(request=None, responses={200: shapes.QuotaRequestAnswer, **WRITES})
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, pk: str) -> Response:
        """Take it back before anybody decides (its author, or a lead of the team)."""
        quota_requests.withdraw(principal=self.principal, request_id=int(pk))
        return Response(_shown(int(pk)))


def _flavor(seen: flavors.Capacity) -> dict[str, Any]:
    return {
        **flavors.as_json(seen.flavor),
        "total": seen.total,
        "in_use": seen.in_use,
        "free": seen.free,
        "largest_free_block": seen.block,
        "granted": seen.granted,
        "reserved": seen.reserved,
    }


def _context(found: quota_requests.Context) -> dict[str, Any]:
    return {
        "capacity": _flavor(found.capacity),
        "asked": found.asked,
        "granted_after": found.granted_after,
        "beyond": found.beyond,
        "shares": [
            {"team": one.team.slug, "granted": one.granted, "reserved": one.reserved, "valid_until": one.until}
            for one in found.shares
        ],
        "ends": [
            {"grant": row.pk, "team": row.team.slug, "gpus": row.gpus, "valid_until": row.valid_until}
            for row in found.ends
        ],
        "releases": [
            {
                "deployment": hold.deployment_id,
                "name": hold.deployment.name,
                "team": hold.deployment.team.slug,
                "gpus": hold.gpus,
                "since": hold.deployment.wanted_at,
            }
            for hold in found.releases
        ],
    }


def _flavor_called(slug: str) -> Flavor:
    row = Flavor.objects.filter(slug=slug, active=True).first()
    if row is None:
        raise InvalidError("There is no such flavor.", field="flavor", pointer="/flavor", code="flavor_unknown")
    return row


def _columns(rows: Any) -> Any:
    return rows.values(
        "id",
        "gpus",
        "valid_from",
        "valid_until",
        "why",
        "created_at",
        "state",
        "decided_at",
        "comment",
        team_slug=F("team__slug"),
        flavor_slug=F("flavor__slug"),
        author_name=F("author__username"),
        decider=F("decided_by__username"),
        grant=F("granted"),
    )


def _request(row: dict[str, Any]) -> dict[str, Any]:
    names = {
        "team_slug": "team",
        "flavor_slug": "flavor",
        "author_name": "author",
        "decider": "decided_by",
        "grant": "granted",
    }
    return {names.get(key, key): value for key, value in row.items()}


def _shown(pk: int) -> dict[str, Any]:
    # Past the queryset of the caller: who wrote it may see what became of it, even with a token that only writes.
    return _request(_columns(QuotaRequest.objects.filter(pk=pk)).get())
