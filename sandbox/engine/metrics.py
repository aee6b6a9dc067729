"""The metrics of vLLM 0.32.0: its families, labels and buckets, and their text form.

`families.json` was read off a real server. A sample's text up to its value is made once, so that a scrape
costs little more than formatting numbers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import orjson
from prometheus_client.utils import floatToGoString as _untyped_number

# Histograms whose buckets are 1, 2, 5, 10, ... up to the model's context length.
BY_CONTEXT = {
    "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens",
    "vllm:request_max_num_generation_tokens",
    "vllm:request_params_max_tokens",
    "vllm:request_prefill_kv_computed_tokens",
}
CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


def buckets_1_2_5(most: int) -> list[float]:
    """1, 2, 5, 10, 20, 50, ... not above `most`."""
    bounds: list[float] = []
    power = 1
    while True:
        for step in (1, 2, 5):
            if step * power > most:
                return bounds
            bounds.append(float(step * power))
        power *= 10


def number(value: float) -> str:
    """A number as prometheus_client prints it."""
    return str(_untyped_number(value))  # type: ignore[no-untyped-call]


class Value:
    """A counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add."""
        self.value += amount


class Histogram:
    """Counts of observations by upper bound, with their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: list[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Record `count` observations of the same value."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    @property
    def count(self) -> int:
        """How many observations."""
        return sum(self.counts)


class Summary:
    """Count and sum."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Record one observation."""
        self.count += 1
        self.total += value


Child = Value | Histogram | Summary


class Family:
    """One metric with all its label sets."""

    def __init__(self, spec: Mapping[str, Any], bounds: list[float], common: Labels, created: float) -> None:
        self.name: str = spec["name"]
        self.type: str = spec["type"]
        self.bounds = bounds
        self.created_name: str | None = spec.get("created")
        self._created_text = number(created)
        self._head = f"# HELP {self.name} {spec['help']}\n# TYPE {self.name} {self.type}\n"
        self._created_head = f"# HELP {self.created_name} {spec['help']}\n# TYPE {self.created_name} gauge\n"
        names = set(spec["labels"])
        self._common = tuple(pair for pair in common if pair[0] in names)
        self._children: dict[Labels, Child] = {}
        self._texts: dict[Labels, list[str]] = {}
        single = names <= dict(common).keys() and "template" not in spec
        for fixed in spec.get("fixed", [{}] if single else []):
            self.child(**fixed)

    def child(self, **labels: str) -> Any:
        """The value with these labels; made at first use."""
        key = tuple(sorted(labels.items()))
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = self._make()
            self._texts[key] = self._sample_names(key)
        return found

    def clear(self) -> None:
        """Forget every label set."""
        self._children.clear()
        self._texts.clear()

    def _make(self) -> Child:
        if self.type == "histogram":
            return Histogram(self.bounds)
        return Summary() if self.type == "summary" else Value()

    def _sample_names(self, key: Labels) -> list[str]:
        """The text before each value, in the order of `_values`; the last is the creation time's."""
        labels = self._common + key
        if self.type == "histogram":
            bounds = [number(bound) for bound in [*self.bounds, float("inf")]]
            names = [f"{self.name}_bucket{_braces((*labels, ('le', bound)))} " for bound in bounds]
            names += [f"{self.name}_{part}{_braces(labels)} " for part in ("count", "sum")]
        elif self.type == "summary":
            names = [f"{self.name}_{part}{_braces(labels)} " for part in ("count", "sum")]
        else:
            names = [f"{self.name}{_braces(labels)} "]
        return [*names, f"{self.created_name}{_braces(labels)} "]

    def write(self, out: list[str]) -> None:
        """Append the family's text."""
        out.append(self._head)
        for key, child in self._children.items():
            for name, value in zip(self._texts[key], _values(child), strict=False):
                out.append(f"{name}{number(value)}\n")
        if self.created_name and self._children:
            out.append(self._created_head)
            out.extend(f"{self._texts[key][-1]}{self._created_text}\n" for key in self._children)


class Registry:
    """All families of one engine, in vLLM's order."""

    def __init__(self, model_name: str, max_model_len: int, created: float, *, engine: str = "0") -> None:
        common = (("engine", engine), ("model_name", model_name))
        self.families: dict[str, Family] = {}
        for spec in _specs():
            bounds = buckets_1_2_5(max_model_len) if spec["name"] in BY_CONTEXT else spec.get("buckets", [])
            self.families[spec["name"]] = Family(spec, bounds, common, created)

    def __getitem__(self, name: str) -> Family:
        return self.families[name]

    def value(self, name: str, **labels: str) -> Value:
        """A counter or gauge."""
        child = self.families[name].child(**labels)
        assert isinstance(child, Value)
        return child

    def histogram(self, name: str, **labels: str) -> Histogram:
        """A histogram."""
        child = self.families[name].child(**labels)
        assert isinstance(child, Histogram)
        return child

    def text(self) -> str:
        """Everything in the Prometheus text format."""
        out: list[str] = []
        for family in self.families.values():
            family.write(out)
        return "".join(out)


def cache_config_labels(changes: Mapping[str, str]) -> dict[str, str]:
    """Labels of `vllm:cache_config_info`: those recorded, with this engine's values."""
    template: dict[str, str] = next(spec for spec in _specs() if "template" in spec)["template"]
    return template | dict(changes)


@cache
def _specs() -> list[dict[str, Any]]:
    specs: list[dict[str, Any]] = orjson.loads(Path(__file__).with_name("families.json").read_bytes())
    return specs


def _values(child: Child) -> Iterable[float]:
    if isinstance(child, Value):
        return (child.value,)
    if isinstance(child, Summary):
        return (float(child.count), child.total)
    cumulative = list(accumulate(child.counts))
    return (*map(float, cumulative), float(cumulative[-1]), child.total)


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in sorted(labels)) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
