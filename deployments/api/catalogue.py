"""The catalogue: models that the platform recommends, with settings per kind of GPU."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import catalogue_schemas as shapes
from deployments.api.base import YES_OR_NO, ApiViewSet, choices_of, word_of
from deployments.api.bodies import validated
from deployments.api.deployments import PROBLEMS, WRITES
from deployments.models import CatalogEntry, Membership, Principal, Team
from deployments.services import catalogue, catalogue_edits
from deployments.services.errors import MissingError


class CatalogViewSet(ApiViewSet):
    """Models that the platform recommends."""

    lookup_value_regex = "[a-z0-9][a-z0-9._-]{0,59}"
    scopes: ClassVar[dict[str, str]] = {"create": "approve", "partial_update": "approve", "destroy": "approve"}
    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": ("capability", "fits_quota", "team")}

    @extend_schema(
        operation_id="catalog_list",
        parameters=[
            OpenApiParameter("capability", str, enum=list(catalogue.CAPABILITIES)),
            OpenApiParameter("fits_quota", str, enum=YES_OR_NO, description="true: those that the quota takes now"),
            OpenApiParameter("team", str, description="Slug of an own team, whose quota counts; all of them otherwise"),
        ],
        responses={200: shapes.CatalogAnswer(many=True), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """The catalogue in its order: what is pinned first. Admins see hidden models too."""
        can = choices_of(request, "capability", tuple(catalogue.CAPABILITIES))
        fits = choices_of(request, "fits_quota", YES_OR_NO)
        team = word_of(request, "team")
        rows = CatalogEntry.objects.visible_to(self.principal)
        found = catalogue.offers(rows, _teams(self.principal, team))
        return Response(
            [
                _shown(offer)
                for offer in found
                if (not can or can[0] in offer.entry.capabilities) and (fits != ["true"] or offer.covered)
            ]
        )

    @extend_schema(responses={200: shapes.CatalogAnswer, **PROBLEMS})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One model of the catalogue."""
        row = CatalogEntry.objects.visible_to(self.principal).filter(slug=pk).first()
        if row is None:
            raise MissingError("There is no such model in the catalogue.")
        return Response(self._one(row))

    @extend_schema(request=shapes.CatalogBody, responses={201: shapes.CatalogAnswer, **WRITES})
    def create(self, request: Request) -> Response:
        """Recommend a model of the hub (admins): it is looked up, pinned, and given settings that fit."""
        row = catalogue.add(principal=self.principal, **validated(shapes.CatalogBody, request))
        return Response(self._one(row), status=201)

    @extend_schema(request=shapes.CatalogChange, responses={200: shapes.CatalogAnswer, **WRITES})
    def partial_update(self, request: Request, pk: str) -> Response:
        """Hide a model or show it again, pin it to the top or let it go (admins); `409` for other fields of what
        comes with Slipway. With `revision` it is looked up and given settings again."""
        body = validated(shapes.CatalogChange, request)
        told = {name: body.pop(name) for name in shapes.EDITS if name in body}
        if told:
            row = catalogue_edits.edit(principal=self.principal, slug=pk, **told)
        if body or not told:
            row = catalogue.change(principal=self.principal, slug=pk, **body)
        return Response(self._one(row))

    @extend_schema(responses={204: None, **WRITES})
    def destroy(self, request: Request, pk: str) -> Response:
        """Take a model that an admin added out of the catalogue (admins); `409` for what comes with Slipway."""
        catalogue_edits.delete(principal=self.principal, slug=pk)
        return Response(status=204)

    def _one(self, row: CatalogEntry) -> dict[str, Any]:
        return _shown(catalogue.offers([row], _teams(self.principal, None))[0])


def _teams(principal: Principal, slug: str | None) -> list[Team]:
    own = Membership.objects.in_force().filter(user=principal.user)
    rows = Team.objects.active().visible_to(principal).filter(pk__in=own.values("team")).order_by("slug")
    return list(rows if slug is None else rows.filter(slug=slug))


def _shown(offer: catalogue.Offer) -> dict[str, Any]:
    entry = offer.entry
    return {
        "slug": entry.slug,
        "name": entry.name,
        "uri": entry.uri,
        "revision": entry.revision,
        "summary": entry.summary,
        "licence": entry.licence,
        "gated": entry.gated,
        "parameters_billion": float(entry.parameters_billion),
        "context_length": entry.context,
        "capabilities": entry.capabilities,
        "flavor": entry.flavor,
        "args": entry.args,
        "presets": [_preset(place) for place in offer.places],
        "fits_quota": offer.covered,
        "pinned": entry.pinned,
        "active": entry.active,
        "own": catalogue_edits.is_own(entry),
    }


def _preset(place: catalogue.Place) -> dict[str, Any]:
    return {
        "flavor": place.flavor.slug,
        "args": dict(place.preset.args),
        "replicas": place.preset.replicas,
        "gpus": place.preset.gpus,
        "fit": place.fit.state.value if place.fit else None,
        "concurrency": round(place.fit.concurrency, 1) if place.fit else None,
        "fits_quota": place.covered,
    }
