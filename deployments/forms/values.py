"""Text that people type to values of a spec, and values as fields and buttons show them."""

from __future__ import annotations

import re
from typing import Any

from deployments.engine.flags import AUTO, meant

SPELLED = {
    int: re.compile(r"[+-]?[0-9]+"),
    float: re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,2})?", re.IGNORECASE),
}
THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}([, _][0-9]{3})+")


def as_value(kind: type, text: str) -> Any:
    """The value that a text means; None when it is none of that kind."""
    if kind is str:
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    if len(text) > 20:
        return None
    if THOUSANDS.fullmatch(text) and kind is int:
        text = re.sub("[, _]", "", text)
    elif kind is float:
        text = text.replace(",", ".")  # “0,9” is how half of the world writes it.
    # Python reads the digits of any script, 1_0 and nan; the engine gets the digits from 0 to 9.
    return kind(text) if SPELLED[kind].fullmatch(text) else None


def not_a(kind: type, text: str = "") -> str:
    """What to say of a text that is no value of that kind."""
    if kind is int and (said := meant(text)) is not None:
        return f"Must be a whole number: write {said} for {text}."
    if kind in (int, float) and text.lower() == AUTO:
        return "Must be a number: leave this empty for what vLLM chooses by itself."
    return {int: "Must be a whole number.", float: "Must be a number."}.get(kind, "Choose one of the values.")


def text_of(value: object) -> str:
    """A value as a field holds it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def shown(value: object) -> str:
    """A value as a button shows it: whole numbers with thousands marked, switches as fields offer them."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else text_of(value)
