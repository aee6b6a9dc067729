"""One engine as a container sees it: starts, serves on the pod's address, ends on SIGTERM."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from sandbox.asgi import Listener, listen
from sandbox.engine import errors
from sandbox.engine.api import EngineApi, Served, Transfer
from sandbox.engine.args import EngineArgs
from sandbox.engine.boot import Boot, FetchModel, Machine, OutOfMemory, Ready, Sleep
from sandbox.engine.cost import CostModel
from sandbox.engine.errors import EngineExit
from sandbox.engine.generation import Runner
from sandbox.engine.loglines import EngineLog
from sandbox.engine.metrics import Registry, cache_config_labels
from sandbox.engine.rendezvous import Rendezvous, Resolve
from sandbox.engine.simulator import Simulator
from sandbox.engine.stats import EngineStats

OOM_EXIT = 137
REPORT_SECONDS = 10.0  # between throughput lines in the log
NIXL_PORT = 5600  # where engines fetch each other's caches
SHUTDOWN_SECONDS = 1.6  # at speed 1
PROCESS_BYTES = 5.2e9  # resident memory of a vLLM API server on a GPU machine


@dataclass(frozen=True)
class GpuUse:
    """What an engine did to each of its GPUs since it started; `memory` in bytes now."""

    busy_seconds: float
    flops: float
    bytes_moved: float
    memory: int


@dataclass(frozen=True)
class Surroundings:
    """What the node gives an engine."""

    ip: str
    machine: Machine
    model_url: str
    http: httpx.AsyncClient
    fetch: FetchModel
    sleep: Sleep
    write: Callable[[str], None]
    resolve: Resolve


class EngineProcess:
    """A vLLM server process."""

    def __init__(self, command: Sequence[str], arguments: Sequence[str], around: Surroundings) -> None:
        self.command = command
        self.arguments = arguments
        self.around = around
        self.lines = EngineLog(around.write)
        self.killed_for_memory = False
        self._stop = asyncio.Event()
        self._runner: Runner | None = None
        self._boot: Boot | None = None
        self._ready: Ready | None = None
        self._stats: EngineStats | None = None
        self._reporter: asyncio.TimerHandle | None = None
        self._reported = (0.0, 0.0)
        self._others: Rendezvous | None = None

    def terminate(self) -> None:
        """SIGTERM."""
        self._stop.set()

    def use(self) -> GpuUse:
        """The load on its GPUs until now."""
        if self._runner is None or self._ready is None:
            return GpuUse(0.0, 0.0, 0.0, self._boot.held if self._boot is not None else 0)
        simulator = self._runner.simulator
        simulator.advance(self._runner.now())
        return GpuUse(simulator.busy_seconds, simulator.flops, simulator.bytes_moved, self._ready.memory.used)

    async def run(self) -> int:
        """Run to the end; returns the exit status. Cancelling is SIGKILL."""
        starting = asyncio.ensure_future(self._start())
        stopping = asyncio.ensure_future(self._stop.wait())
        listener: Listener | None = None
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return 143  # terminated by the signal before a handler was there
            listener = starting.result()  # raises what ended the start
            if self._others is not None:
                ends: set[asyncio.Future[Any]] = {stopping, self._others.lost}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if not stopping.done():
                    raise errors.node_lost(self.lines.core_prefix())
            await stopping
            await self._shut_down()
        except EngineExit as end:
            for line in end.lines:
                self.around.write(line)
            return end.code
        except OutOfMemory:
            self.killed_for_memory = True
            return OOM_EXIT
        except LookupError as error:
            words = " ".join([*self.command, *self.arguments])[:200]
            self.around.write(f"[sandbox] only vLLM's API server runs in this image here, not {error}: {words}")
            return 127
        except OSError as error:
            self.around.write(f"OSError: {error}")
            return 1
        finally:
            for task in (starting, stopping):
                task.cancel()
            if listener is not None:
                listener.close()
            if self._runner is not None:
                self._runner.close()
            if self._others is not None:
                self._others.close()
            if self._reporter is not None:
                self._reporter.cancel()
        return 0

    async def _start(self) -> Listener | None:
        """Boot and listen; an engine that computes for another node's server has nothing to listen for."""
        around = self.around
        self._boot = Boot(around.machine, self.lines, around.sleep, around.fetch, self._meet)
        ready = await self._boot.run(self.command, self.arguments)
        registry = Registry(ready.args.served_names[0], ready.context, time.time())
        stats = EngineStats(registry, mfu=ready.args.mfu_metrics)
        simulator = Simulator(
            CostModel(ready.args, ready.shape, around.machine.gpu),
            ready.limits,
            ready.memory.blocks,
            ready.memory.block_size,
            stats,
            caching=ready.args.prefix_caching,
        )
        self._ready, self._stats = ready, stats
        self._runner = Runner(simulator, around.model_url, around.http)
        self._runner.on_add = self._expect_report
        self._runner.max_queued = ready.args.max_queued
        key = around.machine.environment.get("VLLM_API_KEY")
        keys = ready.args.api_keys or ((key,) if key else ())
        transfer = None
        if ready.args.kv_connector is not None:
            port = int(around.machine.environment.get("VLLM_NIXL_SIDE_CHANNEL_PORT", NIXL_PORT))
            transfer = Transfer(str(uuid.uuid4()), around.ip, port, ready.args.tensor_parallel)
        adapters = dict(ready.args.adapters)
        served = Served(
            names=ready.args.served_names,
            root=ready.args.model,
            context=ready.context,
            api_keys=keys,
            started=time.time(),
            transfer=transfer,
            adapters=adapters,
            version=around.machine.build.version,
        )
        _set_constants(registry, ready, time.time())
        api = EngineApi(served, self._runner, registry, self._refresh, around.write)
        return None if ready.args.headless else await listen(api, around.ip, ready.args.port)

    async def _meet(self, args: EngineArgs) -> None:
        """Find the engines of the other nodes; raises EngineExit when they do not come."""
        self._others = Rendezvous(self.around.ip, args, self.around.resolve)
        try:
            await self._others.meet()
        except TimeoutError:
            raise errors.nodes_missing(args.nodes, args.node_rank, self.lines.core_prefix()) from None

    def _refresh(self) -> None:
        """Bring gauges and process metrics up to this moment."""
        assert self._runner is not None
        assert self._stats is not None
        simulator = self._runner.simulator
        simulator.advance(self._runner.now())
        self._stats.gauges(len(simulator.running), len(simulator.waiting), simulator.pool.usage)
        cpu = 20.0 + 0.9 * simulator.busy_seconds
        self._stats.registry.value("process_cpu_seconds_total").value = round(cpu, 2)

    def _expect_report(self) -> None:
        if self._reporter is None:
            self._reporter = asyncio.get_running_loop().call_later(REPORT_SECONDS, self._report)

    def _report(self) -> None:
        """Print the throughput line vLLM prints every ten seconds while it works."""
        assert self._runner is not None
        assert self._stats is not None
        self._reporter = None
        simulator, stats = self._runner.simulator, self._stats
        simulator.advance(self._runner.now())
        prompt, generated = stats.prompt_tokens.value, stats.generation_tokens.value
        before, self._reported = self._reported, (prompt, generated)
        hit_rate = 100 * stats.hits.value / stats.queries.value if stats.queries.value else 0.0
        self.lines.api(
            "loggers.py:271",
            f"Engine 000: Avg prompt throughput: {(prompt - before[0]) / REPORT_SECONDS:.1f} tokens/s, "
            f"Avg generation throughput: {(generated - before[1]) / REPORT_SECONDS:.1f} tokens/s, "
            f"Running: {len(simulator.running)} reqs, Waiting: {len(simulator.waiting)} reqs, "
            f"GPU KV cache usage: {simulator.pool.usage * 100:.1f}%, Prefix cache hit rate: {hit_rate:.1f}%",
        )
        if simulator.running or simulator.waiting or self._reported != before:
            self._expect_report()

    async def _shut_down(self) -> None:
        self.lines.api("launcher.py:254", "[shutdown] API server: shutdown triggered")
        self.lines.api("launcher.py:270", "[shutdown] API server: stopping engine client mode=abort timeout=0s")
        self.lines.core("core.py:1454", "[shutdown] EngineCore: trigger received signal=SIGTERM")
        await self.around.sleep(SHUTDOWN_SECONDS)
        self.lines.api("launcher.py:304", "[shutdown] API server: shutting down FastAPI HTTP server")
        for text in ("Shutting down", "Waiting for application shutdown.", "Application shutdown complete."):
            self.around.write(f"INFO:     {text}")


