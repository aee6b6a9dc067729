"""What waits for a decision, deciding about several at once, emergencies, and who approves for a team."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import approval_schemas as shapes
from deployments.api import schemas
from deployments.api.base import (
    DEFAULT_LIMIT,
    MOST,
    ApiViewSet,
    PreconditionRequiredError,
    choices_of,
    etag,
    if_match,
    number_of,
    word_of,
)
from deployments.api.bodies import validated
from deployments.api.deployments import IF_MATCH, PROBLEMS, WRITES
from deployments.api.tags import digest_in
from deployments.models import Deployment, Emergency, Principal, Team
from deployments.services import deciding, emergencies, inbox, policies
from deployments.services.errors import MissingError
from deployments.services.inbox import Case, QuotaCase


class ApprovalViewSet(ApiViewSet):
    """The inbox of those who decide."""

    scopes: ClassVar[dict[str, str]] = {"list": "approve", "decide": "approve"}
    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": ("limit", "after", "kind", "team")}

    @extend_schema(
        operation_id="approvals_list",
        parameters=[
            OpenApiParameter("limit", int, description="Rows per page, at most 200"),
            OpenApiParameter("after", str, description="Where the page before ended"),
            OpenApiParameter("kind", str, enum=inbox.KINDS),
            OpenApiParameter("team", str, description="Slug of a team"),
        ],
        responses={200: shapes.WaitingPage, **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """What waits in the teams whose requests one decides, the oldest first."""
        kinds = choices_of(request, "kind", inbox.KINDS) or inbox.KINDS
        line = inbox.waiting(
            self.principal,
            kinds=kinds,
            team=word_of(request, "team") or "",
            after=word_of(request, "after") or "",
            size=number_of(request, "limit", most=MOST) or DEFAULT_LIMIT,
        )
        following = None
        if line.after:
            params = request.query_params.copy()
            params["after"] = line.after
            following = f"{request.build_absolute_uri(request.path)}?{params.urlencode()}"
        return Response({"results": [_shown(case) for case in line.cases], "next": following})

    @extend_schema(
        operation_id="approvals_decide",
        request=shapes.DecideBody,
        responses={200: shapes.ResultAnswer(many=True), **PROBLEMS, 422: schemas.Problem},
    )
    @action(detail=False, methods=["post"])
    def decide(self, request: Request) -> Response:
        """Approve or reject several, each on its own: the answer says what became of each."""
        body = validated(shapes.DecideBody, request)
        results = deciding.decide_all(
            principal=self.principal,
            items=[deciding.Item(item["kind"], item["id"], item.get("digest", "")) for item in body["items"]],
            approve=body["approve"],
            comment=body.get("comment", ""),
        )
        return Response(
            [
                {
                    "kind": result.item.kind,
                    "id": result.item.pk,
                    "name": result.name,
                    "outcome": result.outcome,
                    "message": result.message,
                }
                for result in results
            ]
        )


class EmergencyViewSet(ApiViewSet):
    """What two admins let through although its author is one of them."""

    scopes: ClassVar[dict[str, str]] = dict.fromkeys(("list", "call", "sign", "withdraw"), "approve")

    @extend_schema(operation_id="emergencies_list", responses={200: shapes.EmergencyAnswer(many=True), **PROBLEMS})
    def list(self, request: Request) -> Response:
        """Emergencies that can still be signed, the newest first."""
        rows = emergencies.live().filter(pk__in=emergencies.visible_to(self.principal).values("pk"))
        rows = rows.select_related("revision", "called_by").defer("revision__objects_json").order_by("-pk")
        return Response([_emergency(row) for row in rows[:MOST]])

    @extend_schema(
        operation_id="deployments_emergency",
        request=shapes.CallBody,
        parameters=[IF_MATCH],
        responses={201: shapes.EmergencyAnswer, **WRITES},
    )
    def call(self, request: Request, pk: str) -> Response:
        """Call an emergency for the newest revision, which a second admin signs within the hour (its authors)."""
        body = validated(shapes.CallBody, request)
        rows = Deployment.objects.alive().visible_to(self.principal).select_related("latest")
        row = rows.filter(pk=int(pk)).first()
        if row is None or row.latest is None:
            raise MissingError("There is no such deployment.")
        made = emergencies.call(
            principal=self.principal, revision=row.latest, digest=_digest(request, body), reason=body["reason"]
        )
        return Response(_emergency(made), status=201, headers=etag(made.digest))

    @extend_schema(
        operation_id="emergencies_sign",
        request=shapes.SignBody,
        parameters=[IF_MATCH],
        responses={200: shapes.SignAnswer, **WRITES},
    )
    @action(detail=True, methods=["post"])
    def sign(self, request: Request, pk: str) -> Response:
        """Approve with the admin who called it."""
        body = validated(shapes.SignBody, request)
        made = emergencies.sign(principal=self.principal, emergency_id=int(pk), digest=_digest(request, body))
        assert made.actor is not None
        assert made.second is not None
        return Response(
            {
                "deployment": made.revision.deployment_id,
                "revision": made.revision.number,
                "digest": made.digest,
                "kind": made.kind,
                "actor": made.actor.username,
                "second": made.second.username,
                "comment": made.comment,
            }
        )

    @extend_schema(operation_id="emergencies_withdraw", request=None, responses={200: shapes.EmergencyAnswer, **WRITES})
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, pk: str) -> Response:
        """Take a call back that nobody has signed (who called it); it stays in the history."""
        emergencies.withdraw(principal=self.principal, emergency_id=int(pk))
        row = Emergency.objects.select_related("revision", "called_by").defer("revision__objects_json").get(pk=int(pk))
        return Response(_emergency(row))


class PolicyViewSet(ApiViewSet):
    """Who approves a team's requests."""

    lookup_value_regex = "[a-z][a-z0-9-]{0,19}"
    scopes: ClassVar[dict[str, str]] = {"partial_update": "approve"}

    @extend_schema(operation_id="teams_policy_retrieve", responses={200: shapes.PolicyAnswer, **PROBLEMS})
    def retrieve(self, request: Request, slug: str) -> Response:
        """The policy of a team one may see."""
        return Response(_policy(_team(self.principal, slug)))

    @extend_schema(
        operation_id="teams_policy_update",
        request=shapes.PolicyBody,
        responses={200: shapes.PolicyAnswer, **WRITES},
    )
    def partial_update(self, request: Request, slug: str) -> Response:
        """Change it (admins). What waits already goes on waiting."""
        body = validated(shapes.PolicyBody, request)
        made = policies.set_policy(
            principal=self.principal,
            team=_team(self.principal, slug),
            policy=body.get("policy"),
            ask_above=body.get("ask_above", policies.AS_IT_IS),
            at_expiry=body.get("at_expiry"),
        )
        return Response(_policy(made))


