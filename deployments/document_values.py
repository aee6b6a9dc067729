"""Single values of JSON documents: each has the form that is asked for, or DocumentError says what is wrong with it."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from deployments.spec import MAX_LABEL, SLUG
from deployments.spec_errors import flat_errors

T = TypeVar("T")

MOST = 10**18
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class DocumentError(ValueError):
    """The document is not what this command reads; the message says what is missing."""


def mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object below `name`; empty where there is none."""
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DocumentError(f"“{name}” must be an object.")
    return value


def known_only(document: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    """DocumentError for names that nobody reads, with those that may be meant."""
    names = list(known)
    for name in document:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, n=1)
            hint = f" Did you mean “{close[0]}”?" if close else ""
            raise DocumentError(f"“{place}” does not know “{str(name)[:60]}”.{hint}")


def texts(document: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """A list of words below `name`; None where there is none."""
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise DocumentError(f"“{name}” must be a list of words.")
    return tuple(value)


def number(section: Mapping[str, Any], name: str) -> float:
    """A number from 0 on below `name`."""
    value = section[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST:
        raise DocumentError(f"“{name}” must be a number from 0 on.")
    return value


def whole(section: Mapping[str, Any], name: str, usual: int) -> int:
    """A whole number from 1 on below `name`, or the usual one."""
    text = str(section.get(name, usual))
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise DocumentError(f"“{name}” must be a whole number from 1 on.")
    return int(text)


def slug(section: Mapping[str, Any], name: str, usual: str = "") -> str:
    """The name of something below `name`, as labels of the cluster take it; or the usual one."""
    return _named(section, name, usual, SLUG, "lower-case letters, digits, “-” and “.”")


def dns_label(section: Mapping[str, Any], name: str, usual: str = "") -> str:
    """What a namespace may be called below `name`, or the usual one."""
    return _named(section, name, usual, DNS_LABEL, "lower-case letters, digits and “-”")


def _named(section: Mapping[str, Any], name: str, usual: str, form: re.Pattern[str], signs: str) -> str:
    value = section.get(name, usual)
    text = usual if value is None else str(value)
    if text != usual and (len(text) > MAX_LABEL or not form.fullmatch(text)):
        raise DocumentError(
            f"“{name}” must be a name of at most {MAX_LABEL} {signs}, beginning and ending with a letter or digit."
        )
    return text


def rows(document: Mapping[str, Any], name: str, key: str) -> list[Mapping[str, Any]]:
    """Objects below `name`: a list of them, each with its `key`, or an object of them by it."""
    value = document.get(name)
    if value is None:
        return []
    if isinstance(value, Mapping):
        found = [(f"{name}.{each}", {key: each, **mapping(value, each)}) for each in value]
    elif isinstance(value, list):
        found = [(f"{name}[{index}]", each) for index, each in enumerate(value)]
    else:
        raise DocumentError(f"“{name}” must be a list of objects, or an object of them.")
    for place, row in found:
        if not isinstance(row, Mapping):
            raise DocumentError(f"“{place}” must be an object.")
        if not isinstance(row.get(key), str) or not row[key]:
            raise DocumentError(f"“{place}” needs a “{key}”: its name, as text.")
    return [row for _, row in found]


def made(kind: type[T], row: object, place: str) -> T:
    """A plain value object from JSON; numbers of it are from 0 on. `place` is where it stands, for the message."""
    if not isinstance(row, Mapping):
        raise DocumentError(f"“{place}” must be an object.")
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(str(name)[:60] for name in row if name not in known):
        raise DocumentError(f"“{place}” does not know {', '.join(unknown)}; known: {', '.join(known)}.")
    for name, value in row.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            number(row, name)
    try:
        return TypeAdapter(kind).validate_python(row)
    except ValidationError as failure:
        wrong = flat_errors(failure, prefix="")
        said = [f"“{place}{error.pointer.replace('/', '.')}”: {error.message}" for error in wrong]
        raise DocumentError(" ".join(said)) from failure
