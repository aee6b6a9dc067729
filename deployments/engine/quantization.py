"""Methods of quantisation by vLLM version: what weights each takes, what it computes in, and what it needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any

from deployments.engine.flags import flags_of, release, versions
from deployments.engine.plugins import Plugin
from deployments.engine.profiles import DATA

# Which of them it is says the model alone, whatever the flag names.
OF_MODELOPT = frozenset({"modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed"})
# Kernels that vLLM takes by itself where a GPU has them; a method named by the flag it takes at its word.
MARLIN = {"awq": "awq_marlin", "gptq": "gptq_marlin"}


class Weights(StrEnum):
    """What weights a method takes: stored in it, any that it quantises as it loads them, or as it is told elsewhere."""

    STORED = "stored"
    ONLINE = "online"
    CONFIGURED = "configured"


class Scales(StrEnum):
    """Whether scales of the KV cache are read with the weights."""

    NONE = ""
    DECLARED = "declared"
    ALWAYS = "always"


@dataclass(frozen=True)
class Method:
    """One method in one vLLM version. `dtypes` are the number formats that it computes in, by their full names."""

    name: str
    weights: Weights
    dtypes: tuple[str, ...]
    capability: float = 0.0
    scales: Scales = Scales.NONE
    deprecated: bool = False
    # What an image must have besides this version for it; None where vLLM itself has the method, or nothing brings it.
    plugin: Plugin | None = None


@cache
def method(version: str, name: str, *, stored: bool = True) -> Method | None:
    """A method in a vLLM version, as it reads weights that are `stored` so or 16-bit ones; None for an unknown name."""
    row = _rows().get(name)
    if row is None:
        return None
    row = dict(row)
    brought = row.pop("plugin", None)
    if brought and release(version) >= release(brought["since"]):
        row["plugin"] = Plugin(brought["name"])
    older = dict(row.pop("older", {}))
    if older and release(version) <= release(older.pop("to")):
        row |= older
    online = row.pop("online", {})
    return _method(name, row if stored else row | online)


def needed_since(plugin: Plugin) -> str:
    """The vLLM version from which on an image needs this plugin; older ones do by themselves what it brings."""
    rows = (row["plugin"] for row in _rows().values() if "plugin" in row)
    return min((str(row["since"]) for row in rows if row["name"] == plugin), key=release)


def method_of(version: str, asked: str | None, own: str | None, capability: float) -> Method | None:
    """The method that an engine takes: the flag's, else the model's; None where there is none, or nothing is known."""
    if own is None:
        return method(version, asked, stored=False) if asked else None
    if asked and own not in OF_MODELOPT:
        return method(version, asked)
    found = method(version, own)
    faster = method(version, MARLIN[own]) if own in MARLIN else None
    if found is None or faster is None or 0 < capability < faster.capability:
        return found
    return replace(found, dtypes=faster.dtypes)


@cache
def methods_of(version: str, plugins: tuple[Plugin, ...] = ()) -> frozenset[str]:
    """The methods of a vLLM version whose image has these plugins; empty for a version that is not known."""
    if version not in versions():
        return frozenset()
    has = frozenset(plugins)
    brought = (name for name in _rows() if (found := method(version, name)) is not None and found.plugin in has)
    return frozenset(flags_of(version)["quantization"].choices).union(brought)


def known_methods() -> frozenset[str]:
    """Every method that some version of vLLM has."""
    return frozenset(_rows())


@cache
def _rows() -> Mapping[str, Mapping[str, Any]]:
    rows: dict[str, Mapping[str, Any]] = json.loads((DATA / "quantization.json").read_text())["methods"]
    return rows


def _method(name: str, row: Mapping[str, Any]) -> Method:
    words = {"weights": Weights(row["weights"]), "scales": Scales(row.get("scales", ""))}
    return Method(name, **{**row, **words, "dtypes": tuple(row["dtypes"])})
