"""Credentials of teams: names and states go out, values only come in."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import F, OuterRef
from django.db.models.functions import JSONObject
from django.views.decorators.debug import sensitive_variables
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import credential_schemas, schemas
from deployments.api.base import PAGING, ApiViewSet, keyset, word_of
from deployments.api.bodies import validated
from deployments.api.deployments import PAGE, PROBLEMS, WRITES
from deployments.api.shapes import Rows
from deployments.models import Credential, CredentialQuerySet, SecretVersion, Team
from deployments.models.credentials import is_waiting, names_of_users
from deployments.services import credentials
from deployments.services.errors import InvalidError, MissingError


class CredentialViewSet(ApiViewSet):
    """Credentials of the teams one may see."""

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": (*PAGING, "team")}

    @extend_schema(
        operation_id="credentials_list",
        parameters=[*PAGE, OpenApiParameter("team", str, description="Slug of a team")],
        responses={200: schemas.page_of(credential_schemas.CredentialAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """Credentials, newest first; never their values."""
        rows = Credential.objects.visible_to(self.principal)
        team = word_of(request, "team")
        if team is not None:
            rows = rows.filter(team__slug=team)
        return keyset(request, _columns(rows), _shape)

    @extend_schema(responses={200: credential_schemas.CredentialAnswer, **PROBLEMS})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One credential, never its value."""
        return Response(_shown(Credential.objects.visible_to(self.principal).filter(pk=int(pk))))

    @sensitive_variables("body")
    @extend_schema(
        request=credential_schemas.CredentialBody, responses={201: credential_schemas.CredentialAnswer, **WRITES}
    )
    def create(self, request: Request) -> Response:
        """Add one. Its value is sealed at once, tested by a worker and stored on the cluster; no answer shows it."""
        body = validated(credential_schemas.CredentialBody, request)
        team = Team.objects.filter(slug=body["team"]).first()
        try:
            if team is None:
                raise MissingError("There is no such team.")
            made = credentials.create(
                principal=self.principal,
                team=team,
                name=body["name"],
                kind=body["kind"],
                fields=credential_schemas.parts_of(body),
                test_uri=body.get("test_uri", ""),
            )
        except MissingError as error:
            raise InvalidError(error.message, field="team", pointer="/team", code="team_unknown") from None
        return Response(_shown(Credential.objects.filter(pk=made.pk)), status=201)

    @sensitive_variables("body")
    @extend_schema(
        request=credential_schemas.CredentialRotateBody, responses={200: credential_schemas.CredentialAnswer, **WRITES}
    )
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, pk: str) -> Response:
        """Enter a new value. What runs goes on with the old one until the new one is stored; then pods are rolled."""
        body = validated(credential_schemas.CredentialRotateBody, request)
        made = credentials.rotate(
            principal=self.principal,
            credential_id=int(pk),
            fields=credential_schemas.parts_of(body),
            test_uri=body.get("test_uri"),
        )
        return Response(_shown(Credential.objects.filter(pk=made.pk)))

    @extend_schema(responses={204: None, **PROBLEMS})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete it and its Secret; 409 while a deployment names it."""
        credentials.delete(principal=self.principal, credential_id=int(pk))
        return Response(status=204)


def _columns(rows: CredentialQuerySet) -> Rows:
    newest = SecretVersion.objects.filter(credential=OuterRef("pk")).order_by("-number")
    entered = newest.values(data=JSONObject(fingerprint="fingerprint", settings="settings", id="id"))[:1]
    found: Rows = rows.values(
        "id",
        "name",
        "kind",
        "problem",
        "current_id",
        "created_at",
        "last_used_at",
        "tested_at",
        "test_code",
        "test_message",
        "test_remedy",
        "test_uri",
        team_slug=F("team__slug"),
        by=F("created_by__username"),
        in_use=F("current__fingerprint"),
        in_use_settings=F("current__settings"),
        waiting=is_waiting(),
        users=names_of_users(),
        entered=ArraySubquery(entered),
    )
    return found


def _shape(row: dict[str, Any]) -> dict[str, Any]:
    state = Credential.state_of(row["current_id"], waiting=row["waiting"])
    entered = row["entered"][0] if row["entered"] else {"fingerprint": "", "settings": {}}
    stored = row["current_id"] is not None
    tested = {
        "at": row["tested_at"],
        "code": row["test_code"],
        "message": row["test_message"],
        "remedy": row["test_remedy"],
        "uri": row["test_uri"],
    }
    return {
        "id": row["id"],
        "team": row["team_slug"],
        "name": row["name"],
        "kind": row["kind"],
        "state": state,
        "problem": row["problem"],
        "fingerprint": row["in_use"] if stored else entered["fingerprint"],
        "settings": row["in_use_settings"] if stored else entered["settings"],
        "tested": tested if row["tested_at"] else None,
        "used_by": row["users"],
        "created_by": row["by"],
        "created_at": row["created_at"],
        "last_used_at": row["last_used_at"],
    }


def _shown(rows: CredentialQuerySet) -> dict[str, Any]:
    row = _columns(rows).first()
    if row is None:
        raise MissingError("There is no such credential.")
    return _shape(row)
