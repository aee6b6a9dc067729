"""The memory estimate, held against what real engines reported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench.fit import references
from bench.fit.__main__ import MARKS, markdown
from deployments.engine.defaults import defaults_of
from deployments.engine.facts import GIB, ModelFacts
from deployments.engine.gpus import gpu_facts
from deployments.engine.kv import pool_of
from deployments.engine.measured import Measured
from deployments.engine.options import Choice, options, places, splits, splits_by
from deployments.engine.sizing import FitState, Sizer, UnknownShapeError, fit
from deployments.engine.weights import parameter_count, weights_bytes
from tests.deployments.wishes import LLAMA

ROOT = Path(__file__).parents[2]
POINTS = references.points()
ANSWERS = {answer.id: answer for answer in references.answers()}
L4 = gpu_facts("NVIDIA-L4")
H100 = gpu_facts("NVIDIA-H100-80GB-HBM3")


@pytest.mark.parametrize("name", POINTS)
def test_fits_or_not_agrees_with_what_was_reported(name: str):
    assert ANSWERS[name].fits == ANSWERS[name].reported_fits


@pytest.mark.parametrize("name", POINTS)
def test_kv_bytes_per_token_are_exact(name: str):
    point = POINTS[name]
    args = references.args_of(point)
    assert pool_of(references.model_of(point), args).token_bytes == point["kv_bytes_per_token_per_gpu"]


@pytest.mark.parametrize("name", [name for name, answer in ANSWERS.items() if answer.weights_error is not None])
def test_weights_counted_from_the_shape_are_within_two_per_cent(name: str):
    assert ANSWERS[name].weights_error == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("name", [name for name, answer in ANSWERS.items() if answer.memory_error is not None])
def test_tokens_follow_from_the_reported_kv_memory(name: str):
    assert ANSWERS[name].memory_error == pytest.approx(0, abs=POINTS[name].get("tolerance_tokens", 0.01))


@pytest.mark.parametrize(
    "name",
    [name for name, answer in ANSWERS.items() if answer.tokens_error is not None and not answer.note],
)
def test_tokens_are_within_five_per_cent_where_the_report_says_what_the_engine_took(name: str):
    assert ANSWERS[name].tokens_error == pytest.approx(0, abs=references.TOLERANCE)


def test_where_a_report_leaves_out_what_decides_the_table_says_so():
    for answer in ANSWERS.values():
        complete = {"visible_gib", "util"} <= set(POINTS[answer.id]) and references.own_memory(POINTS[answer.id])
        assert bool(answer.note) != bool(complete)


def test_the_committed_table_is_what_the_estimate_says_now():
    text = (ROOT / "docs/memory-fit.md").read_text()
    begin, end = MARKS
    assert text[text.index(begin) + len(begin) : text.index(end)].strip() == markdown()


def test_the_parts_add_up_to_the_budget():
    result = fit(LLAMA, L4, {"max-model-len": 8192})
    parts = result.weights_gib + result.activation_gib + result.overhead_gib + result.kv_gib
    assert parts == pytest.approx(result.budget_gib, abs=0.03)
    assert result.free_gib == pytest.approx(result.kv_gib - result.kv_needed_gib, abs=0.02)


def test_the_bar_is_the_whole_gpu():
    result = fit(LLAMA, L4, {"max-model-len": 8192})
    assert list(result.bar) == ["weights", "activation", "overhead", "kv", "left"]
    assert sum(result.bar.values()) == pytest.approx(result.total_gib, abs=0.02)
    assert result.as_json()["bar"] == result.bar


def test_defaults_are_those_of_the_version():
    old, new = (fit(LLAMA, L4, {}, defaults=defaults_of(version)) for version in ("0.19.0", "0.32.0"))
    assert (old.budget_gib, new.budget_gib) == (19.8, 20.24)
    assert new.overhead_gib - old.overhead_gib == pytest.approx(0.5)
    assert defaults_of("9.9.9") == defaults_of("0.32.0")


def test_what_an_engine_reported_takes_the_place_of_what_is_computed():
    args = {"max-model-len": 8192}
    plain = fit(LLAMA, L4, args)
    seen = fit(LLAMA, L4, args, measured=Measured(weights_gib=15.02, kv_gib=3.0))
    assert (seen.weights_gib, seen.kv_gib) == (15.02, 3.0)
    assert sum(seen.bar.values()) == pytest.approx(plain.total_gib, abs=0.02)
    assert seen.kv_tokens == int(3.0 * GIB // (16 * 131072)) * 16
    graphs = fit(LLAMA, L4, args, measured=Measured(graphs_gib=0.9))
    assert graphs.overhead_gib - plain.overhead_gib == pytest.approx(0.4)


def test_layers_without_attention_keep_no_cache():
    hybrid = dataclasses.replace(LLAMA, linear_layers=24)
    assert pool_of(hybrid, {}).token_bytes * 4 == pool_of(LLAMA, {}).token_bytes
    assert fit(hybrid, L4, {"max-model-len": 65536}).state is not FitState.NO


def test_places_name_every_flavor_and_split_that_holds_it():
    found = places(Sizer(LLAMA), {"max-model-len": 40000}, [Choice("l4", L4, 8), Choice("h100", H100, 2)])
    assert [(place.flavor, place.tensor_parallel) for place in found] == [
        ("h100", 1),
        ("l4", 2),
        ("h100", 2),
        ("l4", 4),
        ("l4", 8),
    ]
    assert all(place.fit.state is not FitState.NO for place in found)


def test_three_answers_by_context():
    answers = [fit(LLAMA, L4, {"max-model-len": length}).state for length in (8192, 30000, 65536)]
    assert answers == [FitState.FITS, FitState.TIGHT, FitState.NO]


def test_the_largest_context_is_where_it_stops_fitting():
    most = fit(LLAMA, L4, {"max-model-len": 8192}).max_context
    assert fit(LLAMA, L4, {"max-model-len": most}).state is not FitState.NO
    assert fit(LLAMA, L4, {"max-model-len": most + 64}).state is FitState.NO


def test_more_gpus_than_kv_heads_save_no_cache():
    eight = pool_of(LLAMA, {"tensor-parallel-size": 8}).token_bytes
    assert pool_of(LLAMA, {"tensor-parallel-size": 16}).token_bytes == eight
    assert pool_of(LLAMA, {"tensor-parallel-size": 4}).token_bytes == 2 * eight


def test_a_latent_cache_is_the_same_on_every_gpu():
    deepseek = dataclasses.replace(LLAMA, layers=61, kv_lora_rank=512, rope_head_dim=64)
    one, eight = ({"tensor-parallel-size": size} for size in (1, 8))
    assert pool_of(deepseek, one).token_bytes == pool_of(deepseek, eight).token_bytes == 61 * 576 * 2
    assert pool_of(deepseek, {"kv-cache-dtype": "fp8_ds_mla"}).token_bytes == 61 * 656


def test_stages_take_the_rank_with_most_layers():
    model = dataclasses.replace(LLAMA, layers=33)
    assert pool_of(model, {"pipeline-parallel-size": 2}).token_bytes == 17 * 4096


def test_fp8_halves_the_cache():
    assert pool_of(LLAMA, {"kv-cache-dtype": "fp8"}).token_bytes * 2 == pool_of(LLAMA, {}).token_bytes


def test_sliding_layers_keep_their_window_only():
    gemma = dataclasses.replace(LLAMA, sliding_window=1024, sliding_layers=26)
    plain, sliding = (fit(model, L4, {"max-model-len": 65536}) for model in (LLAMA, gemma))
    assert sliding.kv_needed_gib < plain.kv_needed_gib / 3


def test_a_forced_cache_larger_than_the_gpu_does_not_fit():
    assert fit(LLAMA, L4, {"kv-cache-memory-bytes": 400 * GIB}).state is FitState.NO


def test_a_model_of_unknown_shape_is_not_guessed():
    with pytest.raises(UnknownShapeError) as raised:
        fit(ModelFacts(id="x/y", weights_bytes=5), L4, {})
    assert raised.value.missing == ("layers", "heads", "kv_heads", "head_dim")
    with pytest.raises(UnknownShapeError):
        fit(dataclasses.replace(LLAMA, weights_bytes=None, intermediate=None), L4, {})


def test_parameters_of_a_known_shape_are_exact():
    assert parameter_count(LLAMA) == 8_030_261_248
    assert weights_bytes(dataclasses.replace(LLAMA, weights_bytes=None)) == 2 * 8_030_261_248


@pytest.mark.parametrize(
    ("heads", "kv_heads", "allowed"),
    [(32, 8, [1, 2, 4, 8]), (28, 4, [1, 2, 4]), (9, 3, [1, 3]), (40, 8, [1, 2, 4, 8])],
)
def test_splits_follow_attention_and_kv_heads(heads: int, kv_heads: int, allowed: list[int]):
    assert splits(dataclasses.replace(LLAMA, heads=heads, kv_heads=kv_heads), 8) == allowed


def test_more_gpus_than_kv_heads_must_be_a_multiple_of_them():
    model = dataclasses.replace(LLAMA, heads=48, kv_heads=8)
    assert splits_by(model, 16)
    assert not splits_by(model, 12)


def test_other_ways_each_fit_and_come_with_their_field():
    ways = options(Sizer(LLAMA), L4, {"max-model-len": 40000}, gpus_per_node=8, others=[Choice("h100", H100, 4)])
    assert [way.pointer.rsplit("/", 1)[-1] for way in ways] == [
        "max-model-len",
        "kv-cache-dtype",
        "tensor-parallel-size",
        "flavor",
    ]
    assert all(way.fit.state is not FitState.NO for way in ways)


def test_a_model_too_large_for_everything_has_no_other_way():
    huge = dataclasses.replace(LLAMA, weights_bytes=4000 * GIB)
    assert options(Sizer(huge), L4, {}, gpus_per_node=8, others=[Choice("h100", H100, 4)]) == []


def test_what_a_node_reports_counts_over_the_catalogue():
    assert gpu_facts("NVIDIA-L4").visible_gib == 22.0
    assert gpu_facts("NVIDIA-L4", 23034).visible_gib == 22.0
    assert gpu_facts("NVIDIA-L4", 11517).visible_gib == pytest.approx(11.0, abs=0.01)
    assert gpu_facts("Unheard-Of", 40960).visible_gib == pytest.approx(38.6, abs=0.1)
    with pytest.raises(ValueError, match="not a known GPU"):
        gpu_facts("Unheard-Of")


def test_weights_and_cache_take_the_width_that_the_engine_computes_in():
    args = {"max-model-len": 8192}
    usual = fit(LLAMA, H100, args)
    # Stored in 32 bits, held in 16: vLLM's “auto”.
    stored = dataclasses.replace(LLAMA, dtype="float32", weights_bytes=2 * (LLAMA.weights_bytes or 0))
    assert fit(stored, H100, args).weights_gib == pytest.approx(usual.weights_gib, rel=0.01)
    assert fit(stored, H100, args).kv_bytes_per_token == usual.kv_bytes_per_token
    wide = fit(LLAMA, H100, {**args, "dtype": "float32"})
    assert wide.weights_gib == pytest.approx(2 * usual.weights_gib, rel=0.01)
    assert wide.kv_bytes_per_token == 2 * usual.kv_bytes_per_token
    assert fit(LLAMA, L4, {**args, "dtype": "float32"}).state is FitState.NO
    packed = dataclasses.replace(LLAMA, quantization="awq", weights_bytes=5 * GIB)
    assert fit(packed, H100, {**args, "dtype": "float32"}).weights_gib == 5


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # Of 14.96 GiB 1.96 are embeddings and the output layer, which stay.
        ("fp8", 8.46),
        ("fp8_per_tensor", 8.46),
        ("mxfp8", 8.66),
        ("fp8_per_channel", 8.46),
        ("bitsandbytes", 5.61),
        # Not methods of this kind: they read what is stored, or nobody knows what they make of it.
        ("awq", 14.96),
        ("torchao", 14.96),
        # Of models without experts these take nothing.
        ("experts_int8", 14.96),
        ("int8_per_channel_weight_only", 14.96),
        ("nvfp4_per_token", 14.96),
    ],
)
def test_weights_quantised_at_load_take_less(method: str, expected: float):
    args = {"max-model-len": 8192, "quantization": method}
    assert fit(LLAMA, H100, args).weights_gib == pytest.approx(expected, abs=0.02)
    halves = fit(LLAMA, H100, {**args, "tensor-parallel-size": 2})
    assert halves.weights_gib == pytest.approx(expected / 2 * 1.015, abs=0.02)
    assert halves.stored_gib == (pytest.approx(7.59, abs=0.01) if expected < 14 else None)


def test_what_is_stored_quantised_is_not_quantised_again():
    stored = dataclasses.replace(LLAMA, quantization="fp8", weights_bytes=9 * GIB)
    assert fit(stored, H100, {"quantization": "fp8"}).weights_gib == 9.0
    assert fit(stored, H100, {"quantization": "fp8"}).stored_gib is None


def test_experts_alone_are_quantised_where_a_method_takes_them_alone():
    # 48 layers of 128 experts of three matrices, 2048 by 768: 54 of 57 GiB.
    model = dataclasses.replace(
        LLAMA, layers=48, hidden=2048, experts=128, expert_intermediate=768, weights_bytes=57 * GIB, params=None
    )
    found = fit(model, H100, {"quantization": "experts_int8", "max-model-len": 8192})
    assert found.weights_gib == pytest.approx(57 - 54 * 0.4995, abs=0.1)


def test_without_a_vocabulary_the_usual_one_stays_unquantised():
    known = fit(LLAMA, H100, {"quantization": "fp8"}).weights_gib
    assert fit(dataclasses.replace(LLAMA, vocab=None, hidden=None), H100, {"quantization": "fp8"}).weights_gib == (
        pytest.approx(known, abs=0.02)
    )
    tied = fit(dataclasses.replace(LLAMA, tied=True), H100, {"quantization": "fp8"}).weights_gib
    assert tied == pytest.approx(known - 0.49, abs=0.02), "one of two embeddings is not there, the rest is halved"


def test_gpus_that_share_the_context_hold_a_part_of_it():
    args = {"tensor-parallel-size": 8, "max-model-len": 8192}
    alone = fit(dataclasses.replace(LLAMA, kv_heads=2), L4, args)
    shared = fit(dataclasses.replace(LLAMA, kv_heads=2), L4, {**args, "decode-context-parallel-size": 4})
    assert shared.kv_bytes_per_token == alone.kv_bytes_per_token / 4
    assert shared.max_context >= alone.max_context
