"""Quota, the ledger, engines, tokens, and who one is."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import F
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import schemas, shapes
from deployments.api.base import PAGING, ApiViewSet, etag, if_match, keyset, number_of, word_of
from deployments.api.bodies import said_as_sent, validated
from deployments.api.deployments import IF_MATCH, PAGE, PROBLEMS, WRITES
from deployments.models import (
    ApiToken,
    Flavor,
    Membership,
    QuotaGrant,
    Reservation,
    Team,
)
from deployments.services import flavors, grants, tokens
from deployments.services.errors import InvalidError, MissingError

BY_TEAM = OpenApiParameter("team", str, description="Slug of a team")
BY_FLAVOR = OpenApiParameter("flavor", str, description="Slug of a flavor")
BY_DEPLOYMENT = OpenApiParameter("deployment", int, description="Id of a deployment")


class GrantViewSet(ApiViewSet):
    """Quota that admins granted."""

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": (*PAGING, "team", "flavor")}

    scopes = {"create": "approve", "partial_update": "approve"}
    not_twice = frozenset({"create"})

    @extend_schema(
        operation_id="quota_grants_list",
        parameters=[*PAGE, BY_TEAM, BY_FLAVOR],
        responses={200: schemas.page_of(schemas.GrantAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """Grants of the teams one may see, ended ones too."""
        rows = QuotaGrant.objects.visible_to(self.principal)
        rows = _filtered(request, rows, team="team__slug", flavor="flavor__slug")
        return keyset(request, shapes.grants(rows), shapes.grant)

    @extend_schema(responses={200: schemas.GrantDetail, **PROBLEMS})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One grant; its ETag says how it is now."""
        row = QuotaGrant.objects.visible_to(self.principal).filter(pk=int(pk)).first()
        if row is None:
            raise MissingError("There is no such grant.")
        return _grant(row.pk)

    @extend_schema(request=schemas.GrantBody, responses={201: schemas.GrantDetail, **WRITES})
    def create(self, request: Request) -> Response:
        """Grant GPUs to a team (admins); whoever waits for them is served."""
        body = validated(schemas.GrantBody, request)
        team = Team.objects.active().visible_to(self.principal).filter(slug=body["team"]).first()
        flavor = Flavor.objects.filter(slug=body["flavor"]).first()
        if team is None:
            raise InvalidError("There is no such team.", field="team", pointer="/team", code="team_unknown")
        if flavor is None:
            raise InvalidError("There is no such flavor.", field="flavor", pointer="/flavor", code="flavor_unknown")
        with said_as_sent(schemas.GrantBody, request):
            made = grants.grant(
                principal=self.principal,
                team=team,
                flavor=flavor,
                gpus=body["gpus"],
                since=body.get("valid_from"),
                until=body.get("valid_until"),
                comment=body.get("comment", ""),
            )
        return _grant(made.pk, status=201)

    @extend_schema(request=schemas.GrantChange, parameters=[IF_MATCH], responses={200: schemas.GrantDetail, **WRITES})
    def partial_update(self, request: Request, pk: str) -> Response:
        """Cut, raise or end a grant (admins). What is held stays held; growth alone is refused.

        With If-Match it is changed only while it is as GET showed it; without, the last change counts.
        """
        body = validated(schemas.GrantChange, request)
        with said_as_sent(schemas.GrantChange, request):
            grants.change_grant(
                principal=self.principal,
                grant_id=int(pk),
                gpus=body.get("gpus"),
                until=body.get("valid_until", grants.KEPT),
                comment=body.get("comment", ""),
                seen=if_match(request),
            )
        return _grant(int(pk))


class ReservationViewSet(ApiViewSet):
    """The ledger of GPUs."""

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": (*PAGING, "team", "flavor", "deployment")}

    @extend_schema(
        operation_id="reservations_list",
        parameters=[*PAGE, BY_TEAM, BY_FLAVOR, BY_DEPLOYMENT],
        responses={200: schemas.page_of(schemas.ReservationAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """What was reserved and given back, newest first."""
        rows = Reservation.objects.visible_to(self.principal)
        rows = _filtered(request, rows, team="account__team__slug", flavor="account__flavor__slug")
        return keyset(request, shapes.reservations(rows), shapes.reservation)


class WhoViewSet(ApiViewSet):
    """The caller."""

    @extend_schema(operation_id="whoami", responses={200: schemas.WhoAnswer, **PROBLEMS})
    def list(self, request: Request) -> Response:
        """Who one is, in which teams, and what this credential may do."""
        who = self.principal
        rows = Membership.objects.in_force().filter(user=who.user, team__archived_at=None).order_by("team__slug")
        if who.team_ids is not None:
            rows = rows.filter(team__in=who.team_ids)
        return Response(
            {
                "username": who.user.username,
                "name": who.user.get_full_name(),
                "admin": who.is_admin,
                "scopes": sorted(who.scopes),
                "teams": list(rows.values("role", slug=F("team__slug"), name=F("team__name"))),
            }
        )


class TokenViewSet(ApiViewSet):
    """One's own API tokens."""

    shown_once = frozenset({"create"})
    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": PAGING}

    @extend_schema(
        operation_id="tokens_list",
        parameters=PAGE,
        responses={200: schemas.page_of(schemas.TokenAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """One's tokens, without their text."""
        return keyset(request, shapes.tokens(ApiToken.objects.filter(user=self.principal.user)))

    @extend_schema(request=schemas.TokenBody, responses={201: schemas.NewTokenAnswer, **WRITES})
    def create(self, request: Request) -> Response:
        """Make a token; the answer is the only place that ever shows its text."""
        body = validated(schemas.TokenBody, request)
        token, text = tokens.create(
            principal=self.principal,
            name=body["name"],
            scopes=body["scopes"],
            days=body["days"],
            teams=_own_teams(self, body["teams"]) if "teams" in body else None,
        )
        shown = shapes.tokens(ApiToken.objects.filter(pk=token.pk)).get()
        return Response({**shown, "token": text}, status=201)

    @extend_schema(responses={204: None, **PROBLEMS})
    def destroy(self, request: Request, pk: str) -> Response:
        """Revoke a token at once."""
        tokens.revoke(principal=self.principal, token_id=int(pk))
        return Response(status=204)


def _own_teams(view: ApiViewSet, slugs: list[str]) -> list[Team]:
    found = list(Team.objects.writable_by(view.principal).filter(slug__in=slugs))
    if len(found) != len(set(slugs)):
        raise InvalidError("You do not belong to all of these teams.", field="teams", pointer="/teams")
    return found


def _grant(pk: int, status: int = 200) -> Response:
    # Past the queryset of the caller: who wrote it may see what became of it, even with a token that only writes.
    row = QuotaGrant.objects.select_related("flavor").get(pk=pk)
    shown = shapes.grant(shapes.grants(QuotaGrant.objects.filter(pk=pk)).get())
    shown["beyond_cluster"] = flavors.capacity_of(row.flavor).beyond
    return Response(shown, status=status, headers=etag(grants.tag_of(row)))


def _filtered(request: Request, rows: Any, **columns: str) -> Any:
    """Rows by the query parameters of these names, and by `deployment`."""
    for parameter, column in columns.items():
        value = word_of(request, parameter)
        if value is not None:
            rows = rows.filter(**{column: value})
    deployment = number_of(request, "deployment")
    if deployment is not None:
        rows = rows.filter(deployment_id=deployment)
    return rows
