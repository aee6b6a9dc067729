"""Addresses of charts. Fragments are fetched by the pages that show them."""

from django.urls import path

from . import views

urlpatterns = [
    path("metrics/", views.fleet, name="fleet-metrics"),
    path("metrics/charts/", views.fleet_charts, name="fleet-charts"),
    path("metrics/columns/", views.fleet_columns, name="fleet-columns"),
    path("metrics/badge/", views.badge, name="prometheus-badge"),
    path("deployments/<int:pk>/metrics/", views.deployment_metrics, name="deployment-metrics"),
    path("deployments/<int:pk>/charts/", views.deployment_charts, name="deployment-charts"),
    path("deployments/<int:pk>/charts/<slug:panel>.csv", views.panel_csv, name="panel-csv"),
]
