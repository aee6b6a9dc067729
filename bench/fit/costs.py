"""What one check and one fit cost, and what checks of many wishes do: right ones, and wrong in several ways at once."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import deployments
from deployments.commandline import check_document, render_document
from deployments.engine.facts import ModelFacts
from deployments.fitting import fit_document
from deployments.preflight import Facts, FlavorFacts, QuotaFacts, check
from deployments.spec import DeploymentSpec

BUDGET_MS = 10.0
CONFIG = {
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
REQUEST: dict[str, Any] = {
    "team": "search",
    "name": "chat",
    "model": {"config": CONFIG},
    "spec": {
        "source": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"},
        "flavor": "l4-24gb",
        "engine": {"args": {"max-model-len": 65536, "gpu-memory-utilization": 0.9, "enable-prefix-caching": True}},
    },
}
# A wish that costs much: two roles whose remedies are each tried through all rules, with layers that keep a window.
GEMMA: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_attention_heads": 32,
        "num_hidden_layers": 62,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "sliding_window": 1024,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 131072,
        "vocab_size": 262208,
    },
    "torch_dtype": "bfloat16",
}
TWO_ROLES: dict[str, Any] = {
    "team": "search",
    "name": "chat",
    "model": {"config": GEMMA, "weights_bytes": 54_000_000_000},
    "spec": {
        "source": {"uri": "hf://google/gemma-3-27b-it"},
        "flavor": "l4-24gb",
        "strategy": "disaggregated",
        "prefill": {},
        "decode": {},
    },
}
# DeepSeek-R1, which no one node of most GPUs holds; the other models are those of the catalogue.
R1 = ModelFacts(
    id="deepseek-ai/DeepSeek-R1",
    architecture="DeepseekV3ForCausalLM",
    quantization="fp8",
    quant_block=128,
    weights_bytes=688_586_727_753,
    layers=61,
    heads=128,
    kv_heads=128,
    head_dim=128,
    hidden=7168,
    intermediate=18_432,
    vocab=129_280,
    max_position=163_840,
    experts=256,
    expert_intermediate=2048,
    kv_lora_rank=512,
    rope_head_dim=64,
    mtp_layers=1,
)
# Flavor, product, MiB, compute capability, GPUs of a node, nodes, and how a pod asks for one.
Gpu = tuple[str, str, int, float, int, int, str]
DEMO: tuple[Gpu, ...] = (
    ("h100-80gb", "NVIDIA-H100-80GB-HBM3", 81_559, 9.0, 4, 1, "gpu"),
    ("l40s-48gb", "NVIDIA-L40S", 46_068, 8.9, 8, 1, "gpu"),
    ("l4-24gb", "NVIDIA-L4", 23_034, 8.9, 8, 2, "gpu"),
)
GPUS: tuple[Gpu, ...] = (
    ("h100", "NVIDIA-H100-80GB-HBM3", 81_559, 9.0, 8, 4, "gpu"),
    ("h200", "NVIDIA-H200", 143_771, 9.0, 8, 2, "gpu"),
    ("a100", "NVIDIA-A100-SXM4-40GB", 40_960, 8.0, 8, 2, "gpu"),
    ("l4", "NVIDIA-L4", 23_034, 8.9, 8, 2, "gpu"),
    ("t4", "Tesla-T4", 15_360, 7.5, 4, 2, "gpu"),
    ("mig", "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb", 40_448, 9.0, 4, 1, "mig-3g.40gb"),
    ("shared", "NVIDIA-L4-SHARED", 23_034, 8.9, 8, 1, "gpu.shared"),
)
# Flags that are left out, that are right somewhere, and that are wrong nearly everywhere.
FLAGS: tuple[dict[str, Any], ...] = (
    {},
    {"tensor-parallel-size": 8},
    {"tensor-parallel-size": 3},
    {"max-model-len": 131_072},
    {"kv-cache-dtype": "fp8", "max-model-len": 1_000_000},
    {"pipeline-parallel-size": 2, "enable-expert-parallel": True},
)


@dataclass(frozen=True)
class Cost:
    """What one call of a command takes, in ms: of the processor and by the clock; the ratio is of processor times."""

    name: str
    processor: float
    clock: float
    ratio: float


def costs(rounds: int) -> list[Cost]:
    """Medians over so many calls of each command, and the ratio to the yardstick."""
    block = bytes(1024 * 1024)
    yardstick, _ = _medians(lambda: hashlib.sha256(block).digest(), rounds)
    commands: list[tuple[str, Callable[[], object]]] = [
        ("check", lambda: check_document(REQUEST)),
        ("check, two roles", lambda: check_document(TWO_ROLES)),
        ("fit", lambda: fit_document(REQUEST)),
        ("render", lambda: render_document(REQUEST)),
    ]
    found = []
    for name, command in commands:
        command()  # Files are read once.
        processor, clock = _medians(command, rounds)
        found.append(Cost(name, processor, clock, processor / yardstick))
    return found


def _medians(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Milliseconds of one call on the processor and by the clock. The clock also counts what others take meanwhile."""
    processor, clock = zip(*(_once(work) for _ in range(rounds)), strict=True)
    return statistics.median(processor) * 1000, statistics.median(clock) * 1000


