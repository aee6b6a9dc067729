"""Specs, models, flavors and wishes for the tests of the pure core."""

from __future__ import annotations

import dataclasses
from typing import Any

from deployments.engine.facts import ModelFacts
from deployments.manifests import Resolution, Wish
from deployments.preflight import ClusterFacts, Facts, FlavorFacts, QuotaFacts
from deployments.spec import DeploymentSpec

LLAMA = ModelFacts(
    id="meta-llama/Llama-3.1-8B-Instruct",
    sha="a" * 40,
    dtype="bfloat16",
    weights_bytes=16_060_556_376,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    hidden=4096,
    intermediate=14336,
    vocab=128256,
    max_position=131072,
)
# Of the same model, as its repository has it.
LLAMA_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
H100 = FlavorFacts("h100", "NVIDIA-H100-80GB-HBM3", 81559, 9.0, 4, "H100 80 GB", total=4, free=4)
L4 = FlavorFacts("l4", "NVIDIA-L4", 23034, 8.9, 8, "L4", total=16, free=16, largest_free_block=8)
T4 = FlavorFacts("t4", "Tesla-T4", 15360, 7.5, 4, "T4", total=4, free=4)
A100 = FlavorFacts("a100", "NVIDIA-A100-SXM4-40GB", 40960, 8.0, 8, "A100 40 GB", total=8, free=8)
FLAVORS = {flavor.slug: flavor for flavor in (H100, L4, T4, A100)}


def spec_json(**changes: Any) -> dict[str, Any]:
    """A valid spec as JSON; `args` replaces the engine flags."""
    args = changes.pop("args", {"max-model-len": 8192})
    spec: dict[str, Any] = {
        "source": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"},
        "flavor": "h100",
        "engine": {"args": args},
    }
    return spec | changes


def request_json(**changes: Any) -> dict[str, Any]:
    """A request as files and the API hold it: a valid spec on an L4 with its team and name."""
    return {"team": "search", "name": "chat", "spec": spec_json(**{"flavor": "l4-24gb", **changes})}


def roles_json(**changes: Any) -> dict[str, Any]:
    """A valid disaggregated spec as JSON; `args` replaces the engine flags of both roles."""
    return spec_json(**{"strategy": "disaggregated", "prefill": {}, "decode": {}, **changes})


def spec_of(**changes: Any) -> DeploymentSpec:
    """A valid spec."""
    return DeploymentSpec.from_json(spec_json(**changes))


def facts_of(**changes: Any) -> Facts:
    """Facts in which a plain request has nothing to complain about."""
    facts = Facts(
        flavors=FLAVORS,
        quotas={slug: QuotaFacts(limit=16) for slug in FLAVORS},
        model=LLAMA,
        namespace="search-ab3de",
        cluster=ClusterFacts(sandbox=True),
    )
    return dataclasses.replace(facts, **changes)


def wish_of(spec: DeploymentSpec | None = None, **changes: Any) -> Wish:
    """An approved revision of a deployment."""
    spec = spec or spec_of()
    resolution = Resolution(
        commit="a" * 40,
        image="vllm/vllm-openai@sha256:" + "1" * 64,
        product="NVIDIA-H100-80GB-HBM3",
        gpus_per_replica=spec.gpus_per_replica,
        weights_bytes=16_060_556_376,
    )
    wish = Wish("install", "42", "chat", "search-ab3de", "search", 3, spec, resolution)
    return dataclasses.replace(wish, **changes)
