"""What public reports say of real engines, and what the estimate says to the same question.

The reports come in two parts: those the heuristics were fitted to, and those held back. Nothing here may be tuned
to a case: where a report leaves out what decides (how much the engine itself takes, or its share of the GPU), no
number of tokens is compared, and the table says why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deployments.engine.defaults import Defaults
from deployments.engine.facts import GIB, GpuFacts, ModelFacts
from deployments.engine.measured import Measured
from deployments.engine.sizing import Fit, FitState, fit

FILE = Path(__file__).resolve().parents[2] / "tests" / "data" / "engine" / "memory-references.json"
# The engines of the reports are older than those offered: prompts in one piece (V0), CUDA graphs beside the budget.
ENGINES = {
    "V0": Defaults(utilization=0.9, graphs_counted=False, chunked=False, most_sequences=256),
    "V1": Defaults(utilization=0.9, graphs_counted=False),
}
# What a GPU of 80 GB shows, where the report does not say.
TYPICAL_GIB = 79.2
TOLERANCE = 0.05


@dataclass(frozen=True)
class Answer:
    """One report and the estimate for it. Tokens are None where they cannot be compared; `note` says why."""

    id: str
    split: str
    title: str
    fits: bool
    reported_fits: bool
    weights_gib: float
    reported_weights_gib: float | None
    from_memory: int | None
    tokens: int | None
    reported_tokens: int | None
    note: str

    @property
    def weights_error(self) -> float | None:
        """Relative error of the weights; None where they were not reported."""
        return _error(self.weights_gib, self.reported_weights_gib)

    @property
    def memory_error(self) -> float | None:
        """Relative error of the tokens that the reported KV memory holds."""
        return _error(self.from_memory, self.reported_tokens)

    @property
    def tokens_error(self) -> float | None:
        """Relative error of the tokens, from what the report says of the engine's own memory."""
        return _error(self.tokens, self.reported_tokens)


@cache
def points() -> dict[str, dict[str, Any]]:
    """The reports, by id."""
    return {point["id"]: point for point in _document()["points"]}


def answers() -> list[Answer]:
    """The estimate for every report, in order."""
    return [_answer(point) for point in points().values()]


def model_of(point: Mapping[str, Any]) -> ModelFacts:
    """The model of a report, by its shape alone: its weights are counted, not read."""
    shape = _document()["architectures"][point["arch"]]
    return ModelFacts(
        id=shape["hf"].split(" ", 1)[0],
        quantization=point.get("quant"),
        params=shape["params"],
        layers=shape["layers"],
        heads=shape["attention_heads"],
        kv_heads=shape["kv_heads"],
        head_dim=shape["head_dim"],
        hidden=shape["hidden"],
        intermediate=shape.get("intermediate"),
        vocab=shape["vocab"],
        max_position=131072,
    )


def gpu_of(point: Mapping[str, Any]) -> GpuFacts:
    """The GPU of a report; where its memory is not given, that of the usual one of 80 GB."""
    return GpuFacts(point["gpu"], point.get("visible_gib", TYPICAL_GIB), 9.0)


def args_of(point: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's flags in a report."""
    args: dict[str, Any] = {"tensor-parallel-size": point["tp"], "pipeline-parallel-size": point["pp"]}
    for flag, name in (("gpu-memory-utilization", "util"), ("max-model-len", "max_model_len")):
        if name in point:
            args[flag] = point[name]
    if point["kv_dtype"] == "fp8":
        args["kv-cache-dtype"] = "fp8"
    return args


def own_memory(point: Mapping[str, Any]) -> Measured | None:
    """What the report says the engine takes for itself; None where it does not."""
    if "activation_gib" in point:
        return Measured(activation_gib=point["activation_gib"], non_torch_gib=point.get("non_torch_gib", 0.0))
    if "overhead_gib" in point:
        return Measured(activation_gib=0.0, non_torch_gib=point["overhead_gib"])
    return None


def estimate(point: Mapping[str, Any], measured: Measured | None = None, **more: Any) -> Fit:
    """The estimate for a report's question, `more` flags on top."""
    return fit(
        model_of(point), gpu_of(point), args_of(point) | more, defaults=ENGINES[point["engine"]], measured=measured
    )


def _answer(point: Mapping[str, Any]) -> Answer:
    own = own_memory(point)
    result = estimate(point, own)
    given = point.get("kv_gib_per_gpu")
    held = {"kv-cache-memory-bytes": int(given * GIB)} if given and given > 0 else None
    lacks = [words for name, words in (("visible_gib", "the GPU's memory"), ("util", "its share")) if name not in point]
    if own is None:
        lacks.append("what the engine takes for itself")
    reported = point.get("kv_tokens")
    return Answer(
        id=point["id"],
        split=point["split"],
        title=f"{point['arch']} {point['quant'] or point['dtype']} on {point['gpu']}",
        fits=result.state is not FitState.NO,
        reported_fits=point["outcome"] == "fits",
        weights_gib=result.weights_gib,
        reported_weights_gib=point.get("weights_gib_per_gpu"),
        from_memory=estimate(point, **held).kv_tokens if held else None,
        tokens=None if "util" not in point or point["gpu"] == "not stated" else result.kv_tokens,
        reported_tokens=reported if reported else None,
        note=f"not reported: {', '.join(lacks)}" if lacks else "",
    )


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return document


def _error(predicted: float | None, reported: float | None) -> float | None:
    return predicted / reported - 1 if predicted is not None and reported else None