def _once(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one call: of the processor and by the clock."""
    begin = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - begin[0], time.perf_counter() - begin[1]


def wishes(gpus: Sequence[Gpu] = GPUS) -> Iterator[tuple[str, DeploymentSpec, Facts]]:
    """Every model of the catalogue, and one that is too large, on each of these GPUs, in two strategies."""
    catalogue = Path(deployments.__file__).parent / "data" / "catalog.json"
    rows = json.loads(catalogue.read_text(encoding="utf-8"))["models"]
    flavors = {
        slug: FlavorFacts(
            slug,
            product,
            memory,
            capability,
            per_node,
            resource_name=f"nvidia.com/{resource}",
            total=per_node * nodes,
            free=per_node * nodes,
            nodes=nodes,
        )
        for slug, product, memory, capability, per_node, nodes, resource in gpus
    }
    quotas = {slug: QuotaFacts(limit=64) for slug in flavors}
    for model in (R1, *(ModelFacts.from_json({"id": row["uri"], **row["facts"]}) for row in rows)):
        facts = Facts(flavors=flavors, quotas=quotas, model=model)
        for slug, apart, flags in product(flavors, (False, True), FLAGS):
            yield (
                f"{model.id} on {slug}{', two roles' if apart else ''}, {flags}",
                _spec(slug, flags, apart=apart),
                facts,
            )


def _spec(flavor: str, flags: dict[str, Any], *, apart: bool) -> DeploymentSpec:
    spec: dict[str, Any] = {"source": {"uri": "hf://acme/model"}, "flavor": flavor}
    if apart:
        own = {name: value for name, value in flags.items() if name.endswith("-parallel-size")}
        flags = {name: value for name, value in flags.items() if name not in own}
        spec |= {"strategy": "disaggregated", "prefill": {"args": own}, "decode": {"args": own}}
    return DeploymentSpec.from_json({**spec, "engine": {"args": flags}})


def print_costs(rounds: int) -> bool:
    """Print the costs of single commands and of checks of many wishes; True where one of the first is over budget."""
    print(f"\n{'':<18}{'processor, ms':>15}{'clock, ms':>12}{'× sha256 of 1 MiB':>20}")
    slow = False
    for cost in costs(rounds):
        print(f"{cost.name:<18}{cost.processor:>15.2f}{cost.clock:>12.2f}{cost.ratio:>20.1f}")
        slow = slow or (cost.name != "render" and cost.processor >= BUDGET_MS)
    if slow:
        print(f"check or fit took {BUDGET_MS:g} ms or more")
    for where, gpus in (("the demo's", DEMO), ("other", GPUS)):
        _print_many(where, gpus, max(3, rounds // 60))
    return slow


def _print_many(where: str, gpus: Sequence[Gpu], rounds: int) -> None:
    """Checks of many wishes: each by the best of its rounds, as others take the processor's caches in the others."""
    found = []
    for title, spec, facts in wishes(gpus):
        check(spec, "chat", "search", facts)
        times = [_once(lambda spec=spec, facts=facts: check(spec, "chat", "search", facts))[0] for _ in range(rounds)]
        found.append((min(times) * 1000, title))
    found.sort(reverse=True)
    times = [each for each, _ in found]
    over = sum(each >= BUDGET_MS for each in times)
    print(f"\nchecks of {len(found):,} wishes on {where} {len(gpus)} flavors, processor ms, best of {rounds} each:")
    print(f"median {statistics.median(times):.2f}, p95 {times[len(times) // 20]:.2f}, most {times[0]:.2f}; ", end="")
    print(f"{over} of {BUDGET_MS:g} or more. The dearest:")
    for each, title in found[:3]:
        print(f"  {each:5.2f}  {title}")
