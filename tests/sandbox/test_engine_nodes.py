"""Engines of one replica on several nodes: they find one another, and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sandbox.engine import rendezvous
from tests.sandbox.engine_support import SMOLLM2, run_engine

ADDRESSES = {"leader": "127.0.0.21", "worker": "127.0.0.22"}
SPLIT = ("--max-model-len=2048", "--pipeline-parallel-size=2", "--nnodes=2", "--master-addr=leader.group.team")


async def resolve(host: str) -> str:
    return ADDRESSES.get(host.partition(".")[0], "")


def play(then: Callable[[asyncio.Task, asyncio.Task], object]) -> tuple[tuple[int, list[str]], ...]:
    """Run both engines; `then` is told once the leader serves, and both are waited for."""

    async def main() -> tuple[tuple[int, list[str]], ...]:
        async def ready(process, http) -> None:
            answer = await http.get(f"http://{ADDRESSES['leader']}:8000/v1/models")
            assert answer.status_code == 200
            await asyncio.sleep(0.05)
            then(leader, worker)
            await asyncio.sleep(0.3)

        common = {"model": SMOLLM2, "resolve": resolve, "gpus": 1}
        worker = asyncio.create_task(
            run_engine((*SPLIT, "--node-rank=1", "--headless"), ip=ADDRESSES["worker"], **common)
        )
        leader = asyncio.create_task(
            run_engine((*SPLIT, "--node-rank=0"), ip=ADDRESSES["leader"], until=ready, **common)
        )
        return await leader, await worker

    return asyncio.run(main())


def test_a_leader_serves_once_its_worker_is_there_and_both_end_together():
    (code, log), (worker_code, worker_log) = play(lambda leader, worker: None)

    assert code == 0
    assert any("rank 0 in world size" in line for line in log)
    assert not any("rank 1 in world size" in line for line in log)
    # The leader was told to end; the worker lost it, and ends with an error as the real one does.
    assert worker_code == 1
    assert "Connection closed by peer" in "\n".join(worker_log)


def test_an_engine_whose_others_do_not_come_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rendezvous, "PATIENCE", 0.2)
    words = (*SPLIT, "--node-rank=1", "--headless")
    code, log = asyncio.run(run_engine(words, model=SMOLLM2, resolve=resolve))
    assert code == 1
    assert "DistStoreError" in "\n".join(log)


def test_without_nnodes_more_gpus_than_the_node_has_are_refused():
    code, log = asyncio.run(run_engine(("--max-model-len=2048", "--pipeline-parallel-size=2"), model=SMOLLM2))
    assert code == 1
    assert "set '--nnodes' appropriately" in "\n".join(log)
