"""Settings under which a model runs on each kind of GPU: the fewest GPUs, the longest round context that fits well."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from deployments.engine.defaults import NEWEST, Defaults
from deployments.engine.facts import ModelFacts
from deployments.engine.gpus import FP8_CAPABILITY
from deployments.engine.kv_layers import whole
from deployments.engine.options import Choice, splits
from deployments.engine.sizing import FitState, UnknownShapeError, fit
from deployments.spec import PARALLEL, ArgValue

# Contexts in tokens, the longest first; less than the last is not proposed where the model can do more.
LENGTHS = (32_768, 16_384, 8_192)
SHORT = (4_096, 2_048)
# Requests of full length that a replica holds at once: with fewer, one long prompt keeps everybody waiting.
AT_ONCE = 2.0
SPLIT = "tensor-parallel-size"


@dataclass(frozen=True)
class Preset:
    """Settings that run a model on one kind of GPU: the flavor's slug, engine flags, and how many replicas."""

    flavor: str
    args: Mapping[str, ArgValue] = field(default_factory=dict, hash=False)
    replicas: int = 1

    @property
    def per_replica(self) -> int:
        """GPUs of one replica."""
        return math.prod(max(1, whole(self.args, flag, 1)) for flag in PARALLEL)

    @property
    def gpus(self) -> int:
        """GPUs that it takes in all."""
        return self.per_replica * self.replicas

    def as_json(self) -> dict[str, Any]:
        """This preset as plain JSON values."""
        return {"flavor": self.flavor, "args": dict(self.args), "replicas": self.replicas}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """A preset as it was stored."""
        return cls(str(data["flavor"]), dict(data.get("args", {})), int(data.get("replicas", 1)))


def propose(
    model: ModelFacts,
    choices: Iterable[Choice],
    defaults: Defaults = NEWEST,
    beside: Mapping[str, ArgValue] | None = None,
) -> list[Preset]:
    """A preset for each flavor that holds the model with room to spare; none while its shape is not known.

    Those with the fewest GPUs come first, of these the cheapest.
    `beside` are flags that the engine has anyway; presets do not name them.
    """
    try:
        found = [(choice, _on(model, choice, defaults, beside or {})) for choice in choices]
    except UnknownShapeError:
        return []
    held = [(choice.rank(preset.gpus), preset) for choice, preset in found if preset is not None]
    return [preset for _, preset in sorted(held, key=lambda each: each[0])]


def _on(model: ModelFacts, choice: Choice, defaults: Defaults, beside: Mapping[str, ArgValue]) -> Preset | None:
    caches = ("", "fp8") if choice.gpu.compute_capability >= FP8_CAPABILITY else ("",)
    for size in splits(model, max(1, choice.gpus_per_node)):
        for cache in caches:  # A shorter context costs nothing; a smaller cache some precision.
            for length in _lengths(model):
                args: dict[str, ArgValue] = {SPLIT: size, "max-model-len": length}
                if cache:
                    args["kv-cache-dtype"] = cache
                result = fit(model, choice.gpu, {**beside, **args}, defaults=defaults)
                if result.state is FitState.FITS and (result.concurrency >= AT_ONCE or not result.kv_bytes_per_token):
                    return Preset(choice.slug, args)
    return None


def _lengths(model: ModelFacts) -> list[int]:
    """Contexts to try, none longer than the model's own."""
    most = model.max_position or LENGTHS[-1]
    return [length for length in LENGTHS if length <= most] or [length for length in SHORT if length <= most] or [most]
