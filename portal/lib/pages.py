"""Long lists by keyset: the next page is found by the last row's values, so row 10,000 costs as much as row 10."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import QueryDict

MAX_CURSOR = 512


@dataclass(frozen=True)
class Page:
    """Some rows of a long list; `before` and `after` are cursors for the neighbouring pages, empty at the ends."""

    rows: list[Any] = field(default_factory=list)
    before: str = ""
    after: str = ""


def keyset_page(
    rows: QuerySet[Any], *, order: Sequence[str], after: str = "", before: str = "", size: int = 50
) -> Page:
    """One page of `rows` by `order` (field names, `-` for descending; the last one unique). One query.

    A cursor that nobody could have been given starts at the first page.
    """
    backwards = bool(before)
    values = _decode(before or after, len(order))
    keys = [_flipped(key) if backwards else key for key in order]
    selected = rows.order_by(*keys)
    if values is not None:
        try:
            selected = selected.filter(_beyond(keys, values))
            found = list(selected[: size + 1])
        except (ValueError, TypeError, OverflowError, ValidationError):
            values, backwards = None, False
            found = list(rows.order_by(*order)[: size + 1])
    else:
        backwards = False
        found = list(rows.order_by(*order)[: size + 1])
    more, found = len(found) > size, found[:size]
    if backwards:
        found.reverse()
    if not found:
        return Page()
    has_before = more if backwards else values is not None
    has_after = True if backwards else more
    return Page(
        rows=found,
        before=_encode(found[0], order) if has_before else "",
        after=_encode(found[-1], order) if has_after else "",
    )


def query_with(params: Mapping[str, Any], **changes: str | None) -> str:
    """The query string of this page with some parameters changed; None and "" leave one out."""
    query = QueryDict(mutable=True)
    for name in params:
        if name not in changes:
            query[name] = params[name]
    for name, value in changes.items():
        if value:
            query[name] = value
    return "?" + query.urlencode() if query else "?"


def _beyond(keys: Sequence[str], values: Sequence[Any]) -> Q:
    """Rows that come after `values` in the order of `keys`."""
    condition = Q()
    for index, key in enumerate(keys):
        name, comparison = key.lstrip("-"), "lt" if key.startswith("-") else "gt"
        same = {k.lstrip("-"): v for k, v in zip(keys[:index], values[:index], strict=True)}
        condition |= Q(**same, **{f"{name}__{comparison}": values[index]})
    return condition


def _flipped(key: str) -> str:
    return key[1:] if key.startswith("-") else f"-{key}"


def _encode(row: Any, order: Iterable[str]) -> str:
    values = [_value(row, key.lstrip("-")) for key in order]
    text = json.dumps(values, separators=(",", ":"), default=_plain)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, length: int) -> list[Any] | None:
    if not cursor or len(cursor) > MAX_CURSOR:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    usable = isinstance(values, list) and len(values) == length
    return values if usable and all(map(_is_comparable, values)) else None


def _is_comparable(value: Any) -> bool:
    """True for what a column can be compared with: neither Infinity and NaN, nor a NUL."""
    if isinstance(value, str):
        return "\x00" not in value
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _value(row: Any, name: str) -> Any:
    if isinstance(row, Mapping):
        return row[name]
    for part in name.split("__"):
        row = getattr(row, part)
    return row


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
