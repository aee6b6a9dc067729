"""Accounts: admins switch them off and on, end their sessions, and take platform administration from them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import schemas
from deployments.api.base import PAGING, ApiViewSet, keyset
from deployments.api.bodies import validated
from deployments.api.deployments import PAGE, PROBLEMS, WRITES
from deployments.models import User
from deployments.services import accounts
from deployments.services.errors import InvalidError, MissingError


class AccountAnswer(serializers.Serializer[Any]):
    """An account."""

    id = serializers.IntegerField()
    username = serializers.CharField()
    name = serializers.CharField()
    active = serializers.BooleanField()
    admin = serializers.BooleanField(help_text="A platform admin")
    admin_by_group = serializers.BooleanField(help_text="By a group of the identity provider")
    single_sign_on_at = serializers.DateTimeField(allow_null=True, help_text="What groups give lapses some time after")
    last_login = serializers.DateTimeField(allow_null=True)


class AccountChange(serializers.Serializer[Any]):
    """What of an account changes."""

    active = serializers.BooleanField(required=False, help_text="false switches it off, and ends all that it opened")
    admin = serializers.BooleanField(required=False, help_text="false alone: admins are made at the command line")
    reason = serializers.CharField(max_length=300, required=False, help_text="Why it is switched off")


class AccountViewSet(ApiViewSet):
    """Accounts of people and programs (admins)."""

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": PAGING}
    scopes: ClassVar[dict[str, str]] = {"partial_update": "approve", "end_sessions": "approve"}

    @extend_schema(
        operation_id="accounts_list",
        parameters=PAGE,
        responses={200: schemas.page_of(AccountAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """All accounts, newest first."""
        return keyset(request, _columns(accounts.listed(self.principal)), _shown)

    @extend_schema(responses={200: AccountAnswer, **PROBLEMS})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One account."""
        return self._answer(self._called(pk))

    @extend_schema(request=AccountChange, responses={200: AccountAnswer, **WRITES})
    def partial_update(self, request: Request, pk: str) -> Response:
        """Switch an account off or on, or take platform administration from it; never one's own, nor the last admin."""
        body, user = validated(AccountChange, request), self._called(pk)
        if body.get("admin"):
            raise InvalidError("Admins are made at the command line.", field="admin", pointer="/admin")
        if body.get("active") is False and not body.get("reason"):
            raise InvalidError("Say why.", field="reason", pointer="/reason", code="required")
        with transaction.atomic():
            if "admin" in body:
                accounts.take_admin(principal=self.principal, user=user)
            if body.get("active") is False:
                accounts.switch_off(principal=self.principal, user=user, reason=body["reason"])
            elif "active" in body:
                accounts.switch_on(principal=self.principal, user=user)
        return self._answer(user)

    @extend_schema(request=None, responses={200: AccountAnswer, **WRITES})
    @action(detail=True, methods=["post"], url_path="end-sessions")
    def end_sessions(self, request: Request, pk: str) -> Response:
        """End an account's sessions, API tokens and personal endpoint keys."""
        user = self._called(pk)
        accounts.end_sessions(principal=self.principal, user=user)
        return self._answer(user)

    def _called(self, pk: str) -> User:
        row = accounts.listed(self.principal).filter(pk=int(pk)).first()
        if row is None:
            raise MissingError("There is no such account.")
        return row

    def _answer(self, user: User) -> Response:
        return Response(_shown(_columns(User.objects.filter(pk=user.pk)).get()))


def _columns(rows: Any) -> Any:
    return rows.values(
        "id",
        "username",
        "first_name",
        "last_name",
        "is_active",
        "is_platform_admin",
        "admin_by_group",
        "single_sign_on_at",
        "last_login",
    )


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "username": row["username"],
        "name": f"{row['first_name']} {row['last_name']}".strip(),
        "active": row["is_active"],
        "admin": row["is_platform_admin"],
        "admin_by_group": row["admin_by_group"],
        "single_sign_on_at": row["single_sign_on_at"],
        "last_login": row["last_login"],
    }
