"""Makers of engines, models and recordings for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import httpx

from sandbox.engine import args as cli
from sandbox.engine import memory, shape
from sandbox.engine.boot import Machine, ModelFiles
from sandbox.engine.builds import NEWEST, Build
from sandbox.engine.cost import CostModel
from sandbox.engine.memory import Limits
from sandbox.engine.metrics import Registry
from sandbox.engine.process import EngineProcess, Surroundings
from sandbox.engine.rendezvous import Resolve
from sandbox.engine.shape import ModelShape
from sandbox.engine.simulator import SimRequest, Simulator
from sandbox.engine.stats import EngineStats
from sandbox.hub.catalog import load
from sandbox.nodes import L4, Gpu

RECORDED = Path(__file__).parents[1] / "data" / "vllm-0.32.0"
QWEN_7B = "Qwen/Qwen2.5-7B-Instruct"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
CREATED = 1.7956026873e9


def files_of(model: str) -> ModelFiles:
    """A model of the hub as it lies in a volume."""
    found = load()[model]
    return ModelFiles(found.config, {file.name: file.size for file in found.files})


def shape_of(model: str) -> ModelShape:
    """The shape of a model of the hub."""
    files = files_of(model)
    return shape.read(files.config, files.files)


def make_args(*words: str) -> cli.EngineArgs:
    """Arguments as a KServe container passes them."""
    return cli.parse(["python", "-m", cli.MODULE], ["--port=8080", "--model=/mnt/models", *words])


def recorded_log(name: str) -> list[str]:
    """The lines of a recorded log without the marker of its exit status."""
    lines = (RECORDED / f"{name}.log").read_text().rstrip("\n").split("\n")
    return [line for line in lines if not line.startswith("exit=")]


class Ended:
    """Collects what happened to one simulated request."""

    def __init__(self) -> None:
        self.tokens = 0
        self.reason: str | None = None

    def __call__(self, tokens: int, reason: str | None) -> None:
        self.tokens += tokens
        self.reason = reason or self.reason


class Rig:
    """A simulator with its metrics, driven in virtual time."""

    def __init__(
        self,
        *,
        model: str = QWEN_7B,
        gpu: Gpu = L4,
        limits: Limits | None = None,
        blocks: int | None = None,
        block: int = 16,
    ) -> None:
        self.args = make_args()
        self.shape = shape_of(model)
        plan = memory.plan(self.args, self.shape, gpu, self.shape.context)
        self.registry = Registry("m", self.shape.context, CREATED)
        self.stats = EngineStats(self.registry)
        self.simulator = Simulator(
            CostModel(self.args, self.shape, gpu),
            limits or memory.limits(self.args, gpu),
            plan.blocks if blocks is None else blocks,
            block,
            self.stats,
        )

    def add(
        self, now: float, *, prompt: int = 100, tokens: int = 50, hashes: Sequence[int] = (), **more: object
    ) -> tuple[SimRequest, Ended]:
        """Send one request."""
        ended = Ended()
        request = SimRequest(
            arrival=now, prompt_tokens=prompt, max_tokens=tokens, target=tokens, on_tokens=ended, hashes=list(hashes)
        )
        request = replace(request, **more)  # type: ignore[arg-type]
        self.simulator.add(request, now)
        return request, ended

    def run_until_idle(self, start: float, most: float = 3600.0) -> float:
        """Advance event by event until nothing runs; returns the time."""
        now = start
        while (due := self.simulator.next_event()) is not None and now < start + most:
            now = due
            self.simulator.advance(now)
        return now


def slow_cpu_gpu() -> Gpu:
    """A device whose two rates were chosen so that the scrapes of a two-core machine are met; it is no measurement."""
    return replace(L4, name="cpu", visible_gib=24.0, bandwidth=7.5e9, flops_16=5e11, flops_8=5e11)


async def run_engine(
    words: Sequence[str],
    *,
    ip: str = "127.0.0.1",
    model: str | None = QWEN_7B,
    gpu: Gpu = L4,
    gpus: int = 1,
    memory_limit: int | None = None,
    environment: Mapping[str, str] | None = None,
    model_url: str = "http://127.0.0.1:1",
    until: Callable[[EngineProcess, httpx.AsyncClient], object] | None = None,
    resolve: Resolve | None = None,
    build: Build = NEWEST,
    found: ModelFiles | None = None,
) -> tuple[int, list[str]]:
    """Run an engine to its end, or until `until` (a coroutine function) is done; returns exit status and log."""
    log: list[str] = []

    async def fetch(path: str, variables: Mapping[str, str]) -> ModelFiles | None:
        return found or (None if model is None else files_of(model))

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    async def as_it_is(host: str) -> str:
        return host

    # Like vLLM it says that it is up a moment before its port is open.
    transport = httpx.AsyncHTTPTransport(verify=False, trust_env=False, retries=4)
    async with httpx.AsyncClient(transport=transport, timeout=20) as http:
        machine = Machine(gpu, gpus, memory_limit, environment or {}, build)
        around = Surroundings(ip, machine, model_url, http, fetch, sleep, log.append, resolve or as_it_is)
        process = EngineProcess(["python", "-m", cli.MODULE], ["--model=/mnt/models", *words], around)
        task = asyncio.create_task(process.run())
        if until is not None:
            while not any("Application startup complete" in line for line in log) and not task.done():
                await asyncio.sleep(0.005)
            await until(process, http)  # type: ignore[misc]
            process.terminate()
        return await asyncio.wait_for(task, 20), log
