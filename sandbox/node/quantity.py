"""Kubernetes quantities as numbers."""

from __future__ import annotations

SUFFIXES = {
    "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip


def parse(quantity: str | int | float) -> float:
    """Read a quantity; ValueError when it is none."""
    text = str(quantity)
    number = text.rstrip("kmMGTPKi")
    return float(number) * SUFFIXES[text[len(number) :]]
