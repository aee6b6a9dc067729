"""Continuous batching in virtual time, held to nine minutes of scrapes of a real server."""

import csv
import random
from dataclasses import dataclass
from statistics import median

import pytest

from sandbox.engine.blocks import BlockPool
from sandbox.engine.memory import Limits
from sandbox.nodes import H100, L4
from tests.sandbox.engine_support import QWEN_7B, RECORDED, SMOLLM2, Rig, slow_cpu_gpu


def test_a_request_gets_its_tokens_and_its_reason():
    rig = Rig()
    _, ended = rig.add(0.0, tokens=50, finish="stop")

    rig.run_until_idle(0.0)

    assert (ended.tokens, ended.reason) == (50, "stop")
    assert rig.registry.value("vllm:generation_tokens_total").value == 50
    assert rig.registry.value("vllm:request_success_total", finished_reason="stop").value == 1
    assert rig.registry.histogram("vllm:inter_token_latency_seconds").count == 49


def test_nothing_is_due_while_nothing_runs():
    rig = Rig()
    assert rig.simulator.next_event() is None
    rig.add(0.0)
    rig.run_until_idle(0.0)
    assert rig.simulator.next_event() is None


def test_decode_speed_follows_memory_bandwidth():
    seconds = {}
    for gpu in (L4, H100):
        rig = Rig(gpu=gpu)
        rig.add(0.0, prompt=10, tokens=200)
        seconds[gpu.name] = rig.run_until_idle(0.0)

    ratio = seconds[L4.name] / seconds[H100.name]
    assert ratio == pytest.approx(3350 / 300, rel=0.25)
    assert 200 / seconds[L4.name] == pytest.approx(14, rel=0.2)  # tokens/s of a 7B model in 16 bits on an L4


def test_running_in_one_step_or_many_gives_the_same_answer():
    fine, coarse = Rig(), Rig()
    for rig in (fine, coarse):
        rig.add(0.0, prompt=300, tokens=64)
        rig.add(0.1, prompt=200, tokens=40)
    for tick in range(4000):
        fine.simulator.advance(0.1 + tick * 0.005)
    coarse.simulator.advance(100.0)

    for name in ("vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds"):
        assert coarse.registry.histogram(name).total == pytest.approx(fine.registry.histogram(name).total, rel=0.01)
    assert fine.simulator.idle
    assert coarse.simulator.idle


def test_more_requests_than_sequences_wait_in_line():
    rig = Rig(limits=Limits(4, 2048))
    for _ in range(10):
        rig.add(0.0, tokens=100)

    rig.simulator.advance(1.0)

    assert len(rig.simulator.running) == 4
    assert len(rig.simulator.waiting) == 6
    rig.run_until_idle(1.0)
    assert rig.registry.histogram("vllm:request_queue_time_seconds").count == 10
    assert rig.registry.histogram("vllm:request_queue_time_seconds").total > 10


def test_a_newcomer_does_not_wait_for_steps_that_were_run_together():
    rig = Rig(gpu=H100)
    rig.add(0.0, prompt=50, tokens=4000)
    rig.simulator.advance(2.0)
    rig.add(2.001, prompt=50, tokens=5)

    rig.simulator.advance(2.1)

    ttft = rig.registry.histogram("vllm:time_to_first_token_seconds")
    assert ttft.count == 2
    assert ttft.total < 0.1


def test_a_long_prompt_is_prefilled_in_chunks():
    rig = Rig(limits=Limits(8, 512))
    rig.add(0.0, prompt=2000, tokens=2)

    rig.run_until_idle(0.0)

    assert rig.registry.histogram("vllm:iteration_tokens_total").count == 5  # 4 chunks, 1 decode


