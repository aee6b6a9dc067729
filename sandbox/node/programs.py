"""What runs in a container, by its image."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sandbox.engine.boot import Machine, ModelFiles, OutOfMemory
from sandbox.engine.errors import snapshot_error
from sandbox.engine.process import EngineProcess, Surroundings
from sandbox.node import quantity, shell
from sandbox.node.environment import expand
from sandbox.node.hub import HubError
from sandbox.node.images import PAUSE, Repository
from sandbox.node.initializer import Failed, Initializer
from sandbox.node.logs import LogFile
from sandbox.node.modelcar import Modelcar
from sandbox.node.routing import EndpointPicker, RoutingSidecar
from sandbox.node.volumes import mount_at
from sandbox.nodes import GPU_RESOURCE

if TYPE_CHECKING:
    from sandbox.node.container import Container, Program

OOM_EXIT = 137
CONFIGURATIONS = frozenset({"config.json", "adapter_config.json"})
ROUTING: dict[str, Callable[..., Program]] = {"endpoint-picker": EndpointPicker, "routing-sidecar": RoutingSidecar}


def make(container: Container, repository: Repository, environment: Mapping[str, str], log: LogFile) -> Program:
    """The program of a container's image, not yet running."""
    if repository.program == "vllm":
        return engine(container, repository, environment, log)
    if repository.program == "storage-initializer":
        return InitializerProgram(container, environment, log)
    if repository.weights is not None:
        arguments = [*words(container.spec, "command", environment), *words(container.spec, "args", environment)]

        def hand_over(place: str, files: ModelFiles) -> None:
            container.pod.store(container.spec, place, files)

        return Modelcar(repository.weights, arguments, hand_over, log.write)
    if repository.program in ROUTING:
        arguments = [*words(container.spec, "command", environment), *words(container.spec, "args", environment)]
        node = container.pod.node
        return ROUTING[repository.program](arguments, container.pod.ip, node.http, log.write)
    assert repository is PAUSE
    return Pause()


class Pause:
    """Does nothing until it is told to end."""

    out_of_memory = False

    def __init__(self) -> None:
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Wait for SIGTERM."""
        await self._stop.wait()
        return 0

    def terminate(self) -> None:
        """SIGTERM."""
        self._stop.set()


class InitializerProgram:
    """The storage initializer as a container."""

    def __init__(self, container: Container, environment: Mapping[str, str], log: LogFile) -> None:
        self.container = container
        self.environment = environment
        self.log = log
        self.out_of_memory = False
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> int:
        """Download into the pod's volumes."""
        node = self.container.pod.node
        initializer = Initializer(
            node.hub, self.log.write, node.pace.sleep, node.pace.speed, self.container.memory_limit()
        )
        initializer.google = node.google
        arguments = words(self.container.spec, "args", self.environment)
        self._task = asyncio.ensure_future(initializer.run(arguments, self.environment))
        try:
            found = await self._task
        except Failed:
            return 1
        except OutOfMemory:
            self.out_of_memory = True
            return OOM_EXIT
        except asyncio.CancelledError:
            if self._task.cancelled() and not self._killed():
                return 143
            raise
        for place, files in found.items():
            self.container.pod.store(self.container.spec, place, files)
        return 0

    def _killed(self) -> bool:
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    def terminate(self) -> None:
        """SIGTERM ends Python at once."""
        if self._task is not None:
            self._task.cancel()


class EngineProgram(EngineProcess):
    """A vLLM engine as a container."""

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed it."""
        return self.killed_for_memory


def engine(container: Container, repository: Repository, environment: Mapping[str, str], log: LogFile) -> EngineProgram:
    """Make the engine of a vLLM container."""
    pod, node = container.pod, container.pod.node

    async def fetch(model: str, variables: Mapping[str, str]) -> ModelFiles | None:
        found = pod.files_at(container.spec, model)
        if found is not None and not _readable(container.spec, model, found):
            return None
        if found is not None or model.startswith(("/", ".")) or model.count("/") != 1:
            return found
        try:
            return await node.hub.files(model, "main", variables.get("HF_TOKEN"))
        except HubError as error:
            raise snapshot_error(str(error)) from error

    limit = container.memory_limit()
    build = repository.build(container.spec["image"])
    most = int(limit) if limit is not None else None
    machine = Machine(node.shape.gpu, len(container.gpus), most, environment, build)
    around = Surroundings(
        ip=pod.ip,
        machine=machine,
        model_url=node.model_url,
        http=node.http,
        fetch=fetch,
        sleep=node.pace.sleep,
        write=log.write,
        resolve=container.pod.node.resolve,
    )
    command, arguments = words(container.spec, "command", environment), words(container.spec, "args", environment)
    script = shell.script_of([*command, *arguments])
    if script is not None:
        found = shell.command(*script, environment, build.version)
        if found:
            command, arguments = found, []
    return EngineProgram(command, arguments, around)


def _readable(spec: Mapping[str, Any], model: str, found: ModelFiles) -> bool:
    """vLLM reads a folder by its configuration, and a GGUF file where it is given the file itself."""
    mount = mount_at(spec, model) or {}
    described = not CONFIGURATIONS.isdisjoint(found.files)
    return described or model.endswith(".gguf") or mount.get("subPath", "").endswith(".gguf")


def words(spec: Mapping[str, Any], key: str, environment: Mapping[str, str]) -> list[str]:
    """`command` or `args` with variables expanded."""
    return [expand(str(word), environment) for word in spec.get(key) or []]


def limit_of(spec: Mapping[str, Any], resource: str) -> float | None:
    """A resource limit as a number."""
    value = ((spec.get("resources") or {}).get("limits") or {}).get(resource)
    return None if value is None else quantity.parse(value)


def gpus_of(spec: Mapping[str, Any]) -> int:
    """How many cards a container asks for."""
    return int(limit_of(spec, GPU_RESOURCE) or 0)
