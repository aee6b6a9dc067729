"""Wishes of every shape, the same ones each time: right ones, wrong ones, and ones that nobody thought of."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from deployments.documents import seeded_flavors
from deployments.engine.flags import Flag, FlagClass, flags_of
from tests.deployments.preflighting import SERVED
from tests.deployments.wishes import LLAMA_CONFIG

VERSION = "0.32.0"
SETTABLE = [flag for flag in flags_of(VERSION).values() if flag.cls in {FlagClass.OPEN, FlagClass.GUARDED}]
FLAVORS = sorted(seeded_flavors())
DIGEST = "@sha256:" + "1" * 64
COMMIT = "a" * 40
SOURCES = [
    *["hf://meta-llama/Llama-3.1-8B-Instruct"] * 4,
    "hf://o/m:main",
    *["s3://bucket/models/llama", "gs://bucket/models/llama", "pvc://claim/llama", "pvc://claim"],
    *["s3://bucket/m.gguf", "pvc://claim/m.gguf", "https://files.example.com/m.gguf"],
    *["https://files.example.com/m.tar.gz", "models:/chat/3", "model-registry://chat/v3"],
    *[f"oci://registry.example.com/models/llama{DIGEST}"] * 2,
    "oci://registry.example.com/models/llama:1.0",
]
IMAGES = [uri for uri in SOURCES if uri.startswith("oci")]
LIKELY = {"standard": SOURCES, "disaggregated": [SOURCES[0], "s3://bucket/models/llama", *IMAGES], "oci-volume": IMAGES}
LWS = {**SERVED, "leaderworkerset.x-k8s.io": ("v1",)}
CLUSTERS: list[dict[str, Any]] = [
    {"groups": {name: list(versions) for name, versions in LWS.items()}, "version": "v1.36.2"},
    {"groups": {name: list(versions) for name, versions in LWS.items() if name != "keda.sh"}, "version": "v1.34.0"},
    {"groups": {}, "version": ""},
]
MODELS: list[dict[str, Any] | None] = [
    {"config": LLAMA_CONFIG, "weights_bytes": 16_060_556_376, "download_bytes": 16_070_000_000},
    {
        "config": {**LLAMA_CONFIG, "num_local_experts": 8, "moe_intermediate_size": 1792},
        "weights_bytes": 30_000_000_000,
        "download_bytes": 30_000_000_000,
    },
    {
        "config": {**LLAMA_CONFIG, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
        "weights_bytes": 9_000_000_000,
        "download_bytes": 9_000_000_000,
    },
    None,
]


def wishes(seed: int, count: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """So many documents as `spec` commands take them, each with its facts."""
    dice = random.Random(seed)
    for _ in range(count):
        document: dict[str, Any] = {"team": "search", "name": dice.choice([*["chat", "chat-2"] * 8, "Chat", "vllm-x"])}
        document["spec"] = _spec(dice)
        if (model := dice.choice(MODELS)) is not None:
            document["model"] = model
        yield document, {"cluster": dice.choice(CLUSTERS), "wish": {"namespace": "search-ab3de"}}


def _spec(dice: random.Random) -> dict[str, Any]:
    strategy = dice.choice(["standard"] * 4 + ["disaggregated"] * 2 + ["oci-volume"] * 2)
    likely = LIKELY[strategy] if dice.random() < 0.8 else SOURCES
    source: dict[str, Any] = {"uri": dice.choice(likely)}
    if dice.random() < (0.4 if source["uri"].startswith("hf") else 0.02):
        source["revision"] = dice.choice(["main", COMMIT, "v1.0", "refs/pr/1", "../main"])
    if dice.random() < 0.16:
        source["cache"] = "claim"
    if dice.random() < (0.3 if source["uri"].startswith("oci") else 0.02):
        source["folder"] = dice.choice(["/models", "/weights/llama", "/"])
    spec: dict[str, Any] = {
        "source": source,
        "strategy": strategy,
        "flavor": dice.choice(FLAVORS),
        "engine": {"args": {"max-model-len": dice.choice([2048, 8192, 8192, 131_072]), **_args(dice)}},
    }
    if strategy == "disaggregated" or dice.random() < 0.03:
        spec["prefill"], spec["decode"] = (
            {"replicas": _replicas(dice), "args": _split(dice, stages=0.05)} for _ in range(2)
        )
    if strategy != "disaggregated" or dice.random() < 0.03:
        spec["replicas"] = _replicas(dice)
        spec["engine"]["args"] |= _split(dice, stages=0.15)
    if dice.random() < (0.25 if strategy == "standard" else 0.03):
        spec["nodes"] = dice.choice([1, 2, 2, 3])
        if dice.random() < 0.8:
            spec["engine"]["args"]["pipeline-parallel-size"] = spec["nodes"]
    if dice.random() < (0.1 if strategy != "disaggregated" and spec.get("nodes", 1) == 1 else 0.02):
        spec["surge"] = dice.choice([0, 1, 1, 2])
    if dice.random() < 0.06:
        spec["scaling"] = {"concurrency": dice.choice([1, 10, 200]), "percent": dice.choice([10, 80, 100])}
    if dice.random() < 0.16:
        spec["adapters"] = [
            {"name": f"lora-{place}", "uri": f"hf://o/lora{place}", "revision": dice.choice([None, COMMIT])}
            for place in range(dice.choice([1, 2, 8]))
        ]
    return spec


def _replicas(dice: random.Random) -> dict[str, int]:
    least = dice.choice([1, 1, 2])
    return {"min": least, "max": dice.choice([least, least, 4, 1])}


def _split(dice: random.Random, *, stages: float) -> dict[str, int]:
    split: dict[str, int] = {}
    if dice.random() < 0.5:
        split["tensor-parallel-size"] = dice.choice([1, 2, 2, 4, 8, 3])
    if dice.random() < stages:
        split["pipeline-parallel-size"] = dice.choice([1, 2, 2, 3])
    return split


def _args(dice: random.Random) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if dice.random() < 0.3:
        args["dtype"] = dice.choice(["auto", "half", "bfloat16", "float32", "float8"])
    if dice.random() < 0.25:
        args["quantization"] = dice.choice(["fp8", "awq", "bitsandbytes", "mxfp4", "gguf", "experts_int8"])
    for flag in dice.sample(SETTABLE, dice.choice([0, 0, 1, 1, 2, 4])):
        args[flag.name] = _value(dice, flag)
    return args


def _value(dice: random.Random, flag: Flag) -> Any:
    if dice.random() < 0.05:
        return dice.choice(["32k", -1, 10**12, 0.5, True, "{{x}}", "$(x)", "a b"])
    if flag.kind == "bool":
        return dice.choice([True, False])
    if flag.choices:
        value = dice.choice(flag.choices)
        return int(value) if flag.kind == "int" else value
    low, high = flag.min or 0, flag.max if flag.max is not None else 100
    number = dice.choice([low, high, (low + high) / 2])
    return int(number) if flag.kind == "int" else number if flag.kind == "float" else "auto"
