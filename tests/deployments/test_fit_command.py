"""`manage.py spec fit`: what a model takes of a GPU, from documents in several forms, without a database."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.documents import DocumentError
from deployments.fitting import fit_document
from tests.deployments.wishes import LLAMA_CONFIG, request_json


def test_fit_of_a_request_without_its_model_asks_for_all_numbers(run: Any):
    answer = run("spec", "fit", request_json())
    assert (answer["state"], len(answer["missing"])) == ("unknown", 5)
    assert "meta-llama/Llama-3.1-8B-Instruct" in answer["message"]


@pytest.mark.parametrize(
    "document",
    [
        {"config": LLAMA_CONFIG, "gpu": "L4", "args": {"max-model-len": 8192}},
        {
            "model": {"config": LLAMA_CONFIG},
            "gpu": {"product": "NVIDIA-L4", "memory_mib": 23034},
            "args": {"max-model-len": 8192},
        },
        {"model": LLAMA_CONFIG, "flavor": "l4-24gb", "args": {"max-model-len": 8192}},
        {
            "model": {"config": LLAMA_CONFIG, "weights_bytes": 16060522496},
            "gpu": {"visible_gib": 22.0},
            "args": {"max-model-len": 8192},
        },
    ],
)
def test_fit_takes_a_configuration_and_a_gpu_in_several_forms(run: Any, document: dict[str, Any]):
    answer = run("spec", "fit", document)
    assert answer["state"] == "fits"
    assert answer["weights_gib"] == pytest.approx(14.96, abs=0.01)
    assert answer["kv_bytes_per_token"] == 131072
    assert answer["alternatives"] == []


def test_fit_takes_a_bare_configuration_and_a_gpu_by_name(run: Any):
    assert run("spec", "fit", LLAMA_CONFIG, "--gpu", "L4")["state"] == "no"
    assert run("spec", "fit", LLAMA_CONFIG, "--gpu", "NVIDIA-H100-80GB-HBM3")["state"] == "fits"


def test_fit_of_a_request_gives_other_ways_where_it_does_not_fit(run: Any):
    answer = run("spec", "fit", request_json(args={"max-model-len": 65536}), "--config", LLAMA_CONFIG)
    assert answer["state"] == "no"
    assert answer["alternatives"][0]["pointer"] == "/spec/engine/args/max-model-len"
    assert all(way["fit"]["state"] != "no" for way in answer["alternatives"])


def test_a_split_beside_stages_is_told_with_all_its_gpus(run: Any):
    args = {"max-model-len": 131072, "pipeline-parallel-size": 2}
    answer = run("spec", "fit", request_json(args=args), "--config", LLAMA_CONFIG, "--weights-bytes", 2**36)
    way = answer["alternatives"][0]
    assert (way["value"], way["fit"]["gpus"], way["text"]) == (4, 8, "8 GPUs (tensor-parallel-size 4)")
    args["pipeline-parallel-size"] = 1
    answer = run("spec", "fit", request_json(args=args), "--config", LLAMA_CONFIG, "--weights-bytes", 2**35)
    assert "4 GPUs (tensor-parallel-size)" in [way["text"] for way in answer["alternatives"]]


def test_sizes_given_beside_the_configuration_count(run: Any):
    answer = run("spec", "fit", {"config": LLAMA_CONFIG, "gpu": "L4"}, "--weights-bytes", 2**33)
    assert answer["weights_gib"] == 8.0


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"gpu": "L4"},
        {"config": LLAMA_CONFIG, "gpu": "Unheard-Of"},
        {"config": LLAMA_CONFIG},
        {"config": LLAMA_CONFIG, "gpu": "L4", "args": [1]},
        {"config": LLAMA_CONFIG, "spec": 5},
    ],
)
def test_fit_says_what_is_missing(run: Any, document: dict[str, Any]):
    with pytest.raises(CommandError):
        run("spec", "fit", document)


def test_fit_says_where_it_fits(run: Any):
    answer = run("spec", "fit", request_json(args={"max-model-len": 65536}), "--config", LLAMA_CONFIG)
    assert {(place["flavor"], place["tensor_parallel_size"]) for place in answer["places"]} >= {
        ("l4-24gb", 2),
        ("h100-80gb", 1),
    }
    assert all(place["state"] != "no" for place in answer["places"])
    assert set(answer["bar"]) == {"weights", "activation", "overhead", "kv", "left"}


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        ("H100", "“H100” is not a known GPU. Known: H100 80GB SXM5, H100 80GB PCIe, H100 NVL 94GB. Of another give"),
        ("Unheard-Of", "Known: T4, A10, A10G, L4, "),
        ({"name": "H100"}, "Known: H100 80GB SXM5, "),
        ({"visible_gib": -5}, "“visible_gib” must be a number from 0 on."),
        ({"product": "NVIDIA-L4", "memory_mib": "much"}, "“memory_mib” must be a number from 0 on."),
    ],
)
def test_a_gpu_that_is_not_known_is_told_with_those_that_are(run: Any, gpu: Any, words: str):
    with pytest.raises(CommandError) as refused:
        run("spec", "fit", {"config": LLAMA_CONFIG, "gpu": gpu})
    assert refused.value.returncode == 2
    assert words in str(refused.value)


@pytest.mark.parametrize("config", [{"nonsense": [1, 2]}, {"num_hidden_layers": "many", "num_attention_heads": -1}])
def test_fit_of_a_configuration_that_cannot_be_read_asks_for_numbers(run: Any, config: dict[str, Any]):
    answer = run("spec", "fit", {"model": {"config": config}, "gpu": "L4"})
    assert answer["state"] == "unknown"
    asked = [item["name"] for item in answer["missing"]]
    assert asked == ["weights_bytes", "layers", "heads", "kv_heads", "head_dim"]
    figures = {"weights_gib": 14.96, "layers": 32, "heads": 32, "kv_heads": 8, "head_dim": 128, "vocab": 128256}
    given = {"config": config, **figures}
    told = run("spec", "fit", {"model": given, "gpu": "L4", "args": {"max-model-len": 8192}})
    assert (told["state"], told["weights_gib"]) == ("fits", 14.96)


def test_fit_takes_a_shape_without_a_configuration(run: Any):
    figures = {"weights_gib": 14.96, "layers": 32, "heads": 32, "kv_heads": 8, "head_dim": 128}
    assert run("spec", "fit", {"model": figures, "gpu": "L4", "args": {"max-model-len": 8192}})["state"] == "fits"


@pytest.mark.parametrize("wrong", [{"layers": "many"}, {"layers": True}, {"weights_gib": 1e400}, {"heads": [32]}])
def test_figures_of_a_model_that_are_no_numbers_are_said_so(run: Any, wrong: dict[str, Any]):
    with pytest.raises(CommandError, match="must be a number"):
        run("spec", "fit", {"model": {"config": LLAMA_CONFIG, **wrong}, "gpu": "L4"})


def test_fit_takes_what_an_engine_measured(run: Any):
    document = {"config": LLAMA_CONFIG, "gpu": "L4", "args": {"max-model-len": 8192}}
    answer = run("spec", "fit", {**document, "measured": {"weights_gib": 15.0, "kv_gib": 3.0}})
    assert (answer["weights_gib"], answer["kv_gib"]) == (15.0, 3.0)
    with pytest.raises(CommandError, match="does not know"):
        run("spec", "fit", {**document, "measured": {"kv": 3.0}})


def test_fit_reads_what_an_engine_measured_from_its_log(run: Any, tmp_path: Path):
    log = tmp_path / "engine.log"
    log.write_text("Model loading took 15.02 GiB memory and 8.25 seconds\nAvailable KV cache memory: 3.81 GiB\n")
    answer = run("spec", "fit", {"config": LLAMA_CONFIG, "gpu": "L4", "args": {"max-model-len": 8192}}, "--log", log)
    assert (answer["weights_gib"], answer["kv_gib"], answer["measured"]["load_seconds"]) == (15.02, 3.81, 8.25)
    assert answer["computed"]["weights_gib"] == 14.96


def test_fit_takes_the_defaults_of_a_version(run: Any):
    document = {"config": LLAMA_CONFIG, "gpu": "L4", "args": {"max-model-len": 8192}}
    old, new = (run("spec", "fit", {**document, "vllm": version}) for version in ("0.19.0", "0.32.0"))
    assert (old["budget_gib"], new["budget_gib"]) == (19.8, 20.24)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


KNOWN = [
    *LLAMA_CONFIG,
    "head_dim",
    "sliding_window",
    "layer_types",
    "kv_lora_rank",
    "text_config",
    "quantization_config",
]


@settings(max_examples=60, deadline=None)
@given(config=st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=8), JSON, max_size=8), figures=JSON)
def test_no_configuration_breaks_the_estimate(config: dict[str, Any], figures: Any):
    for document in ({"config": LLAMA_CONFIG | config}, {"model": {"config": config, "weights_gib": figures}}):
        with contextlib.suppress(DocumentError):
            assert fit_document({**document, "gpu": "L4"})["state"] in {"fits", "tight", "no", "unknown"}
