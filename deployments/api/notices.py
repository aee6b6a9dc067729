"""What concerns the caller."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import F
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import schemas
from deployments.api.base import PAGING, ApiViewSet, body_of, choices_of, keyset
from deployments.api.deployments import PAGE, PROBLEMS, WRITES
from deployments.models import Event, Notification
from deployments.services import notices
from deployments.services.errors import InvalidError, MissingError


class NoticeAnswer(serializers.Serializer[Notification]):
    """One notice; `link` is a path of the site."""

    id = serializers.IntegerField()
    kind = serializers.CharField()
    level = serializers.ChoiceField(Event.Level.choices)
    message = serializers.CharField()
    link = serializers.CharField()
    team = serializers.SlugField(allow_null=True)
    deployment = serializers.IntegerField(allow_null=True)
    event = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    read_at = serializers.DateTimeField(allow_null=True)


class ReadAnswer(serializers.Serializer[Any]):
    """How many notices were unread until now."""

    read = serializers.IntegerField()


class NoticeViewSet(ApiViewSet):
    """One's own notices."""

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": (*PAGING, "show")}
    # Reading all twice reads what came in between, as pressing the button twice does.
    harmless = frozenset({"read_all"})

    @extend_schema(
        operation_id="notices_list",
        parameters=[*PAGE, OpenApiParameter("show", str, enum=["all", "unread"])],
        responses={200: schemas.page_of(NoticeAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """One's notices, newest first, but for those of teams one has left."""
        rows = Notification.objects.visible_to(self.principal)
        if choices_of(request, "show", ["all", "unread"]) == ["unread"]:
            rows = rows.unread()
        return keyset(request, _columns(rows), _shape)

    @extend_schema(responses={200: NoticeAnswer, **PROBLEMS})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One notice."""
        row = _columns(Notification.objects.visible_to(self.principal).filter(pk=int(pk))).first()
        if row is None:
            raise MissingError("There is no such notice.")
        return Response(_shape(row))

    @extend_schema(request=None, responses={200: NoticeAnswer, **WRITES})
    @action(detail=True, methods=["post"])
    def read(self, request: Request, pk: str) -> Response:
        """Mark one as read."""
        _empty(request)
        row = notices.read(principal=self.principal, pk=int(pk))
        return Response(_shape(_columns(Notification.objects.filter(pk=row.pk)).get()))

    @extend_schema(operation_id="notices_read_all", request=None, responses={200: ReadAnswer, **WRITES})
    @action(detail=False, methods=["post"], url_path="read")
    def read_all(self, request: Request) -> Response:
        """Mark all as read."""
        _empty(request)
        return Response({"read": notices.read_all(principal=self.principal)})


def _columns(rows: Any) -> Any:
    return rows.values(
        "id",
        "message",
        "link",
        "created_at",
        "read_at",
        "event_id",
        kind=F("event__kind"),
        level=F("event__level"),
        team=F("event__team__slug"),
        deployment=F("event__deployment_id"),
    )


def _shape(row: dict[str, Any]) -> dict[str, Any]:
    return {"event" if name == "event_id" else name: value for name, value in row.items()}


def _empty(request: Request) -> None:
    for name in body_of(request):
        raise InvalidError("The body is empty here.", pointer=f"/{name[:60]}", field=name[:60], code="unknown_field")
