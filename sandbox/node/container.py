"""One container: pulled, configured, run, probed, restarted with back-off, ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from sandbox.node import probes, programs, puller
from sandbox.node.environment import ConfigError
from sandbox.node.events import now_text
from sandbox.node.logs import ContainerLogs
from sandbox.node.probes import Probe
from sandbox.node.status import ContainerState, running, terminated, waiting
from sandbox.node.volumes import mount_error

if TYPE_CHECKING:
    from sandbox.node.pod import PodWorker

BACKOFF_RESET = 600.0  # seconds a container must run for its back-off to be forgotten
KILLED = 137


class Program(Protocol):
    """What runs in a container."""

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed it for its memory."""

    async def run(self) -> int:
        """Run to the end and return the exit status."""

    def terminate(self) -> None:
        """SIGTERM."""


class Container:
    """One container of a pod."""

    def __init__(self, pod: PodWorker, spec: dict[str, Any], *, init: bool) -> None:
        self.pod = pod
        self.spec = spec
        self.init = init
        self.sidecar = init and spec.get("restartPolicy") == "Always"
        self.serves = not init or self.sidecar  # is probed for readiness
        self.up = asyncio.Event()  # it has started, its startup probe included
        self.name: str = spec["name"]
        self.field = f"{'initContainers' if init else 'containers'}{{{self.name}}}"
        self.state = ContainerState(self.name, spec["image"], sidecar=self.sidecar)
        self.state.state = waiting("PodInitializing" if not init and pod.has_inits else "ContainerCreating")
        self.logs = ContainerLogs()
        self.gpus: list[int] = []
        self.program: Program | None = None
        self._backoff = 0.0
        self._unhealthy: str | None = None

    async def run(self) -> int:
        """Run until it need not be restarted: an init container until success, others as the pod's policy says."""
        while True:
            code = await self._once()
            if not self._restarts(code):
                return code
            await self._back_off()
            self.state.restarts += 1

    def _restarts(self, code: int) -> bool:
        policy = self.pod.restart_policy
        if self.sidecar:
            return not self.pod.ending
        if self.init:
            return code != 0 and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    async def _once(self) -> int:
        """Start it once and wait for its end; returns the exit status."""
        repository = await puller.pull(
            self.pod.node, self.pod.object, self.spec, self.state, self.field, self.pod.changed
        )
        await self._mount_images()
        environment = await self._configure()
        log = self.logs.start()
        self.state.new_id()
        program = programs.make(self, repository, environment, log)
        self._event("Normal", "Created", f"Created container: {self.name}")
        self._event("Normal", "Started", f"Started container {self.name}")
        started, begun = now_text(), time.monotonic()
        self.state.state = running(started)
        startup = probes.read(self.spec.get("startupProbe"), self.spec)
        self.state.started = startup is None
        self.state.ready = self.serves and startup is None and "readinessProbe" not in self.spec
        if startup is None:
            self.up.set()
        self.program = program
        self.pod.changed()
        work = asyncio.ensure_future(program.run())
        health = asyncio.ensure_future(self._watch_health(startup, work))
        try:
            code = await self._end_of(work)
        finally:
            health.cancel()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            self.program = None
            log.close()
        self._ended(code, started, program.out_of_memory)
        if time.monotonic() - begun > BACKOFF_RESET:
            self._backoff = 0.0
        return code

    async def _end_of(self, work: asyncio.Future[int]) -> int:
        """The exit status; a program cancelled by its probes was killed."""
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.cancelled() and self._unhealthy is not None:
                return KILLED
            raise

    def _ended(self, code: int, started: str, out_of_memory: bool) -> None:
        reason = "OOMKilled" if out_of_memory else "Completed" if code == 0 else "Error"
        message = None
        log = self.logs.current
        if code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError" and log is not None:
            message = log.tail()
        self.state.state = terminated(code, reason, started, now_text(), self.state.container_id, message)
        self.state.ready = not self.serves and code == 0
        self.state.started = False
        self._unhealthy = None
        self.pod.changed()

    async def _mount_images(self) -> None:
        """Bring the images that it mounts as volumes; it waits while one, or the folder of one, is not to be had."""
        for mount in self.spec.get("volumeMounts") or []:
            source = self.pod.image_volumes.get(mount["name"])
            if source is None:
                continue
            spec = {"image": source.get("reference", ""), "imagePullPolicy": source.get("pullPolicy")}
            node, pod = self.pod.node, self.pod
            repository = await puller.pull(node, pod.object, spec, self.state, self.field, pod.changed, volume=True)
            while (error := mount_error(repository, mount)) is not None:
                self.state.state = waiting("CreateContainerError", error)
                self._event("Warning", "Failed", f"Error: {error}")
                pod.changed()
                await asyncio.sleep(node.pace.retry)
            pod.mounted[mount["name"]] = repository.weights

    async def _configure(self) -> dict[str, str]:
        """Resolve the environment, waiting as CreateContainerConfigError while something is missing."""
        while True:
            try:
                return await self.pod.resolver().environment(self.spec)
            except ConfigError as error:
                self.state.state = waiting("CreateContainerConfigError", str(error))
                self._event("Warning", "Failed", f"Error: {error}")
                self.pod.changed()
            await asyncio.sleep(self.pod.node.pace.retry)

    async def _back_off(self) -> None:
        """Wait before a restart: the first at once, then 10 s, 20 s, 40 s ... 300 s."""
        pace, meta = self.pod.node.pace, self.pod.object["metadata"]
        if self._backoff == 0.0 and self.state.restarts == 0:
            self._backoff = pace.backoff_first
            await asyncio.sleep(pace.restart)
            self.state.last_state = self.state.state
            return
        self._backoff = self._backoff or pace.backoff_first
        seconds = self._backoff
        self._backoff = min(self._backoff * 2, pace.backoff_most)
        await asyncio.sleep(min(pace.restart, seconds))
        shown = f"{seconds:.0f}s" if seconds < 60 else f"{int(seconds // 60)}m{int(seconds % 60)}s"
        self.state.last_state = self.state.state
        pod = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
        text = f"back-off {shown} restarting failed container={self.name} pod={pod}"
        self.state.state = waiting("CrashLoopBackOff", text)
        self._event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {pod}")
        self.pod.changed()
        await asyncio.sleep(seconds)

    async def stop(self, grace: float) -> None:
        """End it: SIGTERM, then SIGKILL after `grace` seconds. The task in `run` sees the end."""
        if self.program is None:
            return
        self._event("Normal", "Killing", f"Stopping container {self.name}")
        await self._pre_stop(grace)
        self.program.terminate()

    async def _pre_stop(self, grace: float) -> None:
        hook = (self.spec.get("lifecycle") or {}).get("preStop") or {}
        if "sleep" in hook:
            await asyncio.sleep(min(float(hook["sleep"].get("seconds", 0)), grace))
        command = (hook.get("exec") or {}).get("command") or []
        if len(command) == 2 and command[0].rpartition("/")[2] == "sleep" and command[1].isdigit():
            await self.pod.node.pace.sleep(min(float(command[1]), grace))

    async def _watch_health(self, startup: Probe | None, work: asyncio.Future[int]) -> None:
        if startup is not None:
            failure = await self._until_success("Startup", startup, work)
            if failure is not None:
                self._kill(work, f"Container {self.name} failed startup probe, will be restarted")
                return
            self.state.started = True
            self.state.ready = self.serves and "readinessProbe" not in self.spec
            self.up.set()
            self.pod.changed()
        readiness = probes.read(self.spec.get("readinessProbe"), self.spec)
        liveness = probes.read(self.spec.get("livenessProbe"), self.spec)
        async with asyncio.TaskGroup() as group:
            if readiness is not None and self.serves:
                group.create_task(self._readiness(readiness))
            if liveness is not None:
                group.create_task(self._liveness(liveness, work))

    async def _until_success(self, word: str, probe: Probe, work: asyncio.Future[int]) -> str | None:
        """Probe until success (None) or until the failure threshold (the last failure)."""
        speed = self.pod.node.pace.speed
        await asyncio.sleep(probe.initial_delay / speed)
        failures = 0
        while True:
            failure = "the container is not running" if work.done() else await probes.attempt(probe, self.pod.ip)
            if failure is None:
                return None
            failures += 1
            self._event("Warning", "Unhealthy", f"{word} probe failed: {failure}")
            if failures >= probe.failures:
                return failure
            await asyncio.sleep(probe.period / speed)

    async def _readiness(self, probe: Probe) -> None:
        speed = self.pod.node.pace.speed
        await asyncio.sleep(probe.initial_delay / speed)
        good = bad = 0
        while True:
            failure = await probes.attempt(probe, self.pod.ip)
            good, bad = (good + 1, 0) if failure is None else (0, bad + 1)
            ready = self.state.ready
            if failure is not None:
                self._event("Warning", "Unhealthy", f"Readiness probe failed: {failure}")
            if not ready and good >= probe.successes:
                self.state.ready = not self.pod.terminating
            elif ready and bad >= probe.failures:
                self.state.ready = False
            if self.state.ready != ready:
                self.pod.changed()
            await asyncio.sleep(probe.period if self.state.ready else probe.period / speed)

    async def _liveness(self, probe: Probe, work: asyncio.Future[int]) -> None:
        await asyncio.sleep(probe.initial_delay / self.pod.node.pace.speed)
        bad = 0
        while True:
            failure = await probes.attempt(probe, self.pod.ip)
            bad = 0 if failure is None else bad + 1
            if failure is not None:
                self._event("Warning", "Unhealthy", f"Liveness probe failed: {failure}")
            if bad >= probe.failures:
                self._kill(work, f"Container {self.name} failed liveness probe, will be restarted")
                return
            await asyncio.sleep(probe.period)

    def _kill(self, work: asyncio.Future[int], message: str) -> None:
        self._unhealthy = message
        self._event("Normal", "Killing", message)
        work.cancel()

    def restore(self, status: Mapping[str, Any]) -> None:
        """Take over a container that ran before this agent did: it is gone, and counts as ended."""
        self.state.restore(status)
        self.state.ready = not self.serves and self.state.exit_code == 0
        if not self.state.is_running:
            if "waiting" in self.state.state and self.state.restarts:
                self.state.restarts += 1
            return
        started = self.state.state["running"].get("startedAt", now_text())
        ended = terminated(255, "Unknown", started, now_text(), self.state.container_id)
        self.state.last_state = ended
        self.state.state = waiting("ContainerCreating")
        self.state.restarts += 1

    def memory_limit(self) -> float | None:
        """The memory limit in bytes."""
        return programs.limit_of(self.spec, "memory")

    def _event(self, kind: str, reason: str, message: str) -> None:
        self.pod.node.events.record(self.pod.object, kind, reason, message, self.field)