def _set_constants(registry: Registry, ready: Ready, now: float) -> None:
    """Values that do not change while the engine runs."""
    args, plan = ready.args, ready.memory
    changes = {
        "block_size": str(plan.block_size),
        "effective_attention_block_size": str(plan.block_size),
        "cache_dtype": args.kv_cache_dtype,
        "enable_prefix_caching": str(args.prefix_caching),
        "gpu_memory_utilization": str(args.memory_utilization),
        "kv_cache_max_concurrency": f"{plan.tokens / ready.context:.2f}",
        "kv_cache_memory_bytes": str(args.kv_cache_bytes),
        "kv_cache_size_tokens": str(plan.tokens),
        "num_gpu_blocks": str(plan.blocks),
        "sliding_window": str(ready.shape.sliding_window),
        "user_specified_block_size": str(args.block_size is not None),
    }
    registry["vllm:cache_config_info"].child(**cache_config_labels(changes)).value = 1.0
    registry.value("vllm:engine_sleep_state", sleep_state="awake").value = 1.0
    python = registry["python_info"]
    for key in list(python._children):
        python.child(**dict(key)).value = 1.0
    registry.value("process_start_time_seconds").value = round(now, 2)
    registry.value("process_resident_memory_bytes").value = PROCESS_BYTES
    registry.value("process_virtual_memory_bytes").value = PROCESS_BYTES * 12
    registry.value("process_open_fds").value = 61.0
    registry.value("process_max_fds").value = 1048576.0
