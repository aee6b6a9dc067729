"""PATCH in the three forms that are not server-side apply: from a stored object and a body to the next state."""

from __future__ import annotations

from typing import Any

import orjson

from sandbox.lite import errors, golang, json_patch, patch
from sandbox.lite.converting import conversion_error
from sandbox.lite.decoding import Undecodable, decode, read_patch, shown
from sandbox.lite.requests import APPLY, JSON_PATCH, MERGE, STRATEGIC, Request
from sandbox.lite.resources import Resource

Obj = dict[str, Any]

_MAP = "map[string]interface {}"


def check_type(resource: Resource, request: Request) -> None:
    """Refuse a patch of a form this kind does not take with 415."""
    allowed = [JSON_PATCH, MERGE, APPLY] if resource.crd else [JSON_PATCH, MERGE, STRATEGIC, APPLY]
    if request.content_type in allowed:
        return
    if resource.crd is None:
        raise errors.StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})
    raise errors.unsupported_media_type(", ".join(allowed))


def patched(resource: Resource, request: Request, live: Obj) -> Obj:
    """Return the object that a patch makes of `live`. 400 for a malformed patch, 422 when it or its result is wrong."""
    unknown: list[str] = []
    if request.content_type == JSON_PATCH:
        operations = read_patch(request)
        result, unknown = _operate(live, operations)
    else:
        strategic = request.content_type == STRATEGIC
        prefix = "" if strategic else "error decoding patch: "
        sent = read_patch(request, prefix=prefix)
        if sent is None:
            sent = {}
        if not isinstance(sent, dict):
            raise errors.bad_request(f"{prefix}json: cannot unmarshal {_word(sent)} into Go value of type {_MAP}")
        if strategic:
            return _strategic(resource, request, live, sent)
        result = patch.merge_patch(live, sent)
    text = shown(result, custom=resource.crd is not None) if isinstance(result, dict) else "[]"
    result = orjson.loads(orjson.dumps(result))
    if not isinstance(result, dict):
        raise _refused(text, "json: cannot unmarshal array into Go value of type struct")
    if resource.crd is not None and not (result.get("kind") and result.get("apiVersion")):
        lacking = "Kind" if not result.get("kind") else "apiVersion"
        raise _refused(text, f"Object '{lacking}' is missing in '{text}'")
    try:
        return decode(resource, request, result, unknown)
    except Undecodable as error:
        raise _refused(text, str(error)) from None


def _operate(live: Obj, operations: Any) -> tuple[Any, list[str]]:
    """Apply a JSON patch; returns the result and what no operation knows."""
    kind = "[]handlers.jsonPatchOp"
    if operations is None:
        operations = []
    if not isinstance(operations, list):
        raise errors.bad_request(
            f"error decoding patch: json: cannot unmarshal {_word(operations)} into Go value of type {kind}"
        )
    for operation in operations:
        if operation is not None and not isinstance(operation, dict):
            raise errors.bad_request(
                f"error decoding patch: json: cannot unmarshal {_word(operation)} into Go value of type "
                "handlers.jsonPatchOp"
            )
    if len(operations) > json_patch.OPERATIONS_LIMIT:
        limit = json_patch.OPERATIONS_LIMIT
        text = f"The allowed maximum operations in a JSON patch is {limit}, got {len(operations)}"
        raise errors.StatusError(413, "RequestEntityTooLarge", f"Request entity too large: {text}")
    try:
        result = json_patch.json_patch(live, operations)
    except json_patch.PatchFailed:  # kube-apiserver keeps what went wrong to itself
        text = "the server rejected our request due to an error in our request"
        raise errors.StatusError(422, "Invalid", text, details={}) from None
    return result, [f'json patch unknown field "{place}"' for place in json_patch.unknown_members(operations)]


def _strategic(resource: Resource, request: Request, live: Obj, sent: Obj) -> Obj:
    result = orjson.loads(orjson.dumps(patch.strategic_merge(live, sent, resource.schema)))
    result |= {"apiVersion": resource.api_version, "kind": resource.kind}  # a patch cannot change what it is
    if wrong := conversion_error(result, resource.schema):
        raise _refused(golang.plain(sent), wrong)
    try:
        return decode(resource, request, result)
    except Undecodable as error:
        raise _refused(golang.plain(sent), str(error)) from None


def _refused(text: str, why: str) -> errors.StatusError:
    """422 for a patch whose result cannot be decoded; it shows the result, a strategic one the patch."""
    return errors.invalid("", "", "", [errors.invalid_value("patch", text, why)])


def _word(value: Any) -> str:
    return {dict: "object", list: "array", str: "string", bool: "bool"}.get(type(value), "number")
