"""Teams, who belongs to them, invitations, and rules about groups of the identity provider."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import transaction
from django.db.models import F
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import people_schemas as shapes
from deployments.api import schemas
from deployments.api.base import PAGING, ApiViewSet, keyset, word_of
from deployments.api.bodies import validated
from deployments.api.deployments import PAGE, PROBLEMS, WRITES
from deployments.models import GroupRule, Invitation, Membership, Principal, Team, User
from deployments.services import groups, invitations, ledger, memberships, teams
from deployments.services.errors import ConflictError, InvalidError, MissingError

SLUG = "[a-z][a-z0-9-]{0,19}"


class TeamViewSet(ApiViewSet):
    """Teams one may see."""

    lookup_value_regex = SLUG
    scopes: ClassVar[dict[str, str]] = {"create": "approve"}

    @extend_schema(operation_id="teams_list", responses={200: shapes.TeamAnswer(many=True), **PROBLEMS})
    def list(self, request: Request) -> Response:
        """Teams with their quota: the own ones, for an admin all. Archived ones are left out."""
        return Response(_teams(self.principal, list(Team.objects.active().visible_to(self.principal))))

    @extend_schema(request=shapes.TeamBody, responses={201: shapes.TeamAnswer, **WRITES})
    def create(self, request: Request) -> Response:
        """Make a team with a namespace of its own (admins)."""
        body = validated(shapes.TeamBody, request)
        made = teams.create(principal=self.principal, **body)
        return Response(_teams(self.principal, [made])[0], status=201)

    @extend_schema(responses={200: shapes.TeamAnswer, **PROBLEMS})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One team, an archived one too."""
        return Response(_teams(self.principal, [team_called(self.principal, pk)])[0])

    @extend_schema(request=shapes.TeamChange, responses={200: shapes.TeamAnswer, **WRITES})
    def partial_update(self, request: Request, pk: str) -> Response:
        """Rename a team (leads and admins), or archive it for good (admins; once its deployments are gone)."""
        body, row = validated(shapes.TeamChange, request), team_called(self.principal, pk)
        if body.get("archived") is False and row.archived_at is not None:
            raise ConflictError("A team is archived for good.", field="archived", pointer="/archived")
        with transaction.atomic():
            if "name" in body:
                teams.rename(principal=self.principal, team=row, name=body["name"])
            if body.get("archived"):
                teams.archive(principal=self.principal, team=row)
        return Response(_teams(self.principal, [team_called(self.principal, pk)])[0])


class MemberViewSet(ApiViewSet):
    """Who belongs to a team. `id` is that of the membership."""

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": PAGING}

    @extend_schema(
        operation_id="teams_members_list",
        parameters=PAGE,
        responses={200: schemas.page_of(shapes.MemberAnswer), **PROBLEMS},
    )
    def list(self, request: Request, slug: str) -> Response:
        """The team's people, those who came last first."""
        rows = Membership.objects.visible_to(self.principal).filter(team=team_called(self.principal, slug))
        return keyset(request, _member_columns(rows), _member)

    @extend_schema(responses={200: shapes.MemberAnswer, **PROBLEMS})
    def retrieve(self, request: Request, slug: str, pk: str) -> Response:
        """One of the team's people."""
        rows = Membership.objects.visible_to(self.principal).filter(team=team_called(self.principal, slug), pk=int(pk))
        row = _member_columns(rows).first()
        if row is None:
            raise MissingError("Nobody of the team has this id.")
        return Response(_member(row))

    @extend_schema(request=shapes.MemberBody, responses={201: shapes.MemberAnswer, **WRITES})
    def create(self, request: Request, slug: str) -> Response:
        """Let somebody in who has an account, or change their role (leads and admins)."""
        body, team = validated(shapes.MemberBody, request), team_called(self.principal, slug)
        # Before the name is looked up: who may not add anybody learns of no accounts.
        memberships.may_rule(self.principal, team)
        user = User.objects.filter(username=body["username"], is_active=True).first()
        if user is None:
            raise InvalidError(
                "There is no account of this user name.", field="username", pointer="/username", code="unknown"
            )
        made = memberships.add(principal=self.principal, team=team, user=user, role=body["role"])
        return Response(_member_answer(made.pk), status=201)

    @extend_schema(request=shapes.MemberChange, responses={200: shapes.MemberAnswer, **WRITES})
    def partial_update(self, request: Request, slug: str, pk: str) -> Response:
        """Give somebody another role (leads and admins)."""
        body, team = validated(shapes.MemberChange, request), team_called(self.principal, slug)
        row = _membership(team, pk)
        memberships.change(principal=self.principal, team=team, user=row.user, role=body["role"])
        return Response(_member_answer(row.pk))

    @extend_schema(responses={204: None, **PROBLEMS})
    def destroy(self, request: Request, slug: str, pk: str) -> Response:
        """Take somebody out (leads and admins), or leave oneself: it holds from the next request on."""
        team = team_called(self.principal, slug)
        row = _membership(team, pk)
        if row.user_id == self.principal.user.pk:
            memberships.leave(principal=self.principal, team=team)
        else:
            memberships.remove(principal=self.principal, team=team, user=row.user)
        return Response(status=204)


