"""Django's admin shows rows and changes none: every change goes through a service, with its checks and its audit."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from deployments import models

SECRET = {"password", "digest"}


class ReadOnly(admin.ModelAdmin[Any]):
    """Look, search, follow links. Only platform admins get in."""

    list_per_page = 50
    show_full_result_count = False
    actions = None

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """The short columns of the model."""
        return ("__str__", *[name for name in self._names() if name in _SHORT])

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        """Everything but what nobody may read."""
        return self._names()

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """All of it."""
        return self._names()

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Platform admins alone."""
        return self._may(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Platform admins alone."""
        return self._may(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody."""
        return False

    def _names(self) -> list[str]:
        hidden = SECRET if self.model in {models.User, models.ApiToken} else set()
        return [field.name for field in self.model._meta.fields if field.name not in hidden]

    @staticmethod
    def _may(request: HttpRequest) -> bool:
        user = request.user
        return isinstance(user, models.User) and user.is_active and user.is_platform_admin


_SHORT = {
    "team",
    "user",
    "role",
    "state",
    "wanted",
    "verdict",
    "kind",
    "level",
    "actor",
    "gpus",
    "delta",
    "reserved",
    "result",
    "active",
    "created_at",
    "seen_at",
}

for each in (
    models.User,
    models.Team,
    models.Membership,
    models.ApiToken,
    models.Cluster,
    models.Node,
    models.Flavor,
    models.Deployment,
    models.Revision,
    models.Approval,
    models.Event,
    models.QuotaGrant,
    models.QuotaAccount,
    models.QuotaHold,
    models.Reservation,
    models.AppliedObject,
    models.Intent,
    models.Status,
    models.EngineProfile,
    models.CatalogEntry,
    models.ModelCheck,
):
    admin.site.register(each, ReadOnly)
