"""Addresses of the domain's pages."""

from __future__ import annotations

from django.urls import path

from deployments.views import (
    account,
    actions,
    approving,
    ask,
    audit,
    catalogue,
    detail,
    overview,
    places,
    policies,
    prompting,
    quotas,
)

urlpatterns = [
    path("", overview.overview, name="overview"),
    path("overview/gpus/", overview.heat, name="overview-heat"),
    path("deployments/", overview.deployment_list, name="deployment-list"),
    path("deployments/new/", ask.create, name="deployment-create"),
    path("deployments/preflight/", ask.preflight, name="deployment-preflight"),
    path("deployments/<int:pk>/", detail.detail, name="deployment-detail"),
    path("deployments/<int:pk>/edit/", ask.edit, name="deployment-edit"),
    path("deployments/<int:pk>/edit/preflight/", ask.preflight, name="deployment-edit-preflight"),
    path("deployments/<int:pk>/logs/", detail.logs, name="deployment-logs"),
    path("deployments/<int:pk>/revisions/", detail.revisions, name="deployment-revisions"),
    path("deployments/<int:pk>/manifests/", detail.manifests, name="deployment-manifests"),
    path("deployments/<int:pk>/prompt/", prompting.prompt, name="deployment-prompt"),
    path("deployments/<int:pk>/stop/", actions.act, {"action": "stop"}, name="deployment-stop"),
    path("deployments/<int:pk>/start/", actions.act, {"action": "start"}, name="deployment-start"),
    path("deployments/<int:pk>/delete/", actions.act, {"action": "delete"}, name="deployment-delete"),
    path("catalogue/", catalogue.catalogue, name="catalogue"),
    path("approvals/", approving.inbox, name="approvals"),
    path("approvals/waiting/", approving.waiting, name="approvals-waiting"),
    path("approvals/policies/", policies.policies, name="approvals-policies"),
    path("approvals/policies/<int:pk>/", policies.change, name="approvals-policy"),
    path("approvals/selected/", approving.decide_all, name="approvals-decide-all"),
    path("approvals/quota/<int:pk>/", approving.decide_quota, name="approvals-decide-quota"),
    path("approvals/emergencies/<int:pk>/", approving.sign_emergency, name="approvals-sign"),
    path("approvals/<int:pk>/", approving.decide, name="approvals-decide"),
    path("approvals/<int:pk>/emergency/", approving.call_emergency, name="approvals-emergency"),
    path("quotas/", quotas.quotas, name="quotas"),
    path("quotas/grant/", quotas.grant, name="quotas-grant"),
    path("capacity/", places.capacity, name="capacity"),
    path("cluster/", places.cluster, name="cluster"),
    path("audit/", audit.audit, name="audit"),
    path("account/", account.account, name="account"),
    path("account/tokens/<int:pk>/revoke/", account.revoke, name="account-revoke"),
]