def test_a_full_cache_preempts_and_everybody_still_finishes():
    rig = Rig(blocks=40, limits=Limits(8, 2048))
    ended = [rig.add(0.0, prompt=100, tokens=200)[1] for _ in range(4)]

    rig.run_until_idle(0.0)

    assert [end.tokens for end in ended] == [200] * 4
    assert rig.registry.value("vllm:num_preemptions_total").value > 0
    assert rig.registry.histogram("vllm:request_num_preemptions").total > 0
    assert rig.simulator.pool.usage == 0


def test_prefixes_that_were_computed_are_hit():
    rig = Rig()
    shared = [1, 2, 3, 4]
    rig.add(0.0, prompt=70, hashes=shared)
    rig.run_until_idle(0.0)
    rig.add(50.0, prompt=70, hashes=[1, 2, 3, 9])
    rig.run_until_idle(50.0)

    assert rig.registry.value("vllm:prefix_cache_queries_total").value == 140
    assert rig.registry.value("vllm:prefix_cache_hits_total").value == 48
    cached = rig.registry.value("vllm:prompt_tokens_by_source_total", source="local_cache_hit")
    assert cached.value == 48
    assert rig.registry.histogram("vllm:request_prefill_kv_computed_tokens").total == 70 + 22


def test_a_prompt_computed_elsewhere_costs_one_token_and_is_counted_apart():
    here, brought = Rig(), Rig()
    here.add(0.0, prompt=2000, tokens=4)
    request, _ = brought.add(0.0, prompt=2000, tokens=4, transferred=True)

    assert brought.run_until_idle(0.0) < 0.5 * here.run_until_idle(0.0)
    by_source = "vllm:prompt_tokens_by_source_total"
    assert brought.registry.value(by_source, source="external_kv_transfer").value == 1999
    assert brought.registry.value(by_source, source="local_compute").value == 1
    assert brought.registry.value("vllm:external_prefix_cache_hits_total").value == 1999
    assert brought.registry.value("vllm:prefix_cache_hits_total").value == 0
    assert request.produced == 4


def test_a_caller_that_leaves_frees_its_blocks_and_counts_in_no_finish_reason():
    rig = Rig()
    request, ended = rig.add(0.0, tokens=1000)
    rig.simulator.advance(1.0)

    rig.simulator.abort(request, 1.0)

    assert rig.simulator.pool.usage == 0
    assert ended.reason is None
    assert rig.run_until_idle(1.0) < 1.2
    success = rig.registry["vllm:request_success_total"]
    assert sum(success.child(finished_reason=reason).value for reason in ("stop", "length", "abort")) == 0


def test_a_persons_tokens_are_let_through_no_faster_than_the_gpu_and_no_faster_than_the_text():
    rig = Rig()
    request, ended = rig.add(0.0, prompt=20, tokens=100, live=True)
    rig.simulator.advance(5.0)
    assert ended.tokens == 0  # no text yet

    rig.simulator.feed(request, 30, None, 5.0)
    rig.simulator.advance(5.5)
    assert 3 <= ended.tokens <= 10  # an L4 makes about 14 tokens a second
    rig.simulator.advance(20.0)
    assert ended.tokens == 30

    rig.simulator.feed(request, 0, "stop", 20.0)
    assert ended.reason == "stop"
    assert rig.simulator.idle


@dataclass(frozen=True)
class Load:
    """What a phase of load looks like from outside: middle values, and the mean time to first token."""

    running: float
    waiting: float
    usage: float
    ttft: float
    hit_rate: float


# Callers that ask again at once, and the seconds of the recording in which they did. The last scrape of the 40,
# at 95 s, is left out: half of them had already stopped.
PHASES = {2: (20, 33), 4: (138, 152), 12: (62, 76), 40: (79, 91)}


