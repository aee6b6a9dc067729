"""Django's admin shows rows and changes none: what its buttons do goes through services, with checks and audit."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import Group
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from deployments import models
from deployments.services import ledger
from deployments.services.errors import DomainError
from deployments.services.principals import principal_of

# What nobody may read, nor needs to.
SECRET: dict[type[Model], set[str]] = {
    models.User: {"password"},
    models.ApiToken: {"digest"},
    SocialAccount: {"extra_data"},
}


class ReadOnly(admin.ModelAdmin[Any]):
    """Look, search, follow links. Only platform admins get in."""

    list_per_page = 50
    show_full_result_count = False
    actions: Any = None

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
        hidden = SECRET.get(self.model, set())
        return [field.name for field in self.model._meta.fields if field.name not in hidden]

    @staticmethod
    def _may(request: HttpRequest) -> bool:
        user = request.user
        return isinstance(user, models.User) and user.rules


class DeploymentAdmin(ReadOnly):
    """Deployments, and the last resort when the pods of one cannot be proven to be gone."""

    actions = ("force_release",)

    @admin.action(description="Give GPUs back without proof that the pods are gone", permissions=["view"])
    def force_release(self, request: HttpRequest, queryset: QuerySet[models.Deployment]) -> TemplateResponse | None:
        """Ask for a reason, then do it through the service, which writes it into the audit."""
        rows = queryset.select_related("team").order_by("pk")
        if "confirmed" not in request.POST:
            context = {
                **self.admin_site.each_context(request),
                "title": "Give GPUs back without proof",
                "rows": [(row, ledger.held_by(row)) for row in rows],
                "checkbox": ACTION_CHECKBOX_NAME,
                "opts": self.opts,
            }
            return TemplateResponse(request, "admin/force_release.html", context)
        principal = principal_of(request)
        for row in rows:
            try:
                entries = ledger.force_release(
                    principal=principal, deployment=row, reason=request.POST.get("reason", "")
                )
            except DomainError as error:
                self.message_user(request, f"{row}: {error.message}", messages.ERROR)
            else:
                self.message_user(request, f"{row}: {-sum(entry.delta for entry in entries)} GPUs given back.")
        return None


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
admin.site.register(models.Deployment, DeploymentAdmin)

# Applications beside ours register admins that write. SocialApp, SocialToken, Authenticator hold secrets, groups mean
# nothing here.
for other in (Group, EmailAddress, SocialAccount, SocialApp, SocialToken, Authenticator):
    admin.site.unregister(other)
admin.site.register(EmailAddress, ReadOnly)
admin.site.register(SocialAccount, ReadOnly)
