"""What a newer Slipway would render differently, and asking for it in waves (admins)."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import schemas
from deployments.api.base import ApiViewSet, number_of
from deployments.api.bodies import validated
from deployments.api.deployments import PROBLEMS
from deployments.models import Deployment, Team
from deployments.services import renderings
from deployments.services.renderings import Change

MOST_CHOSEN = 200


class DifferenceAnswer(serializers.Serializer[Any]):
    """One value of one object, as it was signed and as it would be; null where it is not there."""

    object = serializers.CharField()
    path = serializers.CharField(allow_blank=True)
    old = serializers.JSONField(allow_null=True)
    new = serializers.JSONField(allow_null=True)


class ChangeAnswer(serializers.Serializer[Any]):
    """A deployment whose approved revision would be rendered differently; `why` is what keeps it from that, if any."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    team = serializers.SlugField()
    revision = serializers.IntegerField()
    digest = serializers.CharField()
    why = serializers.CharField(allow_blank=True)
    differences = DifferenceAnswer(many=True)


class ChangesPage(serializers.Serializer[Any]):
    """Of `looked` deployments those that would change; `next` goes on where deployments are left to look at."""

    results = ChangeAnswer(many=True)
    looked = serializers.IntegerField()
    next = serializers.URLField(allow_null=True)


class ChosenItem(serializers.Serializer[Any]):
    """A deployment, and the digest of the revision that it was compared with."""

    id = schemas.WholeNumber(min_value=1, max_value=10**18)
    digest = serializers.CharField(max_length=64)


class WaveBody(serializers.Serializer[Any]):
    """What to render anew: of `items`, in their order, the first `size`."""

    items = serializers.ListField(child=ChosenItem(), min_length=1, max_length=MOST_CHOSEN)
    size = schemas.WholeNumber(min_value=1, max_value=renderings.MOST_OF_A_WAVE, required=False)


class RenewedAnswer(serializers.Serializer[Any]):
    """What became of one of them: a new revision, which is decided as any other, or why not."""

    id = serializers.IntegerField()
    name = serializers.CharField(allow_blank=True)
    revision = serializers.IntegerField(allow_null=True)
    digest = serializers.CharField(allow_null=True)
    message = serializers.CharField(allow_blank=True)


class RenderingViewSet(ApiViewSet):
    """What would change."""

    scopes: ClassVar[dict[str, str]] = {"list": "approve", "wave": "approve"}
    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": ("after",)}

    @extend_schema(
        operation_id="renderings_list",
        parameters=[OpenApiParameter("after", int, description="Only deployments with a greater id")],
        responses={200: ChangesPage, **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """What a newer Slipway would render differently, of the first hundred deployments after `after` (admins)."""
        renderings.check_may(self.principal)
        page = renderings.changes(self.principal, after=number_of(request, "after") or 0)
        following = f"{request.build_absolute_uri(request.path)}?after={page.after}" if page.after else None
        return Response({"results": [_change(row) for row in page.rows], "looked": page.looked, "next": following})

    @extend_schema(
        operation_id="renderings_wave",
        request=WaveBody,
        responses={200: RenewedAnswer(many=True), **PROBLEMS, 422: schemas.Problem},
    )
    @action(detail=False, methods=["post"])
    def wave(self, request: Request) -> Response:
        """Ask for the next wave, each on its own: the answer says what became of each (admins)."""
        renderings.check_may(self.principal)
        body = validated(WaveBody, request)
        chosen = [(item["id"], item["digest"]) for item in body["items"]]
        done = renderings.wave(principal=self.principal, chosen=chosen, size=body.get("size", renderings.FIRST_WAVE))
        teams = Team.objects.governed_by(self.principal)
        rows = Deployment.objects.filter(team__in=teams, pk__in=[pk for pk, *_ in done])
        names = dict(rows.values_list("pk", "name"))
        return Response(
            [
                {
                    "id": pk,
                    "name": names.get(pk, ""),
                    "revision": revision.number if revision else None,
                    "digest": revision.digest if revision else None,
                    "message": message,
                }
                for pk, revision, message in done
            ]
        )


def _change(row: Change) -> dict[str, Any]:
    return {
        "id": row.deployment.pk,
        "name": row.deployment.name,
        "team": row.deployment.team.slug,
        "revision": row.revision.number,
        "digest": row.revision.digest,
        "why": row.why,
        "differences": [
            {"object": one.where, "path": one.path, "old": one.old, "new": one.new} for one in row.differences
        ],
    }