def _shown(case: Case | QuotaCase) -> dict[str, Any]:
    if isinstance(case, QuotaCase):
        asked = case.request
        words = "An admin decides about quota."
        return {
            "kind": case.kind,
            "id": asked.pk,
            "team": asked.team.slug,
            "deployment": None,
            "name": f"{asked.gpus} × {asked.flavor.name}",
            "revision": None,
            "digest": "",
            "flavor": asked.flavor.slug,
            "gpus": asked.gpus,
            "month": case.month,
            "quota_limit": case.limit,
            "quota_left": max(0, case.limit - case.reserved),
            "valid_from": asked.valid_from,
            "valid_until": asked.valid_until,
            "author": asked.author.username,
            "why": asked.why,
            "asks": [{"code": "quota_request", "message": words, "who": "admin"}],
            "may": _may(case),
            "emergency": None,
            "created_at": asked.created_at,
        }
    row = case.revision
    return {
        "kind": case.kind,
        "id": row.pk,
        "team": row.deployment.team.slug,
        "deployment": row.deployment_id,
        "name": row.deployment.name,
        "revision": row.number,
        "digest": row.digest,
        "flavor": row.flavor.slug,
        "gpus": row.gpus,
        "month": case.month,
        "quota_limit": case.cost.limit,
        "quota_left": case.leaves,
        "valid_from": None,
        "valid_until": None,
        "author": row.author.username,
        "why": row.note,
        "asks": [ask.as_json() for ask in case.asks],
        "may": _may(case),
        "emergency": _emergency(case.emergency, case) if case.emergency else None,
        "created_at": row.created_at,
    }


def _may(case: Case | QuotaCase) -> dict[str, Any]:
    return {"approve": case.standing.approve, "reject": case.standing.reject, "why": case.standing.why}


def _emergency(row: Emergency, case: Case | None = None) -> dict[str, Any]:
    revision = case.revision if case else row.revision
    return {
        "id": row.pk,
        "deployment": revision.deployment_id,
        "revision": revision.number,
        "digest": row.digest,
        "reason": row.reason,
        "called_by": row.called_by.username,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
    }


def _policy(team: Team) -> dict[str, Any]:
    return {"team": team.slug, "policy": team.policy, "ask_above": team.ask_above, "at_expiry": team.at_expiry}


def _team(principal: Principal, slug: str) -> Team:
    row = Team.objects.active().visible_to(principal).filter(slug=slug).first()
    if row is None:
        raise MissingError("There is no such team.")
    return row


def _digest(request: Request, body: dict[str, Any]) -> str:
    tag = if_match(request)
    digest = body.get("digest") if tag is None else digest_in(tag)
    if digest is None:
        raise PreconditionRequiredError("Name the digest that you looked at, in If-Match or as “digest”.")
    return str(digest)
