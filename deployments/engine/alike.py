"""Flags that two engines must have alike for one to take over the KV cache of the other, and when values are alike.

As vLLM 0.32.0 compares them (kv_connector/v1/nixl: `compute_nixl_compatibility_hash`, and the cache groups of a pull).
"""

from __future__ import annotations

from collections.abc import Mapping

from deployments.engine.dtypes import SPELLED
from deployments.spec import ArgValue

# What shapes the KV cache: it is handed over as it lies in memory.
SHAPES = ("block-size", "dtype", "kv-cache-dtype", "quantization", "revision")
# What decides on the kernels and on the kinds of cache: by these the connectors tell whether they fit.
COMPARED = ("attention-backend", "disable-hybrid-kv-cache-manager", "disable-sliding-window", "language-model-only")
AUTO = "auto"
# Flags that take “auto” for what holds without them.
WITH_AUTO = frozenset({"dtype", "kv-cache-dtype"})


def plain(value: ArgValue | None) -> ArgValue | None:
    """A value by its full name, None for one that says what holds without the flag.

    Formats of the KV cache have one spelling each: the connectors compare the words (`fp8` is not `fp8_e4m3` to them).
    """
    if value is False or str(value).lower() == AUTO:
        return None
    return SPELLED.get(value, value) if isinstance(value, str) else value


def unlike(prefill: Mapping[str, ArgValue], decode: Mapping[str, ArgValue]) -> list[str]:
    """Flags that are not alike and must be."""
    return [flag for flag in (*SHAPES, *COMPARED) if plain(prefill.get(flag)) != plain(decode.get(flag))]
