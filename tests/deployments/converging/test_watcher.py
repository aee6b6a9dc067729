"""What the watcher makes of a cluster: statuses, nodes, drift, last words, and honesty while it cannot see."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db.models.functions import Now

from deployments.kube.cluster import Cluster as Door
from deployments.models import Cluster, Deployment, Node, Status
from deployments.services import lifecycle
from deployments.watcher import heart
from sandbox.lite.faults import Fault
from sandbox.lite.testing import RunningCluster
from tests.deployments.converging.driven import Driven
from tests.deployments.converging.stage import Stage

pytestmark = pytest.mark.django_db


@pytest.fixture
def driven(ground: RunningCluster, db: None) -> Iterator[Driven]:
    """A watcher with the watcher's own account."""
    door = Door.from_kubeconfig(ground.kubeconfig_of("watcher"))
    driven = Driven(door)
    yield driven
    driven.watcher.end()
    door.close()


def make_node(stage: Stage, name: str, gpus: int = 4) -> None:
    """A node as GFD labels it, ready, without its taint."""
    made = stage.admin.create(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "labels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"},
            },
            "spec": {},
        }
    )
    amounts = {"nvidia.com/gpu": str(gpus), "cpu": "64", "memory": "512Gi", "pods": "110"}
    status = {
        "capacity": amounts,
        "allocatable": amounts,
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}],
    }
    stage.patch_status("Node", "v1", "", name, status)
    assert made["metadata"]["uid"]


def test_the_cluster_introduces_itself(driven: Driven, stage: Stage):
    driven.until(lambda: Cluster.objects.get().seen_at is not None)
    row = Cluster.objects.get()
    assert row.version == "v1.36.3"
    assert row.trouble == ""
    assert row.uid
    assert "serving.kserve.io" in row.capabilities["groups"]
    assert [item["name"] for item in row.capabilities["storage"]] == ["sandbox-files"]


def test_a_watcher_is_ready_once_the_cluster_is_known(driven: Driven, stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """Also where its first look at the cluster ends after all lists: what workers ask depends on what it told."""
    listed, look = threading.Event(), heart.look

    def late(door: Door, *, closely: bool) -> heart.Beat:
        assert listed.wait(20)
        return look(door, closely=closely)

    driven.watcher.end()
    monkeypatch.setattr(heart, "look", late)
    Cluster.objects.update(uid="")
    driven.watcher.begin()
    driven.until(lambda: driven.watcher.synced)
    assert Cluster.objects.get().uid == ""
    listed.set()
    driven.until_ready()
    assert Cluster.objects.get().uid


def test_what_is_seen_of_a_deployment_becomes_its_status(driven: Driven, stage: Stage):
    driven.settle()
    row = stage.running()
    stage.make_pod(row, "chat-predictor-abc-1")

    driven.until(lambda: "chat-predictor-abc-1" in pods_seen(row))

    status = Status.objects.get(deployment=row)
    assert status.observed["service"]["name"] == "chat"
    assert status.live_pods == len(pods_seen(row))
    assert status.listed_at is not None


def test_nodes_and_who_holds_their_gpus(driven: Driven, stage: Stage):
    row = stage.running()
    make_node(stage, f"gpu-{row.pk}")
    driven.until(lambda: Node.objects.filter(name=f"gpu-{row.pk}", allocatable=4, ready=True).exists())
    stage.make_pod(row, "chat-predictor-abc-2", gpus=2, node=f"gpu-{row.pk}")

    def holders() -> list[dict[str, Any]]:
        return Node.objects.get(name=f"gpu-{row.pk}").holders

    driven.until(lambda: any(holder["pod"] == "chat-predictor-abc-2" for holder in holders()))
    mine = next(holder for holder in holders() if holder["pod"] == "chat-predictor-abc-2")
    assert mine == {
        "namespace": stage.team.namespace,
        "pod": "chat-predictor-abc-2",
        "gpus": 2,
        "deployment": row.pk,
        "ready": False,
    }
    assert Node.objects.get(name=f"gpu-{row.pk}").requested >= 2


def test_a_hand_edit_makes_the_deployment_due(driven: Driven, stage: Stage):
    row = stage.running()
    driven.settle()
    driven.turn(2.5)
    assert not due(row)

    stage.edit(stage.service_ref(row), {"spec": {"predictor": {"maxReplicas": 7}}})

    driven.until(lambda: due(row))


def test_a_deleted_object_makes_the_deployment_due(driven: Driven, stage: Stage):
    row = stage.running()
    driven.settle()
    driven.turn(2.5)
    assert not due(row)

    stage.remove(stage.ref("PodMonitor", "chat"))

    driven.until(lambda: due(row))


def test_a_status_alone_makes_nothing_due(driven: Driven, stage: Stage):
    row = stage.running()
    driven.settle()
    stage.patch_status(
        "InferenceService", "serving.kserve.io/v1beta1", stage.team.namespace, "chat", {"url": "http://example.com"}
    )
    driven.turn(3)
    assert not due(row)


def test_pods_that_went_wake_the_pass_that_waits_for_them(driven: Driven, stage: Stage):
    row = stage.running()
    pod = stage.make_pod(row, "chat-predictor-abc-3", finalizer="example.com/slow")
    driven.settle()
    lifecycle.stop(principal=stage.principal, deployment=row)
    row = stage.converge(row)
    driven.turn(1)
    Deployment.objects.filter(pk=row.pk).update(next_reconcile_at="2100-01-01T00:00Z")

    stage.drop_pod(pod)

    driven.until(lambda: due(row))


def test_an_api_server_that_is_away_is_told_and_comes_back_by_itself(driven: Driven, stage: Stage):
    row = stage.running()
    driven.settle()
    driven.until(lambda: Cluster.objects.get().seen_at is not None)
    Deployment.objects.filter(pk=row.pk).update(
        outcome={"phase": "retrying", "code": "unreachable"}, next_reconcile_at="2100-01-01T00:00Z"
    )

    stage.ground.faults.before_hook = lambda _: Fault(drop=True)
    stage.ground.drop_watches()
    driven.until(lambda: Cluster.objects.get().trouble != "")
    seen = Cluster.objects.get().seen_at

    stage.ground.faults.clear()
    driven.until(lambda: Cluster.objects.get().trouble == "", seconds=45)
    assert Cluster.objects.get().seen_at > seen
    assert due(row)


def test_changes_behind_a_compacted_log_are_seen(driven: Driven, stage: Stage):
    row = stage.running()
    driven.settle()
    stage.ground.compact()
    stage.ground.drop_watches()
    stage.make_pod(row, "chat-predictor-abc-4")
    driven.until(lambda: "chat-predictor-abc-4" in pods_seen(row))


def test_another_cluster_at_the_same_address_stops_every_write(driven: Driven, stage: Stage):
    driven.settle()
    driven.watcher.end()
    Cluster.objects.update(uid="the-one-we-knew")
    driven.watcher.begin()
    driven.until(lambda: "Another cluster" in Cluster.objects.get().trouble)

    row = stage.ask()
    row = stage.converge(row)
    assert row.outcome["code"] == "other_cluster"
    assert stage.service(row) is None


def due(row: Deployment) -> bool:
    return Deployment.objects.filter(pk=row.pk, next_reconcile_at__lte=Now()).exists()


def pods_seen(row: Deployment) -> list[str]:
    """Names of the pods in the stored status."""
    observed = Status.objects.filter(deployment=row).values_list("observed", flat=True).first() or {}
    return [pod["name"] for pod in observed.get("pods", [])]