def recorded_load(callers: int) -> Load:
    """Read a phase of the scrapes of a real server (SmolLM2-135M, 16 sequences, 364 blocks of 128, two CPU cores)."""
    first, last = PHASES[callers]
    with (RECORDED / "load.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    rows = [row for row in rows if first <= row["seconds"] <= last and row["running"]]
    grown = {key: rows[-1][key] - rows[0][key] for key in rows[0]}
    return Load(
        running=median(row["running"] for row in rows),
        waiting=median(row["waiting"] for row in rows),
        usage=median(row["kv"] for row in rows),
        ttft=grown["ttft_sum"] / grown["ttft_count"],
        hit_rate=grown["hits"] / grown["queries"],
    )


def test_recorded_load_raises_queue_cache_use_and_first_token_time_as_on_the_real_server():
    """The device's two rates are fitted to this recording; queue, cache use and growth follow from the rules."""
    real, simulated = {}, {}
    for callers in PHASES:
        rig = Rig(model=SMOLLM2, gpu=slow_cpu_gpu(), limits=Limits(16, 4096), blocks=364, block=128)
        real[callers] = recorded_load(callers)
        simulated[callers] = _closed_loop(rig, callers, seconds=30.0)

    for callers, ours in simulated.items():
        theirs = real[callers]
        assert ours.running == pytest.approx(theirs.running, abs=2), callers
        assert ours.waiting == pytest.approx(theirs.waiting, abs=4), callers
        assert 0.5 < ours.usage / theirs.usage < 2, (callers, ours, theirs)
        assert 0.4 < ours.ttft / theirs.ttft < 2.5, (callers, ours, theirs)
        assert ours.hit_rate == pytest.approx(theirs.hit_rate, abs=0.15), callers
    in_order = [simulated[callers] for callers in sorted(PHASES)]
    assert [load.ttft for load in in_order] == sorted(load.ttft for load in in_order)
    assert [load.usage for load in in_order] == sorted(load.usage for load in in_order)


def _closed_loop(rig: Rig, callers: int, *, seconds: float) -> Load:
    """`callers` send a request of about 230 tokens with a common start each time the last one ends."""
    draw = random.Random(4)
    sim = rig.simulator
    finished: list[str] = []

    def heard(tokens: int, reason: str | None) -> None:
        if reason is not None:
            finished.append(reason)

    def ask(now: float) -> None:
        rig.add(now, prompt=draw.randint(190, 270), tokens=draw.randint(20, 68), hashes=[7], on_tokens=heard)

    now = 0.0
    for _ in range(callers):
        ask(now)
    samples: list[tuple[int, int, float]] = []
    while now < seconds:
        now += 0.05
        sim.advance(now)
        while finished:
            finished.pop()
            ask(now)
        if now > seconds / 3:
            samples.append((len(sim.running), len(sim.waiting), sim.pool.usage))
    ttft = rig.registry.histogram("vllm:time_to_first_token_seconds")
    return Load(
        running=median(sample[0] for sample in samples),
        waiting=median(sample[1] for sample in samples),
        usage=median(sample[2] for sample in samples),
        ttft=ttft.total / ttft.count,
        hit_rate=rig.stats.hits.value / rig.stats.queries.value,
    )


def test_an_hour_of_load_costs_little():
    """Steps of an unchanged batch run together: the work is far less than one wake for each step."""
    rig = Rig(model=QWEN_7B, gpu=H100)
    for number in range(200):
        rig.add(number * 1.0, tokens=500)
    wakes, now = 0, 200.0
    while (due := rig.simulator.next_event()) is not None:
        now, wakes = due, wakes + 1
        rig.simulator.advance(now)

    steps = rig.registry.histogram("vllm:iteration_tokens_total").count
    assert wakes < steps / 5 + 50


def test_blocks_are_shared_counted_and_evicted():
    pool = BlockPool(4)
    first = pool.start([1, 2], 2)
    second = pool.start([1, 2], 3)
    assert first is not None
    assert second is not None
    assert pool.free == 1

    pool.release(first)
    pool.release(second)
    assert pool.usage == 0
    assert pool.cached([1, 2]) == 2

    third = pool.start([8, 9, 10, 11], 4)
    assert third is not None
    assert pool.cached([1]) == 0
    assert pool.start([], 1) is None
