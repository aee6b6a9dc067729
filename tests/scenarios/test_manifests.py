"""Every case whose objects are kept as files, on a cluster: taken as it is, and KServe makes its children of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from deployments.kube.cluster import Cluster
from deployments.kube.errors import ClusterError
from deployments.kube.kinds import Ref
from deployments.manifests import SERVICES, TeamWish, Wish, build_team
from deployments.preflight.objects import GPU_PREFIX
from tests.deployments import manifest_cases as cases
from tests.scenarios import timings
from tests.scenarios.grounds import Ground, Object

# No quota, no pods: this is about objects, and nothing is to start.
NO_GPUS = {f"{GPU_PREFIX}{name}": 0 for name in ("gpu", "gpu.shared", "mig-3g.40gb")}
# The real ground has KServe's own controllers and no KEDA.
NOT_THERE = {"real": {"ScaledObject"}, "lite": set()}


@pytest.fixture
def worker(ground: Ground) -> Iterator[Cluster]:
    """The worker's door."""
    door = Cluster.from_kubeconfig(ground.kubeconfig_of("worker"))
    yield door
    door.close()


@pytest.fixture
def namespace(ground: Ground, worker: Cluster) -> Iterator[str]:
    """A namespace as the worker makes it for a team, without quota of any GPU."""
    name = f"cases-{uuid4().hex[:5]}"
    # First what gives the worker its rights in the namespace.
    first = {"Namespace": 0, "RoleBinding": 1}
    objects = build_team(TeamWish("install", "cases", name, NO_GPUS, presets=True))
    for obj in sorted(objects, key=lambda obj: first.get(obj["kind"], 2)):
        create(worker, obj)
    yield name
    for kind in ("InferenceService", "LLMInferenceService"):
        for row in ground.list(kind, name):
            ground.remove(kind, row["metadata"]["name"], name)
    ground.remove("Namespace", name)


def create(worker: Cluster, obj: Object) -> None:
    """Make one object; what the worker bound itself to a moment ago the API server may not know yet."""
    deadline = time.monotonic() + 20
    while True:
        try:
            worker.create(obj)
            return
        except ClusterError as error:
            if error.code != "permission" or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


@pytest.mark.timeout(300)
def test_every_case_is_taken_and_has_its_children(ground: Ground, worker: Cluster, namespace: str):
    wishes = {name: placed(name, wish, namespace) for name, wish in cases.WISHES.items()}
    # KServe makes no roles for an account whose keys are not there.
    for key in cases.SECRETS:
        body = {"metadata": {"name": key, "namespace": namespace}, "stringData": {"HF_TOKEN": "hf_x"}}
        create(worker, {"apiVersion": "v1", "kind": "Secret", **body})
    begun = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: apply(ground, worker, name, wishes[name]), wishes))
    timings.took("every kept case: applied", ground.name, time.monotonic() - begun)

    wanted = {
        (kind, child)
        for wish in wishes.values()
        for kind, names in cases.children(wish).items()
        for child in names
        if kind not in NOT_THERE[ground.name]
    }
    kinds = {kind for kind, _ in wanted}
    deadline = time.monotonic() + 150
    while missing := wanted - there(ground, namespace, kinds):
        assert time.monotonic() < deadline, f"{sorted(missing)}: {says(ground, namespace)}"
        time.sleep(0.5)
    timings.took("every kept case: its children", ground.name, time.monotonic() - begun)
    assert all_without_gpus(ground, namespace)


def apply(ground: Ground, worker: Cluster, name: str, wish: Wish) -> None:
    """Write one case as a worker does: what is new is created, everything after that is applied."""
    for obj in cases.of_deployment(name, wish):
        if obj["kind"] in NOT_THERE[ground.name]:
            continue
        first = made(worker, obj)["metadata"]
        if obj["kind"] in SERVICES:
            again = worker.apply(obj, first["uid"])["metadata"]
            assert again["generation"] == first["generation"], (
                f"{Ref.of(obj)}: nothing in it is other than what is there"
            )


def there(ground: Ground, namespace: str, kinds: set[str]) -> set[tuple[str, str]]:
    """Kind and name of what is in the namespace."""
    return {(kind, row["metadata"]["name"]) for kind in kinds for row in ground.list(kind, namespace)}


def placed(name: str, wish: Wish, namespace: str) -> Wish:
    """The wish of a case under a name of its own in this namespace."""
    return dataclasses.replace(wish, name=name, namespace=namespace, deployment_id=name)


def made(worker: Cluster, obj: Object) -> Object:
    """Create an object; at first a worker's rights in a new namespace take their moment to be known."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return dict(worker.create(obj))
        except ClusterError as error:
            if error.status != 403 or time.monotonic() > deadline:
                raise AssertionError(f"{Ref.of(obj)}: {error.message}") from error
            time.sleep(0.25)


def all_without_gpus(ground: Ground, namespace: str) -> bool:
    """The endpoint picker of a disaggregated deployment is a pod too, and takes none."""
    limits = [
        container.get("resources", {}).get("limits", {})
        for pod in ground.list("Pod", namespace)
        for container in pod["spec"]["containers"]
    ]
    return not any(name.startswith(GPU_PREFIX) for amounts in limits for name in amounts)


def says(ground: Ground, namespace: str) -> list[str]:
    """What KServe says of services that are not ready, for whoever looks for what is missing."""
    rows = [row for kind in ("InferenceService", "LLMInferenceService") for row in ground.list(kind, namespace)]
    return [
        f"{row['metadata']['name']} {condition['type']}: {condition.get('message', '')}"
        for row in rows
        for condition in row.get("status", {}).get("conditions", [])
        if condition["status"] == "False" and condition.get("message")
    ]
