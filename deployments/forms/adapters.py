"""LoRA adapters as people write them: one `name=hf://owner/adapter@version` a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class AdapterTextError(ValueError):
    """A line that names no adapter; the message says which."""


def parse_adapters(text: str) -> list[dict[str, Any]]:
    """Read adapters, one a line; what they are called and where they are is checked with the spec."""
    found = []
    for number, line in enumerate((line.strip() for line in text.splitlines()), start=1):
        if not line or line.startswith("#"):
            continue
        name, equals, rest = (part.strip() for part in line.partition("="))
        if not equals or not name or not rest:
            raise AdapterTextError(f"Line {number}: write “name=hf://owner/adapter”.")
        uri, _, revision = rest.partition("@")
        uri = uri if "://" in uri else f"hf://{uri}"
        found.append({"name": name, "uri": uri, "revision": revision or None})
    return found


def format_adapters(adapters: Iterable[Mapping[str, Any]]) -> str:
    """Adapters as lines of text, the way `parse_adapters` reads them."""
    return "\n".join(
        f"{each['name']}={each['uri']}" + (f"@{each['revision']}" if each.get("revision") else "") for each in adapters
    )
