"""Every address of the site."""

from __future__ import annotations

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

# One way in, with its limits and its second factor.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

urlpatterns: list[URLPattern | URLResolver] = [
    path("accounts/", include("portal.account_urls")),
    path("django-admin/", admin.site.urls),
    path("", include("deployments.urls")),
    path("", include("monitoring.urls")),
    path("api/", include("portal.api")),
]

handler400 = "portal.health.bad_request"
handler404 = "portal.health.not_found"
handler500 = "portal.health.server_error"