class InvitationViewSet(ApiViewSet):
    """Invitations into the teams whose people one rules. They are accepted on their page, by a person."""

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": (*PAGING, "team")}
    scopes: ClassVar[dict[str, str]] = {"list": "write"}
    shown_once = frozenset({"create"})
    not_twice = frozenset({"create"})

    @extend_schema(
        operation_id="invitations_list",
        parameters=[*PAGE, OpenApiParameter("team", str, description="Slug of a team")],
        responses={200: schemas.page_of(shapes.InvitationAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """Invitations, newest first, used and ended ones too; never their links."""
        rows = Invitation.objects.manageable_by(self.principal)
        team = word_of(request, "team")
        if team is not None:
            rows = rows.filter(team__slug=team)
        return keyset(request, _invitation_columns(rows), _invitation)

    @extend_schema(request=shapes.InvitationBody, responses={201: shapes.NewInvitationAnswer, **WRITES})
    def create(self, request: Request) -> Response:
        """Make an invitation; the answer is the only place that ever shows its link."""
        body = validated(shapes.InvitationBody, request)
        team = Team.objects.filter(slug=body.pop("team")).first()
        try:
            if team is None:
                raise MissingError("There is no such team.")
            made, word = invitations.invite(principal=self.principal, team=team, **body)
        except MissingError as error:
            raise InvalidError(error.message, field="team", pointer="/team", code="team_unknown") from None
        link = invitations.link_of(word)
        shown = _invitation(_invitation_columns(Invitation.objects.filter(pk=made.pk)).get())
        return Response({**shown, "link": link, "mailed": made.mail_due}, status=201)

    @extend_schema(responses={204: None, **PROBLEMS})
    def destroy(self, request: Request, pk: str) -> Response:
        """Revoke an invitation that nobody has used."""
        invitations.revoke(principal=self.principal, invitation_id=int(pk))
        return Response(status=204)


class GroupRuleViewSet(ApiViewSet):
    """Which groups of the identity provider make members, leads and platform admins (admins)."""

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": PAGING}
    scopes: ClassVar[dict[str, str]] = {"create": "approve", "destroy": "approve"}

    @extend_schema(
        operation_id="group_rules_list",
        parameters=PAGE,
        responses={200: schemas.page_of(shapes.GroupRuleAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """All rules, newest first."""
        rows = GroupRule.objects.visible_to(self.principal)
        return keyset(request, _rule_columns(rows), _rule)

    @extend_schema(responses={200: shapes.GroupRuleAnswer, **PROBLEMS})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One rule."""
        row = _rule_columns(GroupRule.objects.visible_to(self.principal).filter(pk=int(pk))).first()
        if row is None:
            raise MissingError("There is no such rule.")
        return Response(_rule(row))

    @extend_schema(request=shapes.GroupRuleBody, responses={201: shapes.GroupRuleAnswer, **WRITES})
    def create(self, request: Request) -> Response:
        """Make a rule: it holds from each person's next sign-in on."""
        body = validated(shapes.GroupRuleBody, request)
        slug = body.pop("team")
        team = Team.objects.active().visible_to(self.principal).filter(slug=slug).first() if slug else None
        if slug is not None and team is None:
            raise InvalidError("There is no such team.", field="team", pointer="/team", code="team_unknown")
        made = groups.add_rule(principal=self.principal, team=team, **body)
        return Response(_rule(_rule_columns(GroupRule.objects.filter(pk=made.pk)).get()), status=201)

    @extend_schema(responses={204: None, **PROBLEMS})
    def destroy(self, request: Request, pk: str) -> Response:
        """Remove a rule. What no other rule can have given ends at once."""
        if not GroupRule.objects.visible_to(self.principal).filter(pk=int(pk)).exists():
            raise MissingError("There is no such rule.")
        groups.remove_rule(principal=self.principal, rule_id=int(pk))
        return Response(status=204)


def team_called(principal: Principal, slug: str) -> Team:
    """The team with this slug, if the principal may see it."""
    row = Team.objects.visible_to(principal).filter(slug=slug).first()
    if row is None:
        raise MissingError("There is no such team.")
    return row


def _teams(principal: Principal, rows: list[Team]) -> list[dict[str, Any]]:
    usages = ledger.usage_of(rows)
    own = Membership.objects.in_force().filter(user=principal.user, team__in=rows)
    roles = dict(own.values_list("team_id", "role"))
    return [
        {
            "id": row.pk,
            "slug": row.slug,
            "name": row.name,
            "namespace": row.namespace,
            "policy": row.policy,
            "archived": row.archived_at is not None,
            "role": roles.get(row.pk),
            "quota": [_usage(usage) for usage in usages[row.pk]],
        }
        for row in rows
    ]


def _usage(row: ledger.Usage) -> dict[str, Any]:
    return {
        "flavor": row.flavor.slug,
        "limit": row.limit,
        "reserved": row.reserved,
        "free": row.free,
        "until": row.until,
    }


def _membership(team: Team, pk: str) -> Membership:
    row = Membership.objects.filter(team=team, pk=int(pk)).select_related("user").first()
    if row is None:
        raise MissingError("This person does not belong to the team.")
    return row


def _member_columns(rows: Any) -> Any:
    return rows.values(
        "id",
        "role",
        "by_group",
        "created_at",
        username=F("user__username"),
        first=F("user__first_name"),
        last=F("user__last_name"),
        active=F("user__is_active"),
    )


def _member(row: dict[str, Any]) -> dict[str, Any]:
    name = f"{row.pop('first')} {row.pop('last')}".strip()
    return {"id": row.pop("id"), "username": row.pop("username"), "name": name, **row}


def _member_answer(pk: int) -> dict[str, Any]:
    return _member(_member_columns(Membership.objects.filter(pk=pk)).get())


def _invitation_columns(rows: Any) -> Any:
    return rows.values(
        "id",
        "email",
        "role",
        "created_at",
        "expires_at",
        "accepted_at",
        "revoked_at",
        slug=F("team__slug"),
        by=F("invited_by__username"),
        who=F("accepted_by__username"),
    )


def _invitation(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row.pop("id"),
        "team": row.pop("slug"),
        "invited_by": row.pop("by"),
        "accepted_by": row.pop("who"),
        **row,
    }


def _rule_columns(rows: Any) -> Any:
    return rows.values("id", "group", "role", "created_at", slug=F("team__slug"))


def _rule(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row.pop("id"), "group": row.pop("group"), "team": row.pop("slug"), **row}
