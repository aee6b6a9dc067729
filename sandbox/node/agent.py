"""The node agent: registers the node, keeps its lease, and runs the pods bound to it."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from sandbox.client import ApiError, Client, Reflector, resource_path
from sandbox.engine.process import EngineProcess, GpuUse
from sandbox.node import images
from sandbox.node.claims import Claims
from sandbox.node.events import EventRecorder, now_text
from sandbox.node.hub import HubClient
from sandbox.node.machine import Addresses, GpuSet, Node, Pace
from sandbox.node.pod import PodWorker
from sandbox.node.provisioner import Provisioner
from sandbox.node.stores import GOOGLE
from sandbox.nodes import NodeShape, allocatable, capacity, node_object

log = logging.getLogger(__name__)

LEASE_SECONDS, LEASE_RENEW = 40, 10.0
STATUS_RENEW = 60.0
RETRY = 1.0
VERSION = "v1.36.3"
TERMINAL = ("Succeeded", "Failed")


class Agent:
    """One node and the pods on it."""

    def __init__(
        self,
        shape: NodeShape,
        prefix: str,
        client: Client,
        *,
        hub_url: str,
        model_url: str,
        google_url: str = GOOGLE,
        claims: Path | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.shape = shape
        self.prefix = prefix
        self.client = client
        self.ip = shape.address(prefix)
        secure = any(url.startswith("https") for url in (hub_url, model_url))  # loading CAs takes time and memory
        limits = httpx.Limits(max_connections=None)
        http = httpx.AsyncClient(trust_env=False, timeout=30.0, limits=limits, verify=secure)
        self.node = Node(
            shape=shape,
            ip=self.ip,
            client=client,
            events=EventRecorder(client, shape.name),
            hub=HubClient(hub_url, http),
            http=http,
            model_url=model_url,
            pace=pace or Pace(),
            gpus=GpuSet(shape.gpus),
            addresses=Addresses(shape.pod_cidr(prefix)),
            google=google_url,
            claims=Claims(claims),
        )
        self.provisioner = Provisioner(client, self.node.claims)
        self.workers: dict[str, PodWorker] = {}
        self.kubelet_port = 10250
        self._since: dict[str, str] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Run until cancelled; pods end with this process and are taken up again by the next."""
        await self._register()
        await self._take_stock()
        pods = resource_path("v1", "pods")
        selector = f"spec.nodeName={self.shape.name}"
        reflector = Reflector(self.client, pods, on_change=self._pod_changed, fieldSelector=selector)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.node.events.run())
                group.create_task(self._keep_lease())
                group.create_task(self._keep_status())
                group.create_task(reflector.run())
                group.create_task(self.provisioner.run())
        finally:
            await asyncio.gather(*(worker.kill() for worker in self.workers.values()), return_exceptions=True)
            await self.node.http.aclose()

    def pod(self, namespace: str, name: str) -> PodWorker | None:
        """A pod of this node by name."""
        for worker in self.workers.values():
            meta = worker.object["metadata"]
            if meta["namespace"] == namespace and meta["name"] == name:
                return worker
        return None

    def gpu_use(self, index: int) -> tuple[GpuUse, PodWorker, str] | None:
        """What the engine on a card did, its pod and its container; None while nobody holds the card."""
        owner = self.node.gpus.owners[index]
        worker = self.workers.get(owner.uid) if owner is not None else None
        if owner is None or worker is None:
            return None
        container = worker.container(owner.container)
        program = container.program if container is not None else None
        use = program.use() if isinstance(program, EngineProcess) else GpuUse(0.0, 0.0, 0.0, 0)
        return use, worker, owner.container

    def _pod_changed(self, kind: str, pod: dict[str, Any]) -> None:
        uid = pod["metadata"]["uid"]
        worker = self.workers.get(uid)
        if kind == "DELETED":
            if worker is not None:
                del self.workers[uid]
                self._spawn(worker.kill())
        elif worker is not None:
            worker.update(pod)
        elif (pod.get("status") or {}).get("phase") in TERMINAL and not pod["metadata"].get("deletionTimestamp"):
            return
        else:
            self._start(pod)

    def _start(self, pod: dict[str, Any]) -> None:
        worker = PodWorker(self.node, pod, self._forget)
        self.workers[pod["metadata"]["uid"]] = worker
        if pod["metadata"].get("deletionTimestamp"):
            worker.terminating = True
        worker.start()
        if worker.terminating:
            worker.terminate()

    def _forget(self, uid: str) -> None:
        worker = self.workers.pop(uid, None)
        if worker is not None:
            self._spawn(worker.kill())

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _register(self) -> None:
        """Create the Node, or take over the one an earlier agent made; its pod range stays."""
        while True:
            try:
                await self._create_or_update()
            except ApiError as error:
                log.warning("registering %s: %s", self.shape.name, error)
            except httpx.HTTPError as error:
                log.info("registering %s: %s", self.shape.name, error or type(error).__name__)
            else:
                return
            await asyncio.sleep(RETRY)

    async def _create_or_update(self) -> None:
        path = resource_path("v1", "nodes")
        wanted = node_object(self.shape, self.prefix)
        try:
            await self.client.create(path, wanted)
        except ApiError as error:
            if error.status != 409:
                raise
            found = await self.client.get(f"{path}/{self.shape.name}")
            if found["spec"].get("podCIDR") != wanted["spec"]["podCIDR"]:
                log.info("%s keeps its pod range %s", self.shape.name, found["spec"].get("podCIDR"))
                self.node.addresses = Addresses(found["spec"]["podCIDR"])
            await self.client.patch(f"{path}/{self.shape.name}", {"metadata": {"labels": wanted["metadata"]["labels"]}})
        await self._write_status()

    async def _take_stock(self) -> None:
        """Keep the addresses of pods that an earlier agent ran before any new one gets an address."""
        while True:
            try:
                selector = f"spec.nodeName={self.shape.name}"
                listing = await self.client.list(resource_path("v1", "pods"), fieldSelector=selector)
            except (ApiError, httpx.HTTPError) as error:
                log.info("listing pods of %s: %s", self.shape.name, error)
                await asyncio.sleep(RETRY)
                continue
            for pod in listing["items"]:
                self._remember_images(pod)
                address = (pod.get("status") or {}).get("podIP")
                if address and pod["status"].get("phase") not in TERMINAL:
                    self.node.addresses.reserve(pod["metadata"]["uid"], address)
            return

    def _remember_images(self, pod: dict[str, Any]) -> None:
        """What a pod here has run was pulled before."""
        status = pod.get("status") or {}
        pulled = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
        specs = {spec["name"]: spec for key in ("initContainers", "containers") for spec in pod["spec"].get(key) or []}
        for entry in pulled:
            if entry.get("imageID") and entry["name"] in specs:
                self.node.images[images.parse(specs[entry["name"]]["image"]).canonical] = None

    async def _keep_status(self) -> None:
        while True:
            await asyncio.sleep(STATUS_RENEW)
            try:
                await self._write_status()
            except (ApiError, httpx.HTTPError) as error:
                log.warning("status of %s: %s", self.shape.name, error)

    async def _write_status(self) -> None:
        path = resource_path("v1", "nodes", name=self.shape.name)
        await self.client.patch_status(path, {"status": self._status()})

    def _status(self) -> dict[str, Any]:
        stamp = now_text()
        kinds = {
            "MemoryPressure": ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            "PIDPressure": ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
        }
        conditions = [
            {"type": kind, "status": value, "reason": reason, "message": text, "lastHeartbeatTime": stamp,
             "lastTransitionTime": self._since.setdefault(kind, stamp)}
            for kind, (value, reason, text) in kinds.items()
        ]  # fmt: skip
        return {
            "capacity": capacity(self.shape),
            "allocatable": allocatable(self.shape),
            "addresses": [
                {"type": "InternalIP", "address": self.ip},
                {"type": "Hostname", "address": self.shape.name},
            ],
            "conditions": conditions,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.kubelet_port}},
            "nodeInfo": {
                "machineID": self.shape.name,
                "systemUUID": self.shape.name,
                "bootID": self.shape.name,
                "kernelVersion": "6.8.0-sandbox",
                "osImage": "Slipway sandbox (simulated GPUs)",
                "containerRuntimeVersion": "containerd://2.1.4-sandbox",
                "kubeletVersion": VERSION,
                "kubeProxyVersion": VERSION,
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
            "images": [],
        }

    async def _keep_lease(self) -> None:
        """Renew the node's lease every ten seconds."""
        path = resource_path("coordination.k8s.io/v1", "leases", "kube-node-lease")
        while True:
            spec = {
                "holderIdentity": self.shape.name,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
            try:
                await self._renew(path, spec)
            except (ApiError, httpx.HTTPError) as error:
                log.warning("lease of %s: %s", self.shape.name, error)
            await asyncio.sleep(LEASE_RENEW)

    async def _renew(self, path: str, spec: dict[str, Any]) -> None:
        try:
            await self.client.patch(f"{path}/{self.shape.name}", {"spec": spec})
        except ApiError as error:
            if error.status != 404:
                raise
            meta = {"name": self.shape.name, "namespace": "kube-node-lease"}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
            await self.client.create(path, lease)
