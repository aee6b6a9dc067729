"""Numbers of a model that nobody could look up, as somebody who knows them types them beside the request form.

They serve the estimate alone: they are kept nowhere, and a request is sent without them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.engine.facts import GIB, ModelFacts
from deployments.engine.sizing import missing_numbers

MOST = 10**6
NUMBER = re.compile(r"\d{1,7}([.,]\d{1,4})?", re.ASCII)


@dataclass(frozen=True)
class Asked:
    """One number to ask for: the field's name and label, what was typed, and what is wrong with that."""

    name: str
    label: str
    value: str = ""
    error: str = ""


LABELS = {
    "weights_bytes": "Weights, GiB",
    "layers": "Layers",
    "heads": "Attention heads",
    "kv_heads": "KV heads",
    "head_dim": "Width of a head",
}


def asked_for(model: ModelFacts, typed: Mapping[str, Any]) -> tuple[tuple[Asked, ...], ModelFacts]:
    """What is missing of a model with what was typed of it, and the model as far as that completes it."""
    fields: list[Asked] = []
    known: dict[str, Any] = {}
    for name in missing_numbers(model):
        text = str(typed.get(f"model_{name}", "") or "").strip()[:20]
        value = float(text.replace(",", ".")) if NUMBER.fullmatch(text) else 0.0
        right = 0 < value <= MOST and (name == "weights_bytes" or value == int(value))
        if right:
            known[name] = int(value * GIB) if name == "weights_bytes" else int(value)
        wrong = "" if right or not text else "A number above 0." if name == "weights_bytes" else "A whole number."
        fields.append(Asked(f"model_{name}", LABELS[name], text, wrong))
    return tuple(fields), dataclasses.replace(model, **known)
