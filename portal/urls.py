"""Every address of the site."""

from __future__ import annotations

from importlib.util import find_spec

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("accounts/", include("allauth.urls")),
    path("django-admin/", admin.site.urls),
    path("", include("deployments.urls")),
]
# Charts and the REST API are packages of their own; pages do without where they are not installed.
if find_spec("monitoring.urls"):
    urlpatterns.append(path("", include("monitoring.urls")))
if find_spec("portal.api"):
    urlpatterns.append(path("api/", include("portal.api")))

handler400 = "portal.health.bad_request"
handler404 = "portal.health.not_found"
handler500 = "portal.health.server_error"
