"""Scenes played on a lite cluster that runs with its controllers, and short ways to set them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from sandbox.client import ApiError, Client, resource_path
from sandbox.lite.testing import RunningCluster, running_cluster

T = TypeVar("T")
PATIENCE = 30.0  # seconds


class Ground:
    """One cluster for the tests of a module."""

    def __init__(self, cluster: RunningCluster) -> None:
        self.cluster = cluster

    def play(self, scene: Callable[[Client], Awaitable[None]]) -> None:
        """Play a scene, then take away every InferenceService, Deployment, pod and Node it left."""

        async def whole() -> None:
            client = Client.from_kubeconfig(self.cluster.kubeconfig)
            try:
                try:
                    await scene(client)
                finally:
                    await sweep(client)
            finally:
                await client.close()

        asyncio.run(whole())


@contextlib.contextmanager
def shared(*, controllers: bool = True) -> Iterator[Ground]:
    """Run one cluster for several scenes."""
    with running_cluster(controllers=controllers) as cluster:
        yield Ground(cluster)


async def sweep(client: Client) -> None:
    """Leave nothing that runs, as if a kubelet had stopped every pod at once."""
    for api, plural in (
        ("serving.kserve.io/v1beta1", "inferenceservices"),
        ("serving.kserve.io/v1alpha2", "llminferenceservices"),
        ("leaderworkerset.x-k8s.io/v1", "leaderworkersets"),
        ("apps/v1", "statefulsets"),
        ("apps/v1", "deployments"),
    ):
        for item in await items(client, plural, api=api):
            meta = item["metadata"]
            with contextlib.suppress(ApiError):
                await client.delete(resource_path(api, plural, meta["namespace"], meta["name"]))
    for item in await items(client, "nodes"):
        await client.delete(f"/api/v1/nodes/{item['metadata']['name']}")

    async def swept() -> bool:
        pods = await items(client, "pods")
        for pod in pods:
            with contextlib.suppress(ApiError):
                await client.delete(
                    resource_path("v1", "pods", pod["metadata"]["namespace"], pod["metadata"]["name"]),
                    {"gracePeriodSeconds": 0},
                )
        return not pods

    await until(swept, "no pod left")


async def until(look: Callable[[], Awaitable[T]], what: str = "") -> T:
    """Look until the answer is true; AssertionError with the last answer when patience is over."""
    end = time.monotonic() + PATIENCE
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < end, f"never seen: {what or look} (last: {found})"
        await asyncio.sleep(0.05)


async def maybe(client: Client, path: str) -> dict[str, Any] | None:
    """Read an object that may not be there."""
    try:
        return await client.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        return None


async def create(client: Client, *objects: dict[str, Any], namespace: str = "") -> None:
    """Create objects; their collections follow from kind and namespace."""
    for obj in objects:
        plural = _PLURALS.get(obj["kind"], obj["kind"].lower() + "s")
        scope = None if obj["kind"] in _CLUSTER_WIDE else namespace or obj["metadata"].get("namespace")
        meta = {**obj["metadata"], **({"namespace": scope} if scope else {})}
        await client.create(resource_path(obj["apiVersion"], plural, scope), {**obj, "metadata": meta})


async def ensure_namespace(client: Client, name: str) -> None:
    """Create a namespace unless an earlier scene did."""
    if await maybe(client, f"/api/v1/namespaces/{name}") is None:
        await create(client, namespace(name))


def namespace(name: str, **labels: str) -> dict[str, Any]:
    """Return a Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def node(name: str, gpus: int = 8, product: str = "NVIDIA-H100-80GB-HBM3") -> dict[str, Any]:
    """Return a ready Node with GPUs, as a kubelet and the device plugin would describe it."""
    amounts = {"cpu": "128", "memory": "1024Gi", "pods": "110", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}},
        "spec": {},
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2999-01-01T00:00:00Z"}],
        },
    }


async def add_node(client: Client, body: dict[str, Any]) -> None:
    """Create a Node and write its status."""
    await client.create("/api/v1/nodes", body)
    await client.patch_status(f"/api/v1/nodes/{body['metadata']['name']}", {"status": body["status"]})


async def items(client: Client, plural: str, namespace: str | None = None, api: str = "v1") -> list[dict[str, Any]]:
    """List a collection."""
    found: list[dict[str, Any]] = (await client.list(resource_path(api, plural, namespace)))["items"]
    return found


def deployment(name: str = "chat", *, replicas: int = 1, gpus: int = 1, image: str = "one", **spec: Any) -> Any:
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    container = {"name": "c", "image": image, "resources": {"limits": limits}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
            **spec,
        },
    }


def pod(name: str, **spec: Any) -> Any:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}], **spec},
    }


def ready() -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {"phase": "Running", "podIP": "127.0.0.1", "conditions": [condition]}


async def come_up(client: Client, where: str) -> None:
    """Be the kubelet: every bound pod is ready at once, every leaving one lets go."""
    for item in await items(client, "pods", where):
        meta = item["metadata"]
        path = f"/api/v1/namespaces/{where}/pods/{meta['name']}"
        with contextlib.suppress(ApiError):
            if meta.get("deletionTimestamp"):
                await client.delete(path, {"gracePeriodSeconds": 0})
            elif item["spec"].get("nodeName") and item["status"].get("phase") == "Pending":
                await client.patch_status(path, {"status": ready()})


async def events_of(client: Client, where: str, reason: str) -> list[str]:
    return [item["message"] for item in await items(client, "events", where) if item["reason"] == reason]


_PLURALS = {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies", "GatewayClass": "gatewayclasses"}
_CLUSTER_WIDE = {"Namespace", "Node", "GatewayClass", "ClusterServingRuntime", "ClusterStorageContainer"}
