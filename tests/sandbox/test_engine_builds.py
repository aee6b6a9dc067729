"""What an engine reads follows its version and the plugins of its image, and it ends as the real one does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from deployments.kube.log_causes import from_log
from sandbox.engine import args as cli
from sandbox.engine import memory, shape
from sandbox.engine.boot import ModelFiles
from sandbox.engine.builds import Build
from sandbox.engine.errors import EngineExit
from sandbox.engine.process import EngineProcess
from sandbox.node import images
from tests.sandbox.engine_support import QWEN_7B, files_of, run_engine

OLDER, PLAIN, WITH = Build("0.20.0"), Build(), Build(plugins=frozenset({"gguf", "bitsandbytes"}))
FILE = ["--model=/mnt/models/chat.gguf", "--max-model-len=2048"]
SECTION = "quantization_config"
SHORT = ["--max-model-len=2048", "--enforce-eager"]


def quantised(name: str) -> ModelFiles:
    found = files_of(QWEN_7B)
    return replace(found, config={**found.config, "quantization_config": {"quant_method": name}})


def one_file(*beside: str) -> ModelFiles:
    return ModelFiles(quantised("gguf").config, {"chat.gguf": 4 << 30, **dict.fromkeys(beside, 500)})


def end(words: list[str], found: ModelFiles, build: Build, *, serves: bool) -> tuple[int, str]:
    async def seen(process: EngineProcess, http: httpx.AsyncClient) -> None:
        answer = await http.get("http://127.77.5.2:8219/version")
        assert answer.json() == {"version": build.version}

    code, log = asyncio.run(
        run_engine(["--port=8219", *words], ip="127.77.5.2", found=found, build=build, until=seen if serves else None)
    )
    return code, "\n".join(log)


@pytest.mark.parametrize(
    ("words", "found", "build"),
    [
        (FILE, one_file(), OLDER),
        (FILE, one_file("config.json"), WITH),
        (SHORT, quantised("bitsandbytes"), OLDER),
        (SHORT, quantised("bitsandbytes"), WITH),
        (SHORT, quantised("auto-round"), PLAIN),
    ],
)
def test_what_a_build_reads_it_serves(words: list[str], found: ModelFiles, build: Build):
    code, log = end(words, found, build, serves=True)
    assert code == 0
    assert f"version {build.version}" in log


@pytest.mark.parametrize(
    ("words", "found", "build", "said", "reason"),
    [
        (FILE, one_file(), PLAIN, "config file at '/mnt/models/chat.gguf' is not a valid JSON file", "plugin_missing"),
        (SHORT, one_file(), PLAIN, "config file at '/mnt/models' is not a valid JSON file", "plugin_missing"),
        (FILE, one_file(), WITH, "/mnt/models does not appear to have a file named config.json", "model_files"),
        (SHORT, quantised("bitsandbytes"), PLAIN, "Unknown quantization method: bitsandbytes.", "plugin_missing"),
        (
            SHORT,
            quantised("hqq"),
            OLDER,
            "Unknown quantization method: hqq. Must be one of ['awq', 'fp8'",
            "quantization",
        ),
        ([*SHORT, "--quantization=petit_nvfp4"], quantised("fp8"), PLAIN, "method: petit_nvfp4", "quantization"),
    ],
)
def test_what_it_does_not_read_ends_it_and_the_cause_is_told(
    words: list[str], found: ModelFiles, build: Build, said: str, reason: str
):
    code, log = end(words, found, build, serves=False)
    cause = from_log(log)
    assert (code, said in log) == (1, True), log[-600:]
    assert cause is not None
    assert cause.code == reason
    assert cause.remedy
    if reason == "plugin_missing":
        assert cause.field == "profile"
        assert f"vllm-{'gguf' if 'gguf' in said or found.files.get('chat.gguf') else 'bnb'}-plugin" in cause.title


def test_each_version_has_flags_of_its_own():
    def taken(version: str, *words: str) -> Any:
        return cli.parse(["vllm", "serve", "m"], list(words), version)

    assert (
        taken("0.20.0", "--calculate-kv-scales", "--max-num-partial-prefills=2").max_queued
        == cli.parse(["m"], []).max_queued
    )
    assert taken("0.32.0", "--max-num-queued-reqs=4").max_queued == 4
    # Of a flag with two names the older version has one.
    assert taken("0.20.0", "--gpu-memory-utilization=0.8").memory_utilization == 0.8
    assert taken("0.32.0", "--device-memory-utilization=0.8").memory_utilization == 0.8
    for version, word in (
        ("0.20.0", "--max-num-queued-reqs=4"),
        ("0.20.0", "--device-memory-utilization=0.8"),
        ("0.32.0", "--calculate-kv-scales"),
    ):
        with pytest.raises(EngineExit):
            taken(version, word)


@pytest.mark.parametrize(
    ("reference", "build"),
    [
        ("vllm/vllm-openai:v0.32.0", PLAIN),
        (f"vllm/vllm-openai@sha256:{'a' * 64}", PLAIN),
        (f"vllm/vllm-openai:v0.20.0@sha256:{'a' * 64}", OLDER),
        ("ghcr.io/slipway-engines/vllm-openai-gguf:v0.32.0", Build(plugins=frozenset({"gguf"}))),
    ],
)
def test_an_image_says_which_vllm_it_has(reference: str, build: Build):
    assert images.find(images.parse(reference)).build(reference) == build


def test_a_cache_that_the_weights_ask_for_is_taken_where_nothing_else_is():
    found = quantised("compressed-tensors")
    section = {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    plain, asks = (shape.read(config, found.files) for config in (found.config, {**found.config, SECTION: section}))
    auto, wide = (cli.parse(["m"], words) for words in ([], ["--kv-cache-dtype=bfloat16"]))
    per_token = [memory.kv_bytes_per_token(args, model) for args in (auto, wide) for model in (plain, asks)]
    assert per_token[1] * 2 == per_token[0] == per_token[2] == per_token[3]
