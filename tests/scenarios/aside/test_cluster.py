"""The cluster itself is in the way: silent, changed by hand, closed to Slipway. It says so, and goes on by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from deployments.kube.errors import ClusterError
from deployments.kube.kinds import Ref
from deployments.models import Cluster, Deployment, Event, Status
from tests.deployments.converging.driven import Driven
from tests.scenarios.forgetting import EVERYTHING, SOMETIMES, Late, forget, wait_for
from tests.scenarios.grounds import Ground, Object
from tests.scenarios.stage import SERVICE, Heard, Says, Stage, portal_says

pytestmark = pytest.mark.django_db

PODMONITORS = "podmonitors.monitoring.coreos.com"
TEAM_ROLE = "slipway-team-worker"


def test_namespace_deleted_by_hand(stage: Stage):
    row = stage.running()
    before = stage.ground.read("Namespace", stage.namespace)["metadata"]["uid"]
    held = {"name": "held", "namespace": stage.namespace, "finalizers": ["example.com/held"]}
    stage.ground.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": held})
    stage.ground.remove("Namespace", stage.namespace)

    # As long as something in it does not go.
    row = stage.comes_to(row, Says("Applying", "namespace_terminating"), within=40, note="told")
    assert "namespace is being deleted" in row.reason["title"]
    assert "when it is gone" in row.reason["remedy"]
    stage.ground.edit("ConfigMap", "held", stage.namespace, {"metadata": {"finalizers": None}})
    row = stage.comes_to_pass(row, lambda: back(stage, row, before), within=50, note="back")

    assert portal_says(row) == Says("Running")
    assert stage.held(row) == 1
    assert stage.told(row, "restored")


def test_api_server_restart(stage: Stage):
    row = stage.running()
    version = stage.service(row)["metadata"]["resourceVersion"]
    said: set[Heard] = set()

    with stopped(stage.ground, stage.ground.api_server):
        row = stage.revise(row, replicas={"min": 2, "max": 2})
        row = stage.comes_to_pass(row, lambda: stage.fresh(row).outcome["phase"] == "retrying", within=12, note="told")
        assert row.outcome["code"] == "unreachable"
        # What was last seen serves still, and nobody claims otherwise.
        assert portal_says(row) == Says("Running")
        stage.until(row, lambda: Cluster.objects.get().trouble, what="the banner")
    goes_on = stage.hearing(row, lambda: ready(stage, row) == 2, said)
    # Most of it is kube-apiserver's own start (docs/measured.md), and that is the processor's time.
    row = stage.comes_to_pass(row, goes_on, within=100, note="back, and goes on")

    stage.until(row, lambda: Cluster.objects.get().trouble == "", what="the banner gone")
    assert stage.service(row)["metadata"]["resourceVersion"] != version
    # It refuses everybody until it has read its roles: that says nothing of what an admin installed.
    assert {heard.team for heard in said} == {""}
    assert "permission" not in {code for heard in said for code in (heard.outcome, heard.says.code)}
    assert "permission" not in {event.data.get("reason") for event in Event.objects.filter(deployment=row)}
    assert not Event.objects.filter(team=stage.team, kind="team_blocked").exists()


def test_a_watch_from_long_ago(stage: Stage):
    """410: what the watcher missed the cluster has forgotten, so it reads everything anew."""
    row = stage.running()
    [lost] = names_of(stage.pods())
    with late_watcher(stage) as eyes:
        with eyes.shut():
            stage.ground.remove("Pod", lost, stage.namespace)
            stage.ground.remove("PodDisruptionBudget", row.name, stage.namespace)
            wait_for(lambda: names_of(stage.pods()) not in (set(), {lost}), "another pod")
            forget(stage.ground)
            assert names_in(row) == {lost}
        [made] = names_of(stage.pods()) - {lost}
        row = stage.comes_to_pass(row, lambda: names_in(row) == {made}, within=30, note="the other pod is known")
        row = stage.comes_to(row, Says("Running"), within=30)
        row = stage.comes_to_pass(row, lambda: stage.told(row, "restored"), within=30, note="what was lost is back")

    assert eyes.expired - SOMETIMES == EVERYTHING
    assert stage.ground.read("PodDisruptionBudget", row.name, stage.namespace) is not None
    stage.until(row, lambda: Cluster.objects.get().trouble == "", what="no banner")


def test_an_expired_token(stage: Stage, tmp_path: Path):
    row = stage.running()
    good = stage.worker._source
    config = yaml.safe_load(Path(good).read_text())
    config["users"][0]["user"]["token"] = stage.ground.expired_token("slipway-system", "worker")
    theirs = tmp_path / "worker.kubeconfig"
    theirs.write_text(yaml.safe_dump(config))
    stage.use_worker(theirs)

    row = stage.revise(row, replicas={"min": 2, "max": 2})
    row = stage.comes_to(row, Says("Degraded", "unauthorized"), within=12)
    assert "new token" in row.reason["remedy"]

    # Rotated in place, as a mounted token is.
    theirs.write_text(Path(good).read_text())
    row = stage.sweep(row)
    assert row.applied.number == 2


def test_missing_rights(stage: Stage):
    row = stage.running()
    role = stage.ground.read("ClusterRole", TEAM_ROLE)
    stage.ground.remove("ClusterRole", TEAM_ROLE)
    try:
        wait_for(lambda: refuses(stage, row), "the role to be missed")
        said: set[Heard] = set()
        row = stage.revise(row, replicas={"min": 2, "max": 2})
        blocked = stage.hearing(row, lambda: portal_says(stage.fresh(row)) == Says("Degraded", "team_blocked"), said)
        row = stage.comes_to_pass(row, blocked, within=15)
        assert "Slipway's account may not do this on the cluster" in row.reason["title"]
        assert "k8s/portal" in row.reason["title"]
        # First its own pass was refused, then the one over its team, which holds it back.
        assert {heard.says.code for heard in said} <= {"", "permission", "team_blocked"}
        assert len(stage.pods()) == 1
    finally:
        stage.ground.create(bare(role))
    note = "after the role was installed"
    row = stage.comes_to_pass(row, lambda: stage.sweep(row).applied.number == 2, within=12, note=note)


def test_a_crd_is_missing(stage: Stage):
    row = stage.applied()
    crd = stage.ground.read("CustomResourceDefinition", PODMONITORS)
    stage.ground.remove("CustomResourceDefinition", PODMONITORS)
    try:
        stage.until(row, lambda: stage.ground.read("CustomResourceDefinition", PODMONITORS) is None)
        other = stage.ask("other")
        other = stage.comes_to(other, Says("Blocked", "kind_missing"), within=12)
        assert "install" in other.reason["remedy"]
        assert stage.ground.read(SERVICE, "other", stage.namespace) is None
    finally:
        stage.ground.create(bare(crd))
    stage.comes_to_pass(other, lambda: stage.sweep(other).applied_id, within=15, note="after the CRD was installed")


@contextmanager
def late_watcher(stage: Stage) -> Iterator[Late]:
    """A watcher behind a door that can be shut, in place of the stage's."""
    eyes = Late.from_kubeconfig(stage.ground.kubeconfig_of("watcher"))
    assert isinstance(eyes, Late)
    stage.driven.watcher.end()
    stage.driven = Driven(eyes)
    stage.driven.until_ready()
    try:
        yield eyes
    finally:
        stage.driven.watcher.end()
        eyes.close()


