"""What objects may be called."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any

from sandbox.lite.errors import Cause, invalid_value, required, spell
from sandbox.lite.resources import Resource

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
FINALIZERS = "kubernetes", "orphan", "foregroundDeletion"
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = f"({_QUALIFIED})?"

SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    f"'{_SUBDOMAIN}')"
)
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
SERVICE_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    f"and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    f"'{_LABEL_1035}')"
)
_KEY_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    f"'{_QUALIFIED}')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_VALUE}')"
)


def generate(base: str) -> str:
    """Return a name that starts with `base` and ends with five random letters."""
    return base[:58] + "".join(secrets.choice(_LETTERS) for _ in range(5))


def name_causes(resource: Resource, name: str) -> Iterator[Cause]:
    """Yield what is wrong with the name of an object."""
    field = "metadata.name"
    if not name:
        yield required(field, "name or generateName is required")
        return
    if resource.group == "rbac.authorization.k8s.io":
        if name in (".", "..") or "/" in name or "%" in name:
            yield invalid_value(field, name, "may not contain '/' or '%'")
        return
    if resource.plural == "services" and not resource.group:
        if not re.fullmatch(_LABEL_1035, name):
            yield invalid_value(field, name, SERVICE_RULE)
    elif resource.plural == "namespaces":
        if not re.fullmatch(_LABEL, name):
            yield invalid_value(field, name, LABEL_RULE)
    elif not re.fullmatch(_SUBDOMAIN, name):
        yield invalid_value(field, name, SUBDOMAIN_RULE)
    longest = 63 if resource.plural in ("services", "namespaces") and not resource.group else 253
    if len(name) > longest:
        yield invalid_value(field, name, f"must be no more than {longest} characters")


def label_causes(labels: dict[str, str], field: str) -> Iterator[Cause]:
    """Yield what is wrong with labels."""
    for key, value in labels.items():
        yield from key_causes(key, field)
        if len(value) > 63:
            yield invalid_value(field, value, "must be no more than 63 bytes")
        if not re.fullmatch(_VALUE, value):
            yield invalid_value(field, value, _VALUE_RULE)


def annotation_causes(annotations: dict[str, str], field: str) -> Iterator[Cause]:
    """Yield what is wrong with annotations."""
    for key in annotations:
        yield from key_causes(key.lower(), field)
    if sum(len(key) + len(value.encode()) for key, value in annotations.items()) > 256 * 1024:
        yield Cause(field, "FieldValueTooLong", "Too long: may not be more than 262144 bytes")


def owner_causes(owners: list[dict[str, Any]]) -> Iterator[Cause]:
    """Yield what is wrong with the owners of an object."""
    field, controllers = "metadata.ownerReferences", 0
    for owner in owners:
        if not (owner.get("apiVersion") or "").rpartition("/")[2]:
            yield invalid_value(f"{field}.apiVersion", owner.get("apiVersion") or "", "version must not be empty")
        for name in ("kind", "name", "uid"):
            if not owner.get(name):
                yield invalid_value(f"{field}.{name}", "", "must not be empty")
        controllers += bool(owner.get("controller"))
    if controllers > 1:
        rule = "Only one reference can have Controller set to true"
        yield invalid_value(field, owners, f"{rule}. Found {controllers} of them")


def finalizer_causes(finalizers: list[str], old: dict[str, Any] | None, *, builtin: bool) -> Iterator[Cause]:
    """Yield what is wrong with the finalizers of an object, `old` being its metadata before an update.

    Short names of their own only built-in kinds refuse.
    """
    field = "metadata.finalizers"
    for name in finalizers:
        yield from key_causes(name, field)
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        text = "finalizer orphan and foregroundDeletion cannot be both set"
        yield invalid_value(field, finalizers, text)
    new = sorted(set(finalizers) - set(old.get("finalizers") or ())) if old and old.get("deletionTimestamp") else []
    if new:
        why = "no new finalizers can be added if the object is being deleted, found new finalizers"
        shown = ", ".join(spell(name) for name in new)
        yield Cause(field, "FieldValueForbidden", f"Forbidden: {why} []string{{{shown}}}")
    for index, name in enumerate(finalizers):
        if builtin and "/" not in name and name not in FINALIZERS:
            why = "name is neither a standard finalizer name nor is it fully qualified"
            yield invalid_value(f"{field}[{index}]", name, why)


def is_label(text: str) -> bool:
    """Whether a text is a DNS label, its length aside."""
    return re.fullmatch(_LABEL, text) is not None


def is_subdomain(text: str) -> bool:
    """Whether a text is a DNS subdomain."""
    return re.fullmatch(_SUBDOMAIN, text) is not None and len(text) <= 253


def key_causes(key: str, field: str) -> Iterator[Cause]:
    """Yield what is wrong with the key of a label, or another qualified name."""
    prefix, slash, name = key.rpartition("/")
    if slash and not re.fullmatch(_SUBDOMAIN, prefix):
        yield invalid_value(field, key, f"prefix part {SUBDOMAIN_RULE}")
    if not name:
        yield invalid_value(field, key, "name part must be non-empty")
    if not re.fullmatch(_QUALIFIED, name):
        yield invalid_value(field, key, _KEY_RULE)
    elif len(name) > 63:
        yield invalid_value(field, key, "name part must be no more than 63 bytes")
