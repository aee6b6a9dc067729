"""How weights are stored, wherever vLLM reads it: at the top, in the language model's part, in ModelOpt's own file."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.documents import model_from
from deployments.engine.facts import GIB, ModelFacts
from deployments.engine.gpus import gpu_facts
from deployments.engine.sizing import FitState, fit
from deployments.sources import Reply, SourceCode
from deployments.sources.huggingface import check, model_facts
from deployments.sources.listing import Place, judge
from deployments.sources.stored import BESIDE, MOST_BESIDE
from tests.deployments.preflighting import codes, said, the
from tests.deployments.wishes import facts_of

SHA = "c" * 40
L4, L40S = gpu_facts("NVIDIA-L4"), gpu_facts("NVIDIA-L40S")
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
}
# As ModelOpt 0.29 writes it beside config.json.
FILE = {
    "producer": {"name": "modelopt", "version": "0.29.0"},
    "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
}
SIZES = {"config.json": 900, "model.safetensors": 9_100_000_000, BESIDE: 400}
PARAMETERS = 8_030_261_248


def looked_up(beside: Reply, config: dict[str, Any], sizes: dict[str, int]) -> tuple[ModelFacts, list[str]]:
    """What a hub with these files tells of the model, and which files were asked for."""
    files = [{"rfilename": name, "size": size} for name, size in sizes.items()]
    asked: list[str] = []

    def get(path: str) -> Reply:
        if path.startswith("/api/models/"):
            return Reply(200, {"sha": SHA, "siblings": files, "safetensors": {"total": PARAMETERS}})
        asked.append(path.rpartition("/")[2])
        assert f"/resolve/{SHA}/" in path
        return beside if path.endswith(BESIDE) else Reply(200, config)

    found = check("nvidia/Llama-FP8", None, get)
    assert found.code is SourceCode.FOUND
    assert found.model is not None
    return found.model, asked


def test_the_file_of_modelopt_is_read_where_the_configuration_says_nothing():
    model, asked = looked_up(Reply(200, FILE), LLAMA, SIZES)
    assert asked == ["config.json", BESIDE]
    assert (model.quantization, model.cache_dtype, model.architecture) == ("modelopt", "fp8", "LlamaForCausalLM")
    # 9.1 GB of files are what it takes; counted from 16 bits it did not fit.
    result = fit(model, L4, {"max-model-len": 65_536})
    assert result.weights_gib == pytest.approx(9_100_000_000 / GIB, abs=0.01)
    assert (result.state, result.kv_bytes_per_token) == (FitState.FITS, 65_536)


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        ({**LLAMA, "quantization_config": {"quant_method": "fp8"}}, SIZES),
        (LLAMA, {name: size for name, size in SIZES.items() if name != BESIDE}),
        (LLAMA, {**SIZES, BESIDE: MOST_BESIDE + 1}),
    ],
)
def test_it_is_not_asked_for_where_it_decides_nothing_or_is_huge(config: dict[str, Any], sizes: dict[str, int]):
    assert looked_up(Reply(200, FILE), config, sizes)[1] == ["config.json"]


@pytest.mark.parametrize("reply", [Reply(503), Reply(200, None), Reply(200, ["FP8"])])
def test_where_it_cannot_be_read_the_weights_are_of_that_tool_all_the_same(reply: Reply):
    model, _ = looked_up(reply, LLAMA, SIZES)
    assert (model.quantization, model.cache_dtype) == ("modelopt", "")
    assert fit(model, L4, {"max-model-len": 8192}).weights_gib == pytest.approx(9_100_000_000 / GIB, abs=0.01)


def test_a_folder_of_a_store_and_a_document_are_read_so_too():
    def read(name: str, first: int | None) -> Reply:
        return Reply(200, FILE if name == BESIDE else LLAMA)

    model = judge(Place("s3://models/llama", read), SIZES).model
    assert model is not None
    assert (model.quantization, model.cache_dtype) == ("modelopt", "fp8")
    named = model_from({"model": {"config": LLAMA, "hf_quant_config": FILE, "weights_bytes": 9_100_000_000}})
    assert named is not None
    assert (named.quantization, named.weights_bytes) == ("modelopt", 9_100_000_000)
    plain = model_from(
        {"model": {"config": {**LLAMA, "quantization_config": {"quant_method": "awq"}}, "hf_quant_config": FILE}}
    )
    assert plain is not None
    assert plain.quantization == "awq"


@pytest.mark.parametrize(
    ("algorithm", "method"),
    [
        # model_arch_config_convertor.py: _normalize_quantization_config.
        ("FP8", "modelopt"),
        ("FP8_PB_WO", "modelopt"),
        ("NVFP4", "modelopt_fp4"),
        # Of these it says “Unknown ModelOpt quant algo”, and ends.
        ("W4A8_AWQ", "modelopt W4A8_AWQ"),
        ("MIXED_PRECISION", "modelopt MIXED_PRECISION"),
    ],
)
def test_algorithms_of_that_file_are_those_that_the_engine_takes(algorithm: str, method: str):
    beside = {**FILE, "quantization": {"quant_algo": algorithm}}
    model, _ = looked_up(Reply(200, beside), LLAMA, SIZES)
    assert model.quantization == method
    found = said(facts_of(model=model), flavor="h100", args={"max-model-len": 4096})
    assert ("quantization_unread" in codes(found)) is (" " in method)


@pytest.mark.parametrize(
    ("config", "method", "cache", "block"),
    [
        (
            {"text_config": {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}},
            "fp8",
            "",
            128,
        ),
        (
            {"text_config": {"compression_config": {"quant_method": "compressed-tensors"}}},
            "compressed-tensors",
            "",
            None,
        ),
        # The top decides where it says something.
        (
            {
                "quantization_config": {"quant_method": "awq"},
                "text_config": {"quantization_config": {"quant_method": "fp8"}},
            },
            "awq",
            "",
            None,
        ),
        # Names as vLLM spells them.
        (
            {"quantization_config": {"quant_method": "Compressed_Tensors", "kv_cache_scheme": {"num_bits": 8}}},
            "compressed-tensors",
            "fp8",
            None,
        ),
        ({"quantization_config": {"quant_method": "AWQ", "group_size": 128}}, "awq", "", 128),
        ({"quantization_config": {"quant_method": "", "bits": 4}}, None, "", None),
        # ModelOpt's KV cache is asked for of the whole model alone (utils/torch_utils.py).
        (
            {"text_config": {"quantization_config": {"quant_method": "modelopt", "kv_cache_quant_algo": "FP8"}}},
            "modelopt",
            "",
            None,
        ),
        ({"quantization_config": "fp8", "text_config": 5}, None, "", None),
    ],
)
def test_every_place_that_vllm_reads_says_how_weights_are_stored(
    config: dict[str, Any], method: str | None, cache: str, block: int | None
):
    found = model_facts("org/model", {}, config)
    assert (found.quantization, found.cache_dtype, found.quant_block) == (method, cache, block)


def test_weights_of_a_language_model_that_are_quantised_are_not_doubled():
    metadata = {
        "siblings": [{"rfilename": "model.safetensors", "size": 24_000_000_000}],
        "safetensors": {"total": 24_000_000_000},
    }
    text = {**LLAMA, "quantization_config": {"quant_method": "fp8"}}
    config = {"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3", "text_config": text}
    model = model_facts("org/model", metadata, config)
    assert fit(model, L40S, {"max-model-len": 32_768}).weights_gib == pytest.approx(22.35, abs=0.01)
    found = said(facts_of(model=model), flavor="h100", args={"max-model-len": 4096, "quantization": "fp8"})
    assert "quantization_absent" not in codes(found)


def test_small_files_without_a_word_of_quantisation_are_told_of():
    metadata = {
        "siblings": [{"rfilename": "model.safetensors", "size": 9_100_000_000}],
        "safetensors": {"total": PARAMETERS},
    }
    model = model_facts("org/model", metadata, LLAMA)
    finding = the("quantization_unsaid", said(facts_of(model=model), flavor="h100", args={"max-model-len": 4096}))
    assert not finding.is_error
    assert "1.1 bytes for each parameter" in finding.message
    assert fit(model, L40S, {"max-model-len": 4096}).weights_gib == pytest.approx(14.96, abs=0.01)
    whole = dataclasses.replace(model, weights_bytes=2 * PARAMETERS)
    assert "quantization_unsaid" not in codes(said(facts_of(model=whole), flavor="h100", args={"max-model-len": 4096}))
    # Of a configuration that could not be read nobody knows: there the files count as they are.
    gated = dataclasses.replace(model, architecture="")
    assert fit(gated, L40S, {"max-model-len": 4096}).weights_gib == pytest.approx(9_100_000_000 / GIB, abs=0.01)
    assert "quantization_unsaid" not in codes(said(facts_of(model=gated), flavor="h100", args={"max-model-len": 4096}))