@contextmanager
def stopped(ground: Ground, program: str) -> Iterator[None]:
    """A program that is down for the length of the block: killed, and what the supervisor starts instead held still."""
    first = ground.pid(program)
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (pid := ground.pid(program)) in (0, first):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
    while not ground.answers():
        assert time.monotonic() < deadline + 60
        time.sleep(0.1)


def refuses(stage: Stage, row: Deployment) -> bool:
    """Tell whether the cluster refuses the worker what its role in teams allows."""
    try:
        stage.worker.read(Ref("v1", "ServiceAccount", stage.namespace, row.name))
    except ClusterError as error:
        return error.code == "permission"
    return False


def names_of(pods: Iterable[Object]) -> set[str]:
    """Names of those pods that are to stay."""
    return {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def names_in(row: Deployment) -> set[str]:
    """Names of the pods that the portal knows of a deployment."""
    return {pod["name"] for pod in Status.objects.get(deployment=row).observed["pods"]}


def back(stage: Stage, row: Deployment, before: str) -> bool:
    """True when the namespace was made again and the deployment serves in it."""
    namespace = stage.ground.read("Namespace", stage.namespace)
    return namespace is not None and namespace["metadata"]["uid"] != before and stage.fresh(row).state == "Running"


def ready(stage: Stage, row: Deployment) -> int:
    """Replicas of which the portal says that they serve."""
    found: int = stage.fresh(row).detail.get("ready_replicas", 0)
    return found


def bare(obj: Object) -> Object:
    """An object as one would install it."""
    kept = {key: value for key, value in obj["metadata"].items() if key in ("name", "labels", "annotations")}
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": kept}
