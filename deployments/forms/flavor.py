"""What an admin types of a kind of GPU: text becomes the values that the service checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from deployments.models import Flavor
from deployments.services.errors import InvalidError
from deployments.services.flavor_fields import checked, complete
from portal.lib import plain

FIELDS = ("name", "product", "resource_name", "memory_mib", "compute_capability", "gpus_per_node", "price_per_hour")
LONGEST = 4000


def text_of(values: Mapping[str, Any]) -> dict[str, str]:
    """A flavor's values as the form shows them: labels and tolerations one a line."""
    text = {name: str(values.get(name, "")) for name in ("slug", *FIELDS)}
    text["node_selector"] = "\n".join(f"{name}={value}" for name, value in values.get("node_selector", {}).items())
    text["tolerations"] = "\n".join(_line(item) for item in values.get("tolerations", []))
    text["active"] = "on" if values.get("active", True) else ""
    return text


def typed(data: Mapping[str, str]) -> dict[str, str]:
    """What was typed, field by field."""
    return {name: str(data.get(name, "")).strip()[:LONGEST] for name in text_of({})}


def read(text: Mapping[str, str], row: Flavor | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The values for the service, and all that is wrong, by field; a field that cannot be read is not among the values.

    Of a flavor that exists all but its name in addresses.
    """
    readers: dict[str, Callable[[str], Any]] = {
        **dict.fromkeys(("name", "product", "resource_name"), str),
        "memory_mib": partial(_whole, "memory_mib"),
        "gpus_per_node": partial(_whole, "gpus_per_node"),
        **dict.fromkeys(("compute_capability", "price_per_hour"), _decimal),
        "node_selector": _labels,
        "tolerations": _tolerations,
        **({"slug": str} if row is None else {"active": lambda typed: typed == "on"}),
    }
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, reader in readers.items():
        try:
            values[name] = reader(text[name])
        except InvalidError as error:
            errors[name] = error.message
    try:
        complete(values) if row is None else checked(values)
    except InvalidError as error:
        errors = error.by_field(readers) | errors
    return values, errors


def _decimal(text: str) -> str:
    return text.replace(",", ".")  # “0,9” is how half of the world writes it.


def _tolerations(text: str) -> list[dict[str, str]]:
    return [_toleration(line) for line in text.splitlines() if line.strip()]


def _whole(name: str, text: str) -> int:
    found = plain.whole(text.replace(",", "").replace(" ", ""), digits=9)
    if found is None:
        raise InvalidError("Must be a whole number.", field=name, pointer=f"/{name}")
    return found


def _labels(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if not line.strip():
            continue
        if not equals:
            words = f"Write one label a line, as name=value: “{line.strip()[:60]}” has no “=”."
            raise InvalidError(words, field="node_selector", pointer="/node_selector")
        found[name.strip()] = value.strip()
    return found


def _toleration(line: str) -> dict[str, str]:
    """As `kubectl taint` spells a taint: key=value:Effect, key:Effect for any value, key for any effect too."""
    taint, _, effect = line.strip().partition(":")
    key, equals, value = taint.partition("=")
    found = {"key": key.strip(), "operator": "Equal" if equals else "Exists"}
    if equals:
        found["value"] = value.strip()
    return found | ({"effect": effect.strip()} if effect else {})


def _line(item: Mapping[str, str]) -> str:
    value = f"={item.get('value', '')}" if item.get("operator", "Equal") == "Equal" else ""
    effect = f":{item['effect']}" if item.get("effect") else ""
    return f"{item.get('key', '')}{value}{effect}"
