"""What vLLM assumes where a flag is not given; it differs by version."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from deployments.engine.facts import ModelFacts
from deployments.engine.flags import flags_of, release, versions

# Since then the estimate of CUDA graphs is part of the share that gpu-memory-utilization allows.
GRAPHS_COUNTED_SINCE = (0, 21)
# Up to 0.20 the context was multiplied by the factor of YaRN; 0.32 takes it as the configuration gives it.
YARN_AS_GIVEN_SINCE = (0, 21)


@dataclass(frozen=True)
class Defaults:
    """Defaults of one vLLM: share of memory, most requests at once on large GPUs, and what counts in its budget.

    `yarn_multiplied`: the context that a configuration names is stretched by the factor of YaRN.
    """

    utilization: float = 0.92
    graphs_counted: bool = True
    chunked: bool = True
    most_sequences: int = 1024
    yarn_multiplied: bool = False


NEWEST = Defaults()


@cache
def defaults_of(version: str) -> Defaults:
    """The defaults of a vLLM version; those of the newest where its flags are not known."""
    if version not in versions():
        return NEWEST
    utilization = flags_of(version)["gpu-memory-utilization"].default
    return Defaults(
        utilization=float(utilization) if isinstance(utilization, int | float) else NEWEST.utilization,
        graphs_counted=release(version) >= GRAPHS_COUNTED_SINCE,
        yarn_multiplied=release(version) < YARN_AS_GIVEN_SINCE,
    )


def as_taken(model: ModelFacts, defaults: Defaults) -> ModelFacts:
    """The model with the longest context that this vLLM takes it for."""
    if defaults.yarn_multiplied and model.max_position_stretched:
        return replace(model, max_position=model.max_position_stretched)
    return model
