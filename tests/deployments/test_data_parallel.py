"""Several engines in one replica: counted, placed in one pod, and estimated with the experts they share out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.facts import GIB, GpuFacts
from deployments.engine.render import render_args
from deployments.engine.sizing import fit
from deployments.manifests import build, gpus_of
from deployments.preflight import check
from deployments.spec import DeploymentSpec
from tests.deployments.preflighting import codes, said, the, with_model
from tests.deployments.wishes import LLAMA, facts_of, roles_json, spec_of, wish_of

H100 = GpuFacts("NVIDIA-H100-80GB-HBM3", 79.1, 9.0)
# As Qwen3-30B-A3B: 128 experts of 768 in each of 48 layers.
MOE = dataclasses.replace(
    LLAMA,
    id="org/moe",
    layers=48,
    hidden=2048,
    intermediate=6144,
    experts=128,
    expert_intermediate=768,
    kv_heads=4,
    weights_bytes=61_064_245_248,
)


def engines(count: int, **args: Any) -> dict[str, Any]:
    return {"max-model-len": 8192, "data-parallel-size": count, **args}


def test_a_replica_takes_the_gpus_of_all_its_engines():
    args = engines(2, **{"tensor-parallel-size": 2})
    spec = spec_of(args=args, replicas={"min": 1, "max": 3})

    assert (spec.gpus_per_replica, spec.gpus_per_pod, spec.gpus, spec.gpus_at_first) == (4, 4, 12, 4)
    objects = build(wish_of(spec))
    assert gpus_of(objects) == 12
    (runtime,) = (obj for obj in objects if obj["kind"] == "ServingRuntime")
    assert any(volume["name"] == "shm" for volume in runtime["spec"]["volumes"])
    assert "--data-parallel-size=2" in render_args("0.32.0", args)


def test_engines_of_a_dense_model_each_hold_it_whole():
    alone, both = (fit(LLAMA, H100, engines(count)) for count in (1, 2))

    assert (alone.gpus, both.gpus, both.engines) == (1, 2, 2)
    # But for what several processes take on top.
    assert both.weights_gib == pytest.approx(alone.weights_gib, rel=0.02)
    assert both.at_once == pytest.approx(2 * both.concurrency)
    assert both.concurrency == pytest.approx(alone.concurrency, rel=0.05)


@pytest.mark.parametrize("spread", [True, False])
def test_engines_share_out_experts_and_nothing_else(spread: bool):
    args = engines(4, **{"enable-expert-parallel": spread})

    estimate = fit(MOE, H100, args)

    experts = 48 * 128 * 3 * 2048 * 768 * 2
    expected = (MOE.weights_bytes - experts + experts / 4) / GIB
    assert estimate.weights_gib == pytest.approx(expected, rel=0.02)
    split = fit(MOE, H100, {"max-model-len": 8192, "tensor-parallel-size": 4})
    assert estimate.weights_gib > split.weights_gib


def test_all_engines_of_a_replica_stand_in_one_node():
    finding = the("gpus_per_node", said(flavor="h100", args=engines(8)))

    assert (finding.field, finding.is_error) == ("data_parallel_size", True)
    assert finding.value == facts_of().flavors["h100"].gpus_per_node
    assert "gpus_per_node" not in codes(said(flavor="h100", args=engines(finding.value)))


def test_replicas_do_what_engines_of_a_dense_model_do():
    assert the("engines_or_replicas", said(args=engines(2))).value == 1
    assert "engines_or_replicas" not in codes(said(facts_of(model=MOE), args=engines(2)))
    assert "engines_or_replicas" not in codes(said(facts_of(model=None), args=engines(2)))


def test_a_replica_across_nodes_is_one_engine():
    finding = the("engines_across_nodes", said(flavor="h100", args=engines(2), nodes=2))

    assert (finding.field, finding.value, finding.is_error) == ("data_parallel_size", 1, True)


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_roles_are_single_engines(role: str):
    spec = DeploymentSpec.model_validate(roles_json(**{role: {"args": {"data-parallel-size": 2}}}))

    finding = the("roles_of_engines", check(spec, "chat", "search", facts_of()))

    assert (finding.pointer, finding.value) == (f"/spec/{role}/args/data-parallel-size", 1)
    assert finding.is_error


def test_blocks_of_experts_are_cut_by_all_gpus_of_a_replica():
    # 1,536 split by 4 is whole blocks of 128; by the 8 of two engines it is not, unless experts stay whole.
    facts = with_model(quantization="fp8", quant_block=128, experts=128, expert_intermediate=1536, heads=64, kv_heads=4)
    args = {"tensor-parallel-size": 4}

    assert "quantised_blocks" not in codes(said(facts, flavor="l4", args=args))
    assert the("quantised_blocks", said(facts, flavor="l4", args=engines(2, **args))).value == 2
    whole = engines(2, **args, **{"enable-expert-parallel": True})
    assert "quantised_blocks" not in codes(said(facts, flavor="l4", args=whole))


def test_experts_of_two_engines_have_somewhere_to_go():
    spread = {"enable-expert-parallel": True}

    assert "experts_alone" in codes(said(facts_of(model=MOE), args=spread))
    assert "experts_alone" not in codes(said(facts_of(model=MOE), args=engines(2, **spread)))
