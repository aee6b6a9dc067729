"""What the fields of a flavor may hold: names as Kubernetes and the GPU operator spell them, numbers within reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from deployments.services.errors import Checks, InvalidError
from deployments.services.text import line_of
from portal.lib import plain

SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
# Whole GPUs, time slices under a name of their own, and MIG slices (“+me” is spelled “.me” in a resource's name).
RESOURCE = re.compile(r"nvidia\.com/(gpu(\.shared)?|mig-[1-9]g\.[0-9]{1,3}gb(\.me)?)")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
LABEL_NAME = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
)
REQUIRED = ("slug", "name", "product", "memory_mib", "compute_capability")
OPERATORS = ("Exists", "Equal")
EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")
MOST_LABELS = 10
# Addresses that are something else.
RESERVED = frozenset({"new", "proposals"})
NUMBERS = {"memory_mib": (1, 2_000_000), "gpus_per_node": (1, 1024)}
DECIMALS = {
    "compute_capability": (Decimal("1.0"), Decimal("99.9"), 1),
    "price_per_hour": (Decimal(0), Decimal("99999.99"), 2),
}


def checked(values: Mapping[str, object]) -> dict[str, Any]:
    """The values as a flavor stores them; InvalidError with all that cannot be meant, or are no fields at all."""
    checks = Checks()
    found = {name: checks.of(partial(_value, name, value), None) for name, value in values.items()}
    checks.done()
    return found


def complete(values: Mapping[str, object]) -> dict[str, Any]:
    """`checked` for a new flavor: what it cannot do without is there."""
    checks, missing = Checks(), [name for name in REQUIRED if values.get(name) in (None, "")]
    for name in missing:
        checks.of(partial(_required, name), None)
    nothing: dict[str, Any] = {}
    found = checks.of(lambda: checked({name: values[name] for name in values if name not in missing}), nothing)
    checks.done()
    return found


def _required(name: str) -> None:
    raise _wrong(name, "This field is required.", code="required")


def _value(name: str, value: object) -> Any:
    if name in NUMBERS:
        return _number(name, value)
    if name in DECIMALS:
        return _decimal(name, value)
    if name == "node_selector":
        return _selector(value)
    if name == "tolerations":
        return _tolerations(value)
    if name == "active":
        if not isinstance(value, bool):
            raise _wrong(name, "Must be true or false.")
        return value
    if name not in {"slug", "name", "product", "resource_name"}:
        raise _wrong(name[:60], "There is no such field.", code="unknown_field")
    text = line_of(value, field=name, longest=40 if name == "slug" else 60 if name == "name" else 80)
    if name == "slug" and (not SLUG.fullmatch(text) or text in RESERVED):
        raise _wrong(name, "Use lower-case letters, digits and “-”.")
    if name == "product" and not LABEL_VALUE.fullmatch(text):
        raise _wrong(name, "Use the value of the node label nvidia.com/gpu.product as it is, for example NVIDIA-L4.")
    if name == "resource_name" and not RESOURCE.fullmatch(text):
        raise _wrong(name, "Use nvidia.com/gpu, nvidia.com/gpu.shared or a MIG slice like nvidia.com/mig-1g.10gb.")
    return text


def _number(name: str, value: object) -> int:
    least, most = NUMBERS[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong(name, f"Must be a whole number from {least:,} to {most:,}.")
    return value


def _decimal(name: str, value: object) -> Decimal:
    least, most, places = DECIMALS[name]
    number = plain.decimal(value)
    if number is None or not least <= number <= most:
        raise _wrong(name, f"Must be a number from {least} to {most:,}.")
    if number != round(number, places):
        raise _wrong(name, f"At most {places} digit{'s'[: places != 1]} after the point.")
    return round(number, places)


def _selector(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or len(value) > MOST_LABELS:
        raise _wrong("node_selector", f"Must be at most {MOST_LABELS} labels with their values.")
    for label, wanted in value.items():
        if not isinstance(label, str) or not LABEL_NAME.fullmatch(label):
            raise _wrong("node_selector", f"“{str(label)[:80]}” is no name of a label.")
        if not isinstance(wanted, str) or not LABEL_VALUE.fullmatch(wanted):
            raise _wrong("node_selector", f"“{str(wanted)[:80]}” is no value of a label.")
    return dict(value)


def _tolerations(value: object) -> list[dict[str, str]]:
    if not isinstance(value, list) or len(value) > MOST_LABELS:
        raise _wrong("tolerations", f"Must be a list of at most {MOST_LABELS} tolerations.")
    return [_toleration(item) for item in value]


def _toleration(item: object) -> dict[str, str]:
    name = "tolerations"
    if not isinstance(item, Mapping) or not set(item) <= {"key", "operator", "value", "effect"}:
        raise _wrong(name, "Each has a key, an operator, a value and an effect, and nothing else.")
    if not all(isinstance(part, str) for part in item.values()):
        raise _wrong(name, "Each of their parts is text.")
    key, operator = item.get("key", ""), item.get("operator", "Equal")
    effect, wanted = item.get("effect", ""), item.get("value", "")
    # Without a key it would tolerate every taint there is, that of a node that is going down too.
    if not LABEL_NAME.fullmatch(key):
        raise _wrong(name, f"“{key[:80]}” is no key of a taint.")
    if operator not in OPERATORS:
        raise _wrong(name, f"The operator is one of: {', '.join(OPERATORS)}.")
    if effect not in EFFECTS:
        raise _wrong(name, f"The effect is one of: {', '.join(EFFECTS[1:])}; or it is left out.")
    if not LABEL_VALUE.fullmatch(wanted) or (operator == "Exists" and wanted):
        raise _wrong(name, f"“{wanted[:80]}” is no value for {operator}.")
    parts = {"key": key, "operator": operator, "value": wanted, "effect": effect}
    return {part: text for part, text in parts.items() if text}


def _wrong(name: str, words: str, *, code: str = "") -> InvalidError:
    return InvalidError(words, field=name, pointer=f"/{name}", code=code)
