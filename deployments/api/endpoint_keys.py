"""Keys with which programs call models, and what they used."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import F, OuterRef, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import key_schemas, schemas
from deployments.api.base import PAGING, YES_OR_NO, ApiViewSet, choices_of, keyset, number_of, word_of
from deployments.api.bodies import validated
from deployments.api.deployments import PAGE, PROBLEMS, WRITES
from deployments.api.shapes import Rows
from deployments.models import Deployment, EndpointKey, KeyUsage, Team
from deployments.services import endpoint_keys as keys
from deployments.services import usage
from deployments.services.errors import InvalidError, MissingError

MOST_DAYS = 400
DEFAULT_DAYS = 7


class EndpointKeyViewSet(ApiViewSet):
    """Keys of the teams one may see."""

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {
        "list": (*PAGING, "team", "deployment", "left_behind"),
        "usage": (*PAGING, "days", "deployment"),
    }
    shown_once: ClassVar[frozenset[str]] = frozenset({"create", "rotate"})

    @extend_schema(
        operation_id="endpoint_keys_list",
        parameters=[
            *PAGE,
            OpenApiParameter("team", str, description="Slug of a team"),
            OpenApiParameter("deployment", int, description="Only keys that open this deployment, by its id"),
            OpenApiParameter(
                "left_behind",
                str,
                enum=YES_OR_NO,
                description="true: living keys of a team whose maker leads it no more; false: all others",
            ),
        ],
        responses={200: schemas.page_of(key_schemas.EndpointKeyAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """Keys, newest first, ended ones too; never their text."""
        rows = EndpointKey.objects.visible_to(self.principal)
        team, deployment = word_of(request, "team"), number_of(request, "deployment")
        if team is not None:
            rows = rows.filter(team__slug=team)
        if deployment is not None:
            found = Deployment.objects.visible_to(self.principal).filter(pk=deployment).first()
            rows = rows.opening(found) if found else rows.none()
        left = EndpointKey.objects.left_behind().values("pk")
        for wish in choices_of(request, "left_behind", YES_OR_NO):
            rows = rows.filter(pk__in=left) if wish == "true" else rows.exclude(pk__in=left)
        return keyset(request, _columns(rows), _shape)

    @extend_schema(responses={200: key_schemas.EndpointKeyAnswer, **PROBLEMS})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One key."""
        return Response(_shown(EndpointKey.objects.visible_to(self.principal).filter(pk=int(pk))))

    @extend_schema(request=key_schemas.EndpointKeyBody, responses={201: key_schemas.NewEndpointKeyAnswer, **WRITES})
    def create(self, request: Request) -> Response:
        """Make a key; the answer is the only place that ever shows its text. Keys of the team are made by its leads."""
        body = validated(key_schemas.EndpointKeyBody, request)
        named = Team.objects.filter(slug=body["team"])
        # Before its deployments are looked up: of a foreign team nothing is told.
        team = named.visible_to(self.principal).first() or named.writable_by(self.principal).first()
        try:
            if team is None:
                raise MissingError("There is no such team.")
            key, text = keys.create(
                principal=self.principal,
                team=team,
                name=body["name"],
                personal=body["personal"],
                every_deployment=body["every_deployment"],
                deployments=_named(team, body.get("deployments", [])),
                days=body["days"],
                limits=keys.Limits(body.get("requests_per_minute"), body.get("tokens_per_minute")),
            )
        except MissingError as error:
            raise InvalidError(error.message, field="team", pointer="/team", code="team_unknown") from None
        return Response({**_shown(EndpointKey.objects.filter(pk=key.pk)), "key": text}, status=201)

    @extend_schema(request=key_schemas.RotateBody, responses={201: key_schemas.NewEndpointKeyAnswer, **WRITES})
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, pk: str) -> Response:
        """Make its successor, whose text is shown this once; the old key goes on for `grace_hours`."""
        body = validated(key_schemas.RotateBody, request)
        key, text = keys.rotate(principal=self.principal, key_id=int(pk), grace_hours=body["grace_hours"])
        return Response({**_shown(EndpointKey.objects.filter(pk=key.pk)), "key": text}, status=201)

    @extend_schema(responses={204: None, **PROBLEMS})
    def destroy(self, request: Request, pk: str) -> Response:
        """Revoke a key: within five seconds no gateway admits it."""
        keys.revoke(principal=self.principal, key_id=int(pk))
        return Response(status=204)

    @extend_schema(
        operation_id="endpoint_keys_usage",
        parameters=[
            *PAGE,
            OpenApiParameter("days", int, description=f"How far back, at most {MOST_DAYS}; {DEFAULT_DAYS} without it"),
            OpenApiParameter("deployment", int, description="Id of a deployment"),
        ],
        responses={200: schemas.page_of(key_schemas.KeyUsageAnswer), **PROBLEMS},
    )
    @action(detail=True, methods=["get"])
    def usage(self, request: Request, pk: str) -> Response:
        """What it used, by hour and deployment, the last counted first."""
        if not EndpointKey.objects.visible_to(self.principal).filter(pk=int(pk)).exists():
            raise MissingError("There is no such key.")
        since = usage.days_ago(number_of(request, "days", most=MOST_DAYS) or DEFAULT_DAYS)
        rows = KeyUsage.objects.filter(key=int(pk), hour__gte=usage.hour_of(since))
        deployment = number_of(request, "deployment")
        if deployment is not None:
            rows = rows.filter(deployment=deployment)
        columns = ("id", "hour", "requests", "refused", "prompt_tokens", "completion_tokens", "deployment_id")
        return keyset(request, rows.values(*columns), _usage)


def _named(team: Team, ids: list[int]) -> list[Deployment]:
    found = list(Deployment.objects.filter(team=team, pk__in=ids))
    if len(found) != len(set(ids)):
        raise InvalidError("The team has no such deployment.", field="deployments", pointer="/deployments")
    return found


def _columns(rows: QuerySet[EndpointKey]) -> Rows:
    opened = EndpointKey.deployments.through.objects.filter(endpointkey=OuterRef("pk")).order_by("deployment")
    shown: Rows = rows.values(
        "id",
        "name",
        "prefix",
        "every_deployment",
        "requests_per_minute",
        "tokens_per_minute",
        "created_at",
        "expires_at",
        "last_used_at",
        "revoked_at",
        "rotated_from_id",
        team_slug=F("team__slug"),
        person_name=F("person__username"),
        by=F("created_by__username"),
        opens=ArraySubquery(opened.values("deployment")),
    )
    return shown


_NAMES = {
    "team_slug": "team",
    "person_name": "person",
    "by": "created_by",
    "opens": "deployments",
    "rotated_from_id": "replaces",
}


def _shape(row: dict[str, Any]) -> dict[str, Any]:
    return {_NAMES.get(name, name): value for name, value in row.items()}


def _usage(row: dict[str, Any]) -> dict[str, Any]:
    return {"deployment" if name == "deployment_id" else name: value for name, value in row.items()}


def _shown(rows: QuerySet[EndpointKey]) -> dict[str, Any]:
    row = _columns(rows).first()
    if row is None:
        raise MissingError("There is no such key.")
    return _shape(row)
