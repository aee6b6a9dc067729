"""A node agent on a lite cluster, inside the test's own loop, and pods for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from sandbox.asgi import listen
from sandbox.client import ApiError, Client, resource_path
from sandbox.hub.app import Hub
from sandbox.lite.testing import running_cluster
from sandbox.node import open_ports
from sandbox.node.agent import Agent
from sandbox.node.machine import Pace
from sandbox.nodes import SHAPES

NODE = "gpu-l4-1"
NAMESPACE = "team-a"
PREFIX = f"127.{100 + os.getpid() % 150}"
PATIENCE = 40.0
FAST = Pace(speed=2000.0, backoff_first=0.3, backoff_most=2.0, restart=0.02, retry=0.1)
VLLM, INITIALIZER = "vllm/vllm-openai:v0.32.0", "kserve/storage-initializer:v0.20.0"


@dataclass
class Ground:
    """A cluster with one node, a client, and the agent."""

    client: Client
    agent: Agent
    hub_url: str
    task: asyncio.Task[None]

    async def make(self, pod: dict[str, Any]) -> str:
        """Create a pod; returns its name."""
        await self.client.create(resource_path("v1", "pods", NAMESPACE), pod)
        return str(pod["metadata"]["name"])

    async def pod(self, name: str) -> dict[str, Any] | None:
        """Read a pod, None when it is gone."""
        try:
            return await self.client.get(resource_path("v1", "pods", NAMESPACE, name))
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    async def wait(self, name: str, seen: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until a pod looks as wanted; returns it."""

        async def look() -> dict[str, Any] | None:
            pod = await self.pod(name)
            return pod if pod is not None and seen(pod) else None

        found = await until(look, f"pod {name}")
        assert found is not None
        return found

    async def gone(self, name: str) -> None:
        """Wait until a pod is no longer there."""

        async def look() -> bool:
            return await self.pod(name) is None

        await until(look, f"pod {name} gone")

    async def delete(self, name: str, grace: int | None = None) -> None:
        """Delete a pod."""
        body = None if grace is None else {"gracePeriodSeconds": grace}
        await self.client.delete(resource_path("v1", "pods", NAMESPACE, name), body)

    async def events(self, name: str) -> list[tuple[str, str]]:
        """(reason, message) of a pod's events."""
        listing = await self.client.list(resource_path("v1", "events", NAMESPACE))
        chosen = [item for item in listing["items"] if item["involvedObject"]["name"] == name]
        return [(item["reason"], item["message"]) for item in chosen]

    async def heard(self, name: str, reason: str, words: str = "") -> str:
        """Wait for an event of a pod; returns its message."""

        async def look() -> str | None:
            events = await self.events(name)
            return next((text for found, text in events if found == reason and words in text), None)

        message: str = await until(look, f"event {reason} {words}")
        return message

    async def logs(self, name: str, container: str, **query: str) -> httpx.Response:
        """Read a log from the node's own port."""
        url = f"https://{self.agent.ip}:{self.agent.kubelet_port}/containerLogs/{NAMESPACE}/{name}/{container}"
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            return await http.get(url, params=query)


async def until(look: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Look until the answer is true."""
    end = time.monotonic() + PATIENCE
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < end, f"never seen: {what}"
        await asyncio.sleep(0.03)


@contextlib.asynccontextmanager
async def ground(kubeconfig: Path, *, pace: Pace = FAST) -> AsyncIterator[Ground]:
    """Run a hub and the node agent against a cluster."""
    client = Client.from_kubeconfig(kubeconfig)
    hub = await listen(Hub(), "127.0.0.1", 0)
    hub_url = f"http://127.0.0.1:{hub.address[1]}"
    with contextlib.suppress(ApiError):
        meta = {"name": NAMESPACE}
        await client.create(
            resource_path("v1", "namespaces"), {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}
        )
    agent, task, ports = await start_agent(client, hub_url, pace)
    run = Ground(client, agent, hub_url, task)
    try:
        yield run
    finally:
        for port in [*ports, hub]:
            port.close()
        run.task.cancel()
        await asyncio.gather(run.task, return_exceptions=True)
        await client.close()


async def start_agent(client: Client, hub_url: str, pace: Pace = FAST) -> tuple[Agent, asyncio.Task[None], list[Any]]:
    """Start an agent; returns it, its task and its open ports."""
    agent = Agent(SHAPES[NODE], PREFIX, client, hub_url=hub_url, model_url="http://127.0.0.1:1", pace=pace)
    ports = await open_ports(agent, 0)
    return agent, asyncio.create_task(agent.run()), list(ports)


@contextlib.contextmanager
def cluster() -> Iterator[Path]:
    """A lite cluster without controllers; yields its kubeconfig."""
    with running_cluster(controllers=False) as running:
        yield running.kubeconfig


def engine_pod(
    name: str,
    *,
    source: str = "hf://Qwen/Qwen2.5-7B-Instruct",
    args: tuple[str, ...] = (),
    gpus: int = 1,
    memory: str = "32Gi",
    image: str = VLLM,
    init_env: list[dict[str, Any]] | None = None,
    env: list[dict[str, Any]] | None = None,
    startup_failures: int = 60,
) -> dict[str, Any]:
    """A pod as KServe makes it, bound to the node."""
    probe = {"httpGet": {"path": "/v1/models", "port": 8080}, "periodSeconds": 10, "timeoutSeconds": 5}
    resources = {"cpu": "4", "memory": memory, "nvidia.com/gpu": str(gpus)}
    mount = {"mountPath": "/mnt/models", "name": "kserve-provision-location"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodeName": NODE,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "initContainers": [
                {
                    "name": "storage-initializer",
                    "image": INITIALIZER,
                    "args": [source, "/mnt/models"],
                    "env": init_env or [],
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": [mount],
                }
            ],
            "containers": [
                {
                    "name": "kserve-container",
                    "image": image,
                    "command": ["python", "-m", "vllm.entrypoints.openai.api_server"],
                    "args": ["--port=8080", "--served-model-name=chat", "--model=/mnt/models", *args],
                    "env": env or [],
                    "ports": [{"containerPort": 8080, "name": "http1"}],
                    "resources": {"requests": resources, "limits": resources},
                    "startupProbe": {**probe, "initialDelaySeconds": 30, "failureThreshold": startup_failures},
                    "readinessProbe": probe,
                    "volumeMounts": [{**mount, "readOnly": True}],
                }
            ],
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "volumes": [{"name": "kserve-provision-location", "emptyDir": {}}],
        },
    }


def main_status(pod: dict[str, Any]) -> dict[str, Any]:
    """The status of the engine's container, empty before there is one."""
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    first: dict[str, Any] = statuses[0]
    return first


def init_status(pod: dict[str, Any]) -> dict[str, Any]:
    """The status of the storage initializer."""
    statuses = pod.get("status", {}).get("initContainerStatuses") or [{}]
    first: dict[str, Any] = statuses[0]
    return first


def waiting_reason(status: dict[str, Any]) -> str | None:
    """Why a container waits."""
    state: dict[str, Any] = status.get("state") or {}
    return (state.get("waiting") or {}).get("reason")


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether the Ready condition is true."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
