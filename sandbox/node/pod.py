"""One pod on this node, from admission to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from sandbox.client import ApiError, resource_path
from sandbox.engine.boot import ModelFiles
from sandbox.node import programs, status
from sandbox.node.container import Container
from sandbox.node.environment import Resolver
from sandbox.node.events import now_text
from sandbox.node.hub import HubError
from sandbox.node.images import Weights
from sandbox.node.initializer import HF_URI, PLACES
from sandbox.node.machine import GpuOwner, Node
from sandbox.node.stores import StoreError, Stores
from sandbox.node.volumes import found_in, mount_at, path_in

log = logging.getLogger(__name__)

PATCH_PAUSE = 0.05  # changes this close together make one patch
KILL_MARGIN = 0.5


class PodWorker:
    """Runs one pod and keeps its status on the API server."""

    def __init__(self, node: Node, pod: dict[str, Any], done: Callable[[str], None]) -> None:
        self.node = node
        self.object = pod
        self.uid: str = pod["metadata"]["uid"]
        self.spec: dict[str, Any] = pod["spec"]
        self.restart_policy: str = self.spec.get("restartPolicy", "Always")
        self.has_inits = bool(self.spec.get("initContainers"))
        self.path = resource_path("v1", "pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.ip = ""
        self.terminating = False
        self._finished = False  # every container that counts has ended for good
        self.volumes: dict[tuple[str, str], ModelFiles] = {}  # by the volume's name and the place in it
        # Volumes that are images, and what was found in those that are there.
        self.image_volumes = {item["name"]: item["image"] for item in self.spec.get("volumes") or [] if "image" in item}
        self.mounted: dict[str, Weights | None] = {}
        # Volumes that are claims, by their names.
        self.claims = {
            item["name"]: item["persistentVolumeClaim"]["claimName"]
            for item in self.spec.get("volumes") or []
            if "persistentVolumeClaim" in item
        }
        self.inits = [Container(self, spec, init=True) for spec in self.spec.get("initContainers") or []]
        self.containers = [Container(self, spec, init=False) for spec in self.spec["containers"]]
        self._done = done
        self._start_time = (pod.get("status") or {}).get("startTime") or now_text()
        self._work: asyncio.Task[None] | None = None
        self._dirty = asyncio.Event()
        self._publisher: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._written: dict[str, Any] = {}
        self._contradicted = False  # somebody else has written this status since
        self._restored = False

    @property
    def ending(self) -> bool:
        """Whether sidecars stay down once they are."""
        return self.terminating or self._finished

    def start(self) -> None:
        """Begin running, or go on where an earlier agent left off."""
        self._restore()
        self._publisher = asyncio.create_task(self._publish())
        self._work = asyncio.create_task(self._run())
        self._work.add_done_callback(self._look_at_end)

    def update(self, pod: dict[str, Any]) -> None:
        """The object changed; a deletion timestamp begins the end.

        Whoever gave this node up while the API server was silent called the pod not ready: this agent knows better.
        """
        self.object = pod
        if pod["metadata"].get("deletionTimestamp"):
            self.terminate()
        elif self._written and _ready(pod.get("status") or {}) != _ready(self._body(ending=False)):
            # Only noted: a write may be under way, and its answer would count as the last word.
            self._contradicted = True
            self.changed()

    def terminate(self) -> None:
        """End the pod within its grace period and remove the object."""
        if self._ending is None:
            self.terminating = True
            self._ending = asyncio.create_task(self._end())

    async def kill(self) -> None:
        """The object is gone, or this node is: stop at once."""
        tasks = [task for task in (self._work, self._publisher, self._ending) if task is not None]
        current = asyncio.current_task()
        for task in tasks:
            if task is not current:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not current), return_exceptions=True)
        self.node.gpus.release(self.uid)
        self.node.addresses.release(self.uid)

    def _look_at_end(self, work: asyncio.Task[None]) -> None:
        """A fault of this agent must not look like a pod that hangs."""
        error = None if work.cancelled() else work.exception()
        if error is not None:
            log.error("running %s", self.path, exc_info=error)
            text = f"Error syncing pod: {type(error).__name__}: {error}"
            self.node.events.record(self.object, "Warning", "FailedSync", text)

    def changed(self) -> None:
        """Something in the status changed."""
        self._dirty.set()

    def resolver(self) -> Resolver:
        """A fresh reader of secrets and config maps for one start of a container."""
        return Resolver(self.node.client, self.object, self.node.shape.name, self.node.ip, self.ip)

    def container(self, name: str) -> Container | None:
        """Find a container, init containers included."""
        return next((entry for entry in [*self.inits, *self.containers] if entry.name == name), None)

    def store(self, spec: Mapping[str, Any], path: str, files: ModelFiles) -> None:
        """Put a model into the volume that a container has mounted at `path`."""
        mount = mount_at(spec, path)
        if mount is None:
            return
        if (claim := self.claims.get(mount["name"])) is not None:
            self.node.claims.write(self.object["metadata"]["namespace"], claim, path_in(mount, path), files)
        else:
            self.volumes[mount["name"], path_in(mount, path)] = files

    def files_at(self, spec: Mapping[str, Any], path: str) -> ModelFiles | None:
        """The model that a container finds at `path`."""
        mount = mount_at(spec, path)
        if mount is None:
            return None
        if (claim := self.claims.get(mount["name"])) is not None:
            return self.node.claims.read(self.object["metadata"]["namespace"], claim, path_in(mount, path))
        weights = self.mounted.get(mount["name"])
        if weights is not None:
            return found_in(weights, mount, path)
        here = path_in(mount, path)
        found = self.volumes.get((mount["name"], here))
        if found is None:  # one file of a folder, which a GGUF model is
            folder, _, name = here.rpartition("/")
            beside = self.volumes.get((mount["name"], folder or "/"))
            found = beside if beside is not None and name in beside.files else None
        return found

    def _restore(self) -> None:
        old = self.object.get("status") or {}
        if not old.get("podIP"):
            return
        self._restored = True
        for containers, key in ((self.inits, "initContainerStatuses"), (self.containers, "containerStatuses")):
            known = {entry["name"]: entry for entry in old.get(key) or []}
            for container in containers:
                if container.name in known:
                    container.restore(known[container.name])

    async def _run(self) -> None:
        if self.terminating or not await self._admit():
            return
        self.ip = self.node.addresses.take(self.uid, (self.object.get("status") or {}).get("podIP"))
        self.changed()
        sidecars: list[asyncio.Task[int]] = []
        try:
            if await self._initialize(sidecars):
                await self._run_containers()
                self._finished = True
                for container in self.inits:
                    if container.program is not None:
                        container.program.terminate()
                await asyncio.gather(*sidecars)
        finally:
            for task in sidecars:
                task.cancel()
            await asyncio.gather(*sidecars, return_exceptions=True)

    async def _initialize(self, sidecars: list[asyncio.Task[int]]) -> bool:
        """Run init containers one after the other; sidecars go on beside what follows. False when one failed."""
        for container in self.inits:
            if container.sidecar:
                sidecars.append(asyncio.create_task(container.run()))
                await container.up.wait()
                continue
            if container.state.exit_code == 0:
                await self._refill(container)
                continue
            code = await container.run()
            if code != 0:
                return False
        return True

    async def _run_containers(self) -> None:
        for container in self.containers:
            if "waiting" in container.state.state and not container.state.restarts:
                container.state.state = status.waiting("ContainerCreating")
        self.changed()
        await asyncio.gather(*(self._supervise(container) for container in self.containers))

    async def _supervise(self, container: Container) -> None:
        if container.state.exit_code == 0 and self.restart_policy != "Always":
            return
        await container.run()

    async def _admit(self) -> bool:
        """Hand out the cards; the kubelet fails a pod that it cannot serve."""
        meta = self.object["metadata"]
        for container in [*self.inits, *self.containers]:
            wanted = programs.gpus_of(container.spec)
            owner = GpuOwner(self.uid, meta["namespace"], meta["name"], container.name)
            free = self.node.gpus.free
            cards = self.node.gpus.take(wanted, owner)
            if cards is None:
                self.node.gpus.release(self.uid)
                text = (
                    "Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. Requested: "
                    f"{wanted}, Available: {free}, which is unexpected"
                )
                await self._fail("UnexpectedAdmissionError", text)
                return False
            container.gpus = cards
        return True

    async def _fail(self, reason: str, message: str) -> None:
        self.node.events.record(self.object, "Warning", reason, message)
        body = {"phase": "Failed", "reason": reason, "message": f"Pod was rejected: {message}"}
        await self._patch(body | {"startTime": self._start_time})
        if self._publisher is not None:
            self._publisher.cancel()

    async def _refill(self, init: Container) -> None:
        """After a restart of this agent a volume's content is read again; the pod's disk would have kept it."""
        arguments = programs.words(init.spec, "args", {})
        for source, place in zip(arguments[::2], arguments[1::2], strict=False):
            match = HF_URI.fullmatch(source)
            if match is None and not source.startswith(PLACES):
                continue
            environment = await self.resolver().environment(init.spec)
            while True:
                try:
                    if match is None:
                        files = await Stores(self.node.http, log.info, self.node.google).read(source, environment)
                    else:
                        token = environment.get("HF_TOKEN")
                        files = await self.node.hub.files(f"{match[1]}/{match[2]}", match[3] or "main", token)
                except (HubError, StoreError) as error:
                    log.warning("reading %s again for %s: %s", source, self.path, error)
                    await asyncio.sleep(self.node.pace.retry)
                else:
                    self.store(init.spec, place, files)
                    break

    async def _end(self) -> None:
        """SIGTERM, grace, SIGKILL, last status, and the object's removal."""
        meta = self.object["metadata"]
        grace = float(meta.get("deletionGracePeriodSeconds") or self.spec.get("terminationGracePeriodSeconds") or 30)
        self.restart_policy = "Never"
        for container in [*self.inits, *self.containers]:
            container.state.ready = False if container in self.containers else container.state.ready
        self.changed()
        busy = [container for container in [*self.inits, *self.containers] if container.program is not None]
        await asyncio.gather(*(container.stop(grace) for container in busy))
        if self._work is not None:
            if busy:
                await asyncio.wait({self._work}, timeout=max(KILL_MARGIN, grace))
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        for container in [*self.inits, *self.containers]:
            if container.state.is_running:
                started = container.state.state["running"]["startedAt"]
                code = status.terminated(137, "Error", started, now_text(), container.state.container_id)
                container.state.state = code
        await self._patch(self._body(ending=True))
        await self._remove()

    async def _remove(self) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        while True:
            try:
                await self.node.client.delete(self.path, options)
            except ApiError as error:
                if error.status not in (404, 409):
                    log.warning("removing %s: %s", self.path, error)
                    await asyncio.sleep(self.node.pace.restart)
                    continue
            except httpx.HTTPError as error:
                log.warning("removing %s: %s", self.path, error)
                await asyncio.sleep(self.node.pace.restart)
                continue
            break
        self._done(self.uid)

    async def _publish(self) -> None:
        """Patch the status whenever it differs from what was last written."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(PATCH_PAUSE)
            self._dirty.clear()
            if self._contradicted:
                self._contradicted, self._written = False, {}
            if not await self._patch(self._body(ending=False)):
                await asyncio.sleep(self.node.pace.restart)
                self._dirty.set()

    def _body(self, *, ending: bool) -> dict[str, Any]:
        inits = [container.state for container in self.inits]
        containers = [container.state for container in self.containers]
        old = (self.object.get("status") or {}).get("conditions") or []
        conditions = status.conditions(
            inits, containers, self._written.get("conditions") or old, sandbox_ready=bool(self.ip), now=now_text()
        )
        body: dict[str, Any] = {
            "phase": status.phase(inits, containers, self.restart_policy, ending=ending),
            "conditions": conditions,
            "hostIP": self.node.ip,
            "hostIPs": [{"ip": self.node.ip}],
            "startTime": self._start_time,
            "containerStatuses": [state.body() for state in containers],
            "qosClass": status.qos_class(self.spec),
        }
        if inits:
            body["initContainerStatuses"] = [state.body() for state in inits]
        if self.ip:
            body |= {"podIP": self.ip, "podIPs": [{"ip": self.ip}]}
        return body

    async def _patch(self, body: dict[str, Any]) -> bool:
        """Write a status; False when it must be tried again."""
        if body == self._written:
            return True
        try:
            await self.node.client.patch_status(self.path, {"metadata": {"uid": self.uid}, "status": body})
        except ApiError as error:
            if error.status in (404, 409):
                return True  # the object is gone or another's: the watch will say so
            log.warning("status of %s: %s", self.path, error)
            return False
        except httpx.HTTPError as error:
            log.warning("status of %s: %s", self.path, error or type(error).__name__)
            return False
        self._written = body
        return True


def _ready(found: Mapping[str, Any]) -> str:
    return next((str(item["status"]) for item in found.get("conditions") or [] if item["type"] == "Ready"), "")
