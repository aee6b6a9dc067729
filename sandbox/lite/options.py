"""The options of a request, checked before anything else is looked at, as kube-apiserver checks them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from sandbox.lite import errors
from sandbox.lite.errors import Cause, invalid_value, required, unsupported
from sandbox.lite.requests import APPLY, Request

MANAGER_BYTES = 128
EXACT, NOT_OLDER = "Exact", "NotOlderThan"
_VALIDATIONS = ["", "Ignore", "Strict", "Warn"]
_WRITES = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}


def check_write(request: Request) -> None:
    """422 for what no create, update or patch may ask for, 422 too for an apply by nobody."""
    kind = _WRITES[request.verb]
    if causes := list(_written(request)):
        raise errors.invalid("meta.k8s.io", kind, "", causes)


def check_list(request: Request) -> None:
    """400 for what is no number, 422 for a match of versions that says nothing."""
    for name in ("limit", "timeoutSeconds"):
        request.number(name, 0)
    if causes := list(_listed(request.query)):
        raise errors.invalid("meta.k8s.io", "ListOptions", "", causes)


def version_number(text: str) -> int:
    """Return a resourceVersion as a number. ValueError, in Go's words, when it is none."""
    if not text.isascii() or not text.isdigit():
        raise ValueError(
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)


def _written(request: Request) -> Iterator[Cause]:
    query = request.query
    if request.verb == "patch":
        if request.content_type == APPLY:
            if not query.get("fieldManager"):
                yield required("fieldManager", "is required for apply patch")
        elif "force" in query:
            yield Cause("force", "FieldValueForbidden", "Forbidden: may not be specified for non-apply patch")
    yield from _manager(query.get("fieldManager", ""))
    if query.get("dryRun") not in (None, "All"):
        yield unsupported("dryRun", [query["dryRun"]], ["All"])
    if query.get("fieldValidation", "") not in _VALIDATIONS:
        yield unsupported("fieldValidation", query["fieldValidation"], _VALIDATIONS)


def _manager(name: str) -> Iterator[Cause]:
    if len(name.encode()) > MANAGER_BYTES:
        yield Cause("fieldManager", "FieldValueTooLong", f"Too long: may not be more than {MANAGER_BYTES} bytes")
    place = 0  # in bytes, as Go counts
    for letter in name:
        if letter != " " and unicodedata.category(letter)[0] in "CZ":
            yield invalid_value("fieldManager", name, f"invalid character U+{ord(letter):04X} (at position {place})")
        place += len(letter.encode())


def _listed(query: dict[str, str]) -> Iterator[Cause]:
    match, version = query.get("resourceVersionMatch", ""), query.get("resourceVersion", "")
    if not match:
        return
    field = "resourceVersionMatch"

    def never(why: str) -> Cause:
        return Cause(field, "FieldValueForbidden", f"Forbidden: {field} {why}")

    if not version:
        yield never("is forbidden unless resourceVersion is provided")
    if query.get("continue"):
        yield never("is forbidden when continue is provided")
    if match not in (EXACT, NOT_OLDER):
        yield unsupported(field, match, [EXACT, NOT_OLDER, ""], ordered=True)
    if match == EXACT and version == "0":
        yield never('"exact" is forbidden for resourceVersion "0"')
