"""LoRA adapters on a node: fetched beside the model, laid over it, or refused in vLLM's words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sandbox.node_support import INITIALIZER, Ground, cluster, engine_pod, ground, is_ready, main_status

BASE, ADAPTER = "Qwen/Qwen2.5-7B-Instruct", "slipway-examples/Qwen2.5-7B-Instruct-support-lora"


@pytest.fixture(scope="module")
def kubeconfig() -> Iterator[Path]:
    with cluster() as path:
        yield path


def play(kubeconfig: Path, scene: Callable[[Ground], Awaitable[None]]) -> None:
    async def main() -> None:
        async with ground(kubeconfig) as run:
            await scene(run)

    asyncio.run(main())


def with_adapter(name: str, rank: int) -> dict[str, Any]:
    words = ("--enable-lora", f"--max-lora-rank={rank}", "--lora-modules", "support=/mnt/adapters/support")
    pod = engine_pod(name, source=f"hf://{BASE}", args=("--max-model-len=2048", *words))
    spec, mount = pod["spec"], {"name": "adapter-0", "mountPath": "/mnt/adapters/support"}
    fetch = {"name": "adapter-initializer", "image": INITIALIZER, "args": [f"hf://{ADAPTER}", mount["mountPath"]]}
    spec["initContainers"].insert(0, {**fetch, "volumeMounts": [mount]})
    spec["volumes"].append({"name": "adapter-0", "emptyDir": {}})
    engine = spec["containers"][0]
    engine["volumeMounts"].append(mount)
    engine["terminationMessagePolicy"] = "FallbackToLogsOnError"
    return pod


def test_an_adapter_is_a_model_of_its_own_over_its_parent(kubeconfig: Path):
    async def scene(run: Ground) -> None:
        await run.make(with_adapter("wide", 64))
        pod = await run.wait("wide", is_ready)
        async with httpx.AsyncClient(trust_env=False) as http:
            url = f"http://{pod['status']['podIP']}:8080/v1/models"
            models = {item["id"]: item["parent"] for item in (await http.get(url)).json()["data"]}
        assert models == {"chat": None, "support": "chat"}

    play(kubeconfig, scene)


def test_an_adapter_wider_than_the_engine_has_room_for_ends_it(kubeconfig: Path):
    async def scene(run: Ground) -> None:
        await run.make(with_adapter("narrow", 16))
        pod = await run.wait("narrow", lambda pod: main_status(pod).get("restartCount", 0) > 0)
        last = main_status(pod)["lastState"].get("terminated") or main_status(pod)["state"]["terminated"]
        assert "LoRA rank 64 is greater than max_lora_rank 16" in last["message"]

    play(kubeconfig, scene)
