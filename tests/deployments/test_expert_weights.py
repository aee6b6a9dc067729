"""Weights of models with experts and latent attention, counted from their configuration; published totals."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.facts import GIB, GpuFacts, ModelFacts
from deployments.engine.sizing import fit
from deployments.engine.weights import expert_bytes, mtp_bytes, mtp_parameters, parameter_count, weights_bytes
from deployments.sources.huggingface import model_facts

V3: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 129280,
}
V2: dict[str, Any] = {
    **{key: value for key, value in V3.items() if key not in {"quantization_config", "num_nextn_predict_layers"}},
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "first_k_dense_replace": 1,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "n_routed_experts": 160,
    "n_shared_experts": 2,
    "num_hidden_layers": 60,
    "vocab_size": 102400,
}
LITE = {
    **V2,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 64,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "q_lora_rank": None,
}
KIMI = {
    **V3,
    "first_k_dense_replace": 1,
    "n_routed_experts": 384,
    "num_attention_heads": 64,
    "num_nextn_predict_layers": 0,
    "vocab_size": 163840,
}
H200 = GpuFacts("NVIDIA-H200", 139.8, 9.0)


def facts(config: dict[str, Any], **changes: Any) -> ModelFacts:
    return dataclasses.replace(model_facts("owner/model", {}, config), **changes)


@pytest.mark.parametrize(
    ("config", "published"),
    [
        # Totals of the hub (`safetensors.total`), but for scales of quantised weights and the routers' biases.
        (LITE, 15_706_484_224),
        (V2, 235_741_434_880),
        (V3, 684_489_830_400),
        (KIMI, 1_026_408_209_408),
    ],
    ids=["V2-Lite", "V2", "V3 and R1", "Kimi K2"],
)
def test_parameters_are_those_that_are_published(config: dict[str, Any], published: int):
    model = facts(config)
    assert (parameter_count(model) or 0) + mtp_parameters(model) == published


def test_layers_that_propose_tokens_are_told_apart_from_the_model():
    # “671B of the Main Model weights and 14B of the Multi-Token Prediction Module weights”: of the latter 11.5B are
    # its own, and 0.9B each are copies of the embeddings and of the output layer.
    model = facts(V3)
    assert round((parameter_count(model) or 0) / 1e9, 1) == 671.0
    assert round((mtp_parameters(model) - 2 * 129280 * 7168) / 1e9, 1) == 11.6
    assert round(mtp_parameters(model) / 1e9, 1) == 13.5


def test_bytes_follow_from_the_blocks_that_share_a_scale():
    # 680,571,043,840 in fp8, 3,918,786,560 in bfloat16, 41,555,600 in float32.
    published = 680_571_043_840 + 2 * 3_918_786_560 + 4 * 41_555_600
    assert weights_bytes(facts(V3)) == pytest.approx(published, rel=0.001)
    assert weights_bytes(facts(LITE)) == 2 * 15_706_484_224


def test_experts_are_those_of_layers_that_have_some():
    model = facts(LITE)
    assert expert_bytes(model, 2 * 15_706_484_224) == pytest.approx(2 * 26 * 64 * 3 * 2048 * 1408)


def on_gpu(model: ModelFacts, **args: Any) -> float:
    given = {flag.replace("_", "-"): value for flag, value in args.items()}
    return fit(model, H200, {"max-model-len": 4096, **given}).weights_gib


def test_inner_projections_and_routers_are_on_every_gpu():
    # 58 layers of experts and 3 without; per layer 15.1M weights of the inner projections, not split.
    inner, router = 61 * 7168 * (1536 + 512 + 64), 58 * 256 * 7168
    whole = on_gpu(facts(V3))
    assert whole == pytest.approx((671.03e9 * 1.00024 + 2 * 129280 * 7168) / GIB, rel=0.001)
    split = on_gpu(facts(V3), tensor_parallel_size=8)
    copied = (inner + 2 * router) / GIB
    assert split == pytest.approx(copied + (whole - copied) / 8, rel=0.001)


def test_layers_that_propose_tokens_take_memory_where_they_are_used():
    model = facts(V3)
    stored = weights_bytes(model) or 0
    more = on_gpu(model, spec_method="mtp", spec_tokens=1) - on_gpu(model)
    assert more == pytest.approx(mtp_bytes(model, stored) / GIB, rel=0.001)
    # So it is where the files say how much there is.
    known = dataclasses.replace(model, weights_bytes=688_574_839_360)
    assert on_gpu(known, tensor_parallel_size=8) == pytest.approx(on_gpu(model, tensor_parallel_size=8), rel=0.001)


def test_engines_share_whole_experts_or_parts_of_them():
    model = facts(LITE, dtype="bfloat16")
    experts = 2 * 26 * 64 * 3 * 2048 * 1408 / GIB
    whole = on_gpu(model)
    # Attention stays whole on each of two engines.
    assert on_gpu(model, data_parallel_size=2) == pytest.approx(1.015 * (whole - experts / 2), rel=0.001)
    # 64 experts on three GPUs are 22 on the fullest.
    three = on_gpu(model, data_parallel_size=3, enable_expert_parallel=True)
    assert three == pytest.approx(1.015 * (whole - experts * 42 / 64), rel=0.001)


@pytest.mark.parametrize(
    ("changes", "dense"),
    [
        ({"moe_layer_freq": [0, 0, 1, 1] + [1] * 57}, 2),
        ({"moe_layer_freq": 2, "first_k_dense_replace": 0}, 30),
        ({"mlp_only_layers": [0, 1, 7], "first_k_dense_replace": 0}, 3),
        ({"decoder_sparse_step": 2, "first_k_dense_replace": 0}, 31),
        ({"first_k_dense_replace": 999}, 61),
        ({"mlp_only_layers": "all", "moe_layer_freq": "x", "first_k_dense_replace": "y"}, 0),
    ],
)
def test_layers_without_experts_are_counted_as_families_write_them(changes: dict[str, Any], dense: int):
    assert facts({**V3, **changes}).dense_layers == dense


def test_models_that_were_looked_up_before_are_as_they_were():
    known = facts(V3).as_json()
    for name in ("dense_layers", "shared_intermediate", "q_lora_rank", "nope_head_dim", "v_head_dim"):
        known.pop(name)
    model = ModelFacts.from_json({**known, "weights_bytes": 688_574_839_360})
    assert parameter_count(model) is None
    assert on_gpu(model, tensor_parallel_size=8) == pytest.approx(1.015 * 688_574_839_360 / 8 / GIB, rel=0.001)
