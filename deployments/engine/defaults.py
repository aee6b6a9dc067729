"""What vLLM assumes where a flag is not given; it differs by version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from deployments.engine.facts import ModelFacts
from deployments.engine.flags import flags_of, release, versions
from deployments.spec import ArgValue

# Since when things are as they are now, read from the source of every release from 0.17 on.
# The estimate of CUDA graphs is part of the share that gpu-memory-utilization allows (envs.py).
GRAPHS_COUNTED_SINCE = (0, 20)
# The context is taken as the configuration gives it; before, the factor of YaRN stretched it (config/model.py).
YARN_AS_GIVEN_SINCE = (0, 30)
WINDOWS_IN_FLIGHT_SINCE = (0, 26)
TOKENS_BY_REQUESTS_SINCE = (0, 20, 2)
WIDE_GROUPS_SINCE = (0, 18)
DEEPSEEK_FP8_UNTIL = (0, 18)
FLASHINFER_FP8_SINCE = (0, 20)
GLM_FP8_SINCE = (0, 26)
LARGEST_STEPS_SINCE = (0, 26)


@dataclass(frozen=True)
class Defaults:
    """Defaults of one vLLM: share of memory, most requests at once on large GPUs, and what counts in its budget.

    `yarn_multiplied`: the context that a configuration names is stretched by the factor of YaRN. `windows_in_flight`:
    layers with a window keep what every step that is under way may need. `tokens_by_requests`: of layers that keep
    different things it reports the tokens of full requests that fit. `group_slack`: layers of different kinds are put
    together in equal groups as long as there are fewer than so many times more of one kind. `largest_steps`: GPUs of
    160 GiB and more take steps twice as large as other large ones.

    Of latent attention to a choice of tokens: `deepseek_fp8` keeps every fp8 in DeepSeek's own layout whatever the
    kernels, `flashinfer_fp8` prefers kernels that keep it plain where a GPU has them, and `glm_fp8` keeps GLM's in
    fp8 there where nothing is asked for.
    """

    utilization: float = field(default_factory=lambda: _share(versions()[-1]))
    graphs_counted: bool = True
    chunked: bool = True
    most_sequences: int = 1024
    yarn_multiplied: bool = False
    windows_in_flight: bool = True
    tokens_by_requests: bool = True
    group_slack: float = 1.5
    largest_steps: bool = True
    deepseek_fp8: bool = False
    flashinfer_fp8: bool = True
    glm_fp8: bool = True


def _share(version: str) -> float:
    """The share of a GPU's memory that this vLLM takes where nobody says another: its flag file has it."""
    default = flags_of(version)["gpu-memory-utilization"].default
    if isinstance(default, bool) or not isinstance(default, int | float):
        raise ValueError(f"vLLM {version} names no share of memory that it takes by itself")
    return float(default)


NEWEST = Defaults()


@cache
def defaults_of(version: str) -> Defaults:
    """The defaults of a vLLM version; those of the newest where its flags are not known."""
    if version not in versions():
        return NEWEST
    return Defaults(
        utilization=_share(version),
        graphs_counted=release(version) >= GRAPHS_COUNTED_SINCE,
        yarn_multiplied=release(version) < YARN_AS_GIVEN_SINCE,
        windows_in_flight=release(version) >= WINDOWS_IN_FLIGHT_SINCE,
        tokens_by_requests=release(version) >= TOKENS_BY_REQUESTS_SINCE,
        group_slack=1.5 if release(version) >= WIDE_GROUPS_SINCE else 1.25,
        deepseek_fp8=release(version) < DEEPSEEK_FP8_UNTIL,
        flashinfer_fp8=release(version) >= FLASHINFER_FP8_SINCE,
        glm_fp8=release(version) >= GLM_FP8_SINCE,
        largest_steps=release(version) >= LARGEST_STEPS_SINCE,
    )


def as_taken(model: ModelFacts, defaults: Defaults) -> ModelFacts:
    """The model with the longest context that this vLLM takes it for."""
    if defaults.yarn_multiplied and model.max_position_stretched:
        return replace(model, max_position=model.max_position_stretched)
    return model


def as_asked(model: ModelFacts, args: Mapping[str, ArgValue]) -> ModelFacts:
    """The model as the flags leave it: without sliding windows, its context is the window, all of which layers keep.

    As `_get_and_verify_max_len` and `ModelConfig` (config/model.py).
    """
    window = model.sliding_window
    if args.get("disable-sliding-window") is not True or not window:
        return model
    lengths = (model.max_position, model.max_position_stretched, model.context_unasked)
    longest, stretched, unasked = (min(length, window) if length else length for length in lengths)
    return replace(
        model,
        sliding_window=None,
        sliding_layers=0,
        max_position=longest or window,
        max_position_stretched=stretched,
        context_unasked=unasked,
    )
