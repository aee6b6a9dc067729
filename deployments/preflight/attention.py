"""The rule about attention kernels that are asked for by name: vLLM takes no others in their place, and ends."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.engine.attention import backends, checked_version, obstacles
from deployments.engine.dtypes import dtype_of
from deployments.engine.flags import flags_of, versions
from deployments.engine.kv_layers import cache_dtype
from deployments.findings import Finding, arg_pointer, error, warning
from deployments.preflight.rules import Case, Rules

rules = Rules()

FLAG = "attention-backend"
MOST_NAMED = 4


@rules.rule
def attention_backend(case: Case) -> Iterator[Finding]:
    """Kernels are made for some GPUs, kinds of attention and formats of the KV cache."""
    name = case.arg(FLAG)
    if not isinstance(name, str) or case.version not in versions() or name not in flags_of(case.version)[FLAG].choices:
        return
    stops = _obstacles(case, name)
    if not stops:
        return
    ways = [
        other for other in flags_of(case.version)[FLAG].choices if other in backends() and not _obstacles(case, other)
    ]
    ways.sort(key=list(backends()).index)
    pointer = arg_pointer(FLAG)
    value = next((other for other in ways if case.admits is None or case.admits([(pointer, other)])), None)
    here = f" on {case.flavor.label}" if case.flavor else ""
    known = case.version == checked_version()
    # Of other releases the kernels may differ, so that only a person can say.
    said = ": the engine would not start." if known else f" in vLLM {checked_version()}, and maybe here."
    yield (error if known else warning)(
        "attention_backend",
        pointer,
        f"{name} cannot be used{here}: it {', and '.join(stops)}{said}",
        f"Leave it out: vLLM chooses by itself. {_named(ways)}".strip(),
        value,
    )


def _named(ways: list[str]) -> str:
    return f"Possible here: {', '.join(ways[:MOST_NAMED])}." if ways else ""


def _obstacles(case: Case, name: str) -> list[str]:
    flavor, model, args = case.flavor, case.model, case.spec.engine.args
    capability = flavor.compute_capability if flavor else 0.0
    dtype = dtype_of(model, capability, args) if model else str(args.get("dtype", "auto"))
    cache = cache_dtype(model, args) if model else str(args.get("kv-cache-dtype", "auto"))
    return obstacles(name, model, capability, cache, dtype)
