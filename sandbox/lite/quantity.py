"""Kubernetes quantities: `500m`, `32Gi`, `1e3`."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from typing import Any

_FORM = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def parse(value: Any) -> Decimal:
    """Return the amount of a quantity. ValueError when it is none."""
    found = _FORM.match(str(value))
    if not found:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    number, suffix = Decimal(found[1]), found[2] or ""
    if suffix in _BINARY:
        return number * (1 << _BINARY[suffix])
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    return number.scaleb(int(suffix[1:]))


def complaint(value: Any) -> str | None:
    """Return what is wrong with a quantity, if anything."""
    try:
        parse(value)
    except ValueError as error:
        return str(error)
    return None


def canonical(value: Any) -> str:
    """Write a quantity as the API server stores it; unreadable ones stay as they are."""
    text = str(value)
    found = _FORM.match(text)
    if not found:
        return text
    amount = parse(text)
    return _binary(amount) if (found[2] or "") in _BINARY else decimal(amount)


def canonical_sum(one: str, other: str) -> str:
    """Add two quantities; the sum keeps the family of suffixes of the first that is not zero."""
    if parse(one) == 0:
        return canonical(other)
    found = _FORM.match(one)
    amount = parse(one) + parse(other)
    return _binary(amount) if found and (found[2] or "") in _BINARY else decimal(amount)


def decimal(amount: Decimal) -> str:
    """Write an amount with the largest decimal suffix that leaves no fraction."""
    if amount == 0:
        return "0"
    for suffix, power in sorted(_DECIMAL.items(), key=lambda pair: -pair[1]):
        scaled = amount.scaleb(-power)
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
    return f"{int(amount.scaleb(9).to_integral_value(ROUND_CEILING))}n"


def _binary(amount: Decimal) -> str:
    if amount != amount.to_integral_value():
        return decimal(amount)
    if amount == 0:
        return "0"
    for suffix, power in sorted(_BINARY.items(), key=lambda pair: -pair[1]):
        if abs(amount) >= 1024 and int(amount) % (1 << power) == 0:
            return f"{int(amount) >> power}{suffix}"
    return str(int(amount))
