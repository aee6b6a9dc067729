"""Checks that several kinds share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from sandbox.lite.errors import Cause, invalid_value, required, spell
from sandbox.lite.names import LABEL_RULE, SUBDOMAIN_RULE, is_label, is_subdomain, key_causes, label_causes
from sandbox.lite.quantity import canonical, parse

Obj = dict[str, Any]

PORT_RULE = "must be between 1 and 65535, inclusive"
NOT_NEGATIVE = "must be greater than or equal to 0"
PROTOCOLS = "SCTP", "TCP", "UDP"
_PERCENT = re.compile(r"[0-9]+%")
_PORT_NAME = re.compile(r"[-a-z0-9]+")


def not_one_of(field: str, value: Any, allowed: tuple[str, ...]) -> Cause:
    """A word that is not one of a few, told in the order given."""
    words = ", ".join(spell(word) for word in allowed)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {spell(value)}: supported values: {words}")


def forbidden(field: str, detail: str) -> Cause:
    """A field that may not be there."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def duplicate(field: str, value: Any) -> Cause:
    """A value that is there twice."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {spell(value)}")


def subdomain(value: str, field: str) -> Iterator[Cause]:
    """Yield what is wrong with a DNS subdomain."""
    if not is_subdomain(value):
        yield invalid_value(field, value, SUBDOMAIN_RULE)


def dns_label(value: str, field: str) -> Iterator[Cause]:
    """Yield what is wrong with a DNS label."""
    if not is_label(value):
        yield invalid_value(field, value, LABEL_RULE)
    if len(value) > 63:
        yield invalid_value(field, value, "must be no more than 63 bytes")


def port_number(value: Any, field: str) -> Iterator[Cause]:
    """Yield what is wrong with the number of a port."""
    if not 0 < value < 65536:
        yield invalid_value(field, value, PORT_RULE)


def port(value: Any, field: str) -> Iterator[Cause]:
    """Yield what is wrong with the number or the name of a port."""
    if isinstance(value, int):
        yield from port_number(value, field)
        return
    if len(value) > 15:
        yield invalid_value(field, value, "must be no more than 15 characters")
    if not _PORT_NAME.fullmatch(value):
        yield invalid_value(field, value, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    elif not re.search("[a-z]", value):
        yield invalid_value(field, value, "must contain at least one letter (a-z)")


def count(value: Any, field: str) -> Iterator[Cause]:
    """Yield what is wrong with a number of things."""
    if isinstance(value, int) and value < 0:
        yield invalid_value(field, value, NOT_NEGATIVE)


def number_or_percent(value: Any, field: str) -> Iterator[Cause]:
    """Yield what is wrong with a number of things, or a share of them."""
    if isinstance(value, int):
        yield from count(value, field)
    elif not _PERCENT.fullmatch(str(value)):
        rule = (
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex "
            "used for validation is '[0-9]+%')"
        )
        yield invalid_value(field, value, rule)


def at_most_all(value: Any, field: str) -> Iterator[Cause]:
    """Yield what is wrong with a share of more than all."""
    if isinstance(value, str) and _PERCENT.fullmatch(value) and int(value[:-1]) > 100:
        yield invalid_value(field, value, "must not be greater than 100%")


def selector(value: Obj, field: str) -> Iterator[Cause]:
    """Yield what is wrong with a LabelSelector."""
    yield from label_causes(value.get("matchLabels") or {}, f"{field}.matchLabels")
    for index, item in enumerate(value.get("matchExpressions") or ()):
        yield from _requirement(item, f"{field}.matchExpressions[{index}]")


def _requirement(item: Obj, field: str) -> Iterator[Cause]:
    operator, values = item.get("operator") or "", item.get("values") or []
    if operator in ("In", "NotIn"):
        if not values:
            yield required(f"{field}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            yield forbidden(f"{field}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    else:
        yield invalid_value(f"{field}.operator", operator, "not a valid selector operator")
    yield from key_causes(item.get("key") or "", f"{field}.key")


def amount(value: Any, field: str) -> Iterator[Cause]:
    """Yield what is wrong with a quantity that may not be negative."""
    if parse(value) < 0:
        yield invalid_value(field, canonical(value), NOT_NEGATIVE)


def whole_amount(value: Any, field: str) -> Iterator[Cause]:
    """Yield what is wrong with a quantity of what cannot be shared out."""
    found: Decimal = parse(value)
    if found != found.to_integral_value():
        yield invalid_value(field, canonical(value), "must be an integer")
