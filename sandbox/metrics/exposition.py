"""Prometheus' text format, and the names and numbers that kube-state-metrics makes of Kubernetes' own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_UNSAFE = re.compile(r"[^a-zA-Z0-9_]")
_CAMEL = re.compile(r"([a-z0-9])([A-Z])")
_QUANTITY = re.compile(r"^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)$")
_SCALE = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip
_BYTES = "memory", "storage", "ephemeral-storage"


@dataclass
class Family:
    """One metric with its samples."""

    name: str
    help: str
    type: str = "gauge"
    samples: list[str] = field(default_factory=list)

    def add(self, labels: Mapping[str, str], value: float) -> None:
        """Add one sample."""
        pairs = ",".join(f'{key}="{escape(text)}"' for key, text in labels.items())
        self.samples.append(
            f"{self.name}{{{pairs}}} {value:g}" if value % 1 else f"{self.name}{{{pairs}}} {int(value)}"
        )


def render(families: Iterable[Family]) -> str:
    """Return the page; families without a sample keep their HELP and TYPE lines, as kube-state-metrics does."""
    lines: list[str] = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.type}", *family.samples]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Quote the inside of a label value."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def label_name(text: str) -> str:
    """Turn any text into the name of a label, as Prometheus' discovery does: `nvidia.com/gpu` → `nvidia_com_gpu`."""
    return _UNSAFE.sub("_", text)


def object_label(text: str) -> str:
    """Return the metric label that kube-state-metrics makes of an object's label: `label_` and snake case."""
    return "label_" + _CAMEL.sub(r"\1_\2", label_name(text)).lower()


def quantity(text: str | float) -> float:
    """Read a Kubernetes quantity, `500m` or `2Gi`; ValueError when it is none."""
    found = _QUANTITY.match(str(text))
    if found is None or found[2] not in _SCALE:
        raise ValueError(f"not a quantity: {text!r}")
    return float(found[1]) * _SCALE[found[2]]


def unit(resource: str) -> str:
    """Return the unit that kube-state-metrics gives a resource."""
    if resource == "cpu":
        return "core"
    return "byte" if resource in _BYTES or resource.startswith("hugepages-") else "integer"
