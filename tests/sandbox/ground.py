"""The lite ground inside the test's own event loop: a real API server on a loopback port, controllers if wanted."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from sandbox.client import ApiError, Client, resource_path
from sandbox.lite.cluster import Cluster
from sandbox.lite.part import listen
from sandbox.lite.run import Settings, serve

T = TypeVar("T")
PATIENCE = 10.0  # seconds


@contextlib.asynccontextmanager
async def lite(*, controllers: bool = True, data: Path | None = None, port: int = 0) -> AsyncIterator[Client]:
    """Run a cluster and yield its administrator's client; with `data` it is kept, else thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = data or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        up: asyncio.Future[Cluster] = asyncio.get_running_loop().create_future()
        settings = Settings(
            folder, controllers=controllers, tls=False, on_ready=lambda _, cluster: up.set_result(cluster)
        )
        server = asyncio.create_task(serve(settings, [listen(port)]))
        await asyncio.wait({server, up}, return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            server.result()
        client = Client.from_kubeconfig(folder / "admin.kubeconfig")
        try:
            yield client
        finally:
            await client.close()
            server.cancel()
            up.result().hub.close()  # ends the watches, which would otherwise be cut off noisily
            await asyncio.gather(server, return_exceptions=True)
            await asyncio.sleep(0.05)


async def until(look: Callable[[], Awaitable[T]], what: str = "") -> T:
    """Look until the answer is true; AssertionError with the last answer when patience is over."""
    end = time.monotonic() + PATIENCE
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < end, f"never seen: {what or look} (last: {found})"
        await asyncio.sleep(0.02)


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


_PLURALS = {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies", "GatewayClass": "gatewayclasses"}
_CLUSTER_WIDE = {"Namespace", "Node", "GatewayClass", "ClusterServingRuntime", "ClusterStorageContainer"}
