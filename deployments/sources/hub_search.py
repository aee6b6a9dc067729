"""Searching a hub for models by words: what its list says of each. Pure; whoever calls brings the HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from deployments.sources.checks import Reply

MOST = 8
MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
# Bytes of one element by the name that safetensors gives its type; packed weights come as whole words.
ELEMENT_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8.0),
    **dict.fromkeys(("F32", "I32", "U32"), 4.0),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2.0),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1.0),
    "F4": 0.5,
}
TOLD = ("gated", "tags", "pipeline_tag", "downloads", "safetensors")


@dataclass(frozen=True)
class Hit:
    """A model that a hub lists; sizes are None where the list does not say them."""

    id: str
    gated: bool = False
    licence: str = ""
    task: str = ""
    weights_bytes: int | None = None


def search_path(words: str) -> str:
    """The path of a list of models with safetensors weights, the most loaded first."""
    asked = [("search", words), ("filter", "safetensors"), ("sort", "downloads"), ("direction", "-1"), ("limit", MOST)]
    return f"/api/models?{urlencode([*asked, *(('expand', name) for name in TOLD)])}"


def hits_of(reply: Reply) -> list[Hit] | None:
    """The models of an answer; None where it is none, or makes no sense."""
    if reply.status != 200 or not isinstance(reply.json, list):
        return None
    found = [_hit(item) for item in reply.json[:MOST] if isinstance(item, Mapping)]
    return [hit for hit in found if hit is not None]


def _hit(item: Mapping[str, Any]) -> Hit | None:
    name = item.get("id") or item.get("modelId")
    if not isinstance(name, str) or not MODEL_ID.fullmatch(name):
        return None
    tags = item.get("tags")
    words = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    licences = [tag.removeprefix("license:") for tag in words if tag.startswith("license:")]
    task = item.get("pipeline_tag")
    return Hit(
        id=name,
        gated=bool(item.get("gated")),
        licence=licences[0][:60] if licences else "",
        task=task[:60] if isinstance(task, str) else "",
        weights_bytes=_bytes(item.get("safetensors")),
    )


def _bytes(section: Any) -> int | None:
    counts = section.get("parameters") if isinstance(section, Mapping) else None
    if not isinstance(counts, Mapping) or not counts:
        return None
    total = 0.0
    for kind, count in counts.items():
        if kind not in ELEMENT_BYTES or isinstance(count, bool) or not isinstance(count, int) or count < 0:
            return None
        total += ELEMENT_BYTES[kind] * count
    return int(total) or None
