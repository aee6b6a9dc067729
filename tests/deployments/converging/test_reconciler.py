"""A deployment's life on a cluster: applied, left alone, changed by hands, stopped, deleted."""

from __future__ import annotations

import pytest

from deployments.models import AppliedObject, Event, Intent, QuotaHold
from deployments.services import lifecycle
from tests.deployments.converging.stage import Recorder, Stage

pytestmark = pytest.mark.django_db

KINDS = {
    "ServiceAccount",
    "NetworkPolicy",
    "ServingRuntime",
    "PodDisruptionBudget",
    "PodMonitor",
    "InferenceService",
    "HTTPRoute",
}


def test_a_team_gets_its_namespace_and_its_guards(stage: Stage):
    team = stage.converge_team()

    assert (team.ready, team.blocked_message) == (True, "")
    kinds = set(AppliedObject.objects.filter(team=team).values_list("kind", flat=True))
    assert kinds == {"Namespace", "ResourceQuota", "LimitRange", "NetworkPolicy", "RoleBinding"}
    quota = stage.admin.read(stage.ref("ResourceQuota", "slipway"))
    assert quota["spec"]["hard"]["requests.nvidia.com/gpu"] == "4"


def test_an_approved_deployment_is_applied(stage: Stage):
    row = stage.running()

    assert set(AppliedObject.objects.filter(deployment=row).values_list("kind", flat=True)) == KINDS
    assert row.applied == row.approved
    service = stage.service(row)
    assert service["metadata"]["labels"]["slipway.dev/deployment"] == str(row.pk)
    assert stage.open_intents() == 0
    assert Event.objects.filter(deployment=row, kind="applied").count() == 1
