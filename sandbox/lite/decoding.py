"""From what was sent to an object of the right kind: types checked, unknown fields dropped and told of."""

from __future__ import annotations

from typing import Any

import orjson

from sandbox.lite import errors
from sandbox.lite.requests import APPLY, Request, decode_json
from sandbox.lite.resources import Resource
from sandbox.lite.schema import Schema, definitions
from sandbox.lite.structural import drop_nulls, prune, type_error

Obj = dict[str, Any]

_STORED_AS = {"autoscaling/horizontalpodautoscalers": "v1"}  # where that is another version than the newest
_SUMMARY = 30  # bytes of a body that a refusal shows
_SCHEME = "pkg/runtime/scheme.go:111"


class Undecodable(ValueError):
    """A decoder's complaint; who sent what decides how it is told."""


def read(resource: Resource, request: Request) -> Obj:
    """Decode the body of a create or an update. 400 when it is no object of this kind."""
    try:
        sent = request.parsed()
    except errors.StatusError as error:
        if error.code != 400:
            raise
        raise _unrecognised(resource, request.body, error.message) from None
    if not isinstance(sent, dict):
        raise errors.bad_request("the body of the request is not an object")
    if resource.crd is not None and not (sent.get("kind") and sent.get("apiVersion")):
        lacking = "Kind" if not sent.get("kind") else "apiVersion"
        text = f"Object '{lacking}' is missing in '{request.body.decode(errors='replace')}'"
        if lacking == "apiVersion" and request.verb == "update":
            raise _other_version(resource, "")
        if request.query.get("fieldValidation") == "Ignore":
            raise errors.bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {text}'
            )
        raise _unrecognised(resource, request.body, text)
    try:
        return decode(resource, request, sent)
    except Undecodable as error:
        kind, version = sent.get("kind") or resource.kind, resource.version
        if sent.get("apiVersion") != resource.api_version:  # decoded as what the kind is stored as
            version = _STORED_AS.get(resource.storage_key, version)
        raise errors.bad_request(
            f'{kind} in version "{version}" cannot be handled as a {resource.kind}: {error}'
        ) from None


def read_patch(request: Request, *, prefix: str = "error decoding patch: ") -> Any:
    """Decode the body of a patch. 400 when it is not JSON."""
    try:
        return decode_json(request.body)
    except ValueError as error:
        raise errors.bad_request(f"{prefix}{error}") from None


def decode(resource: Resource, request: Request, sent: Obj, unknown: list[str] | None = None) -> Obj:
    """Return `sent` as an object of its kind, without the fields its schema does not know.

    `unknown` holds complaints found before. Raises Undecodable for wrong types, with `fieldValidation=Strict` for
    unknown fields too, and StatusError when the name or the namespace is not that of the URL.
    """
    check_kind(resource, sent)
    obj = _with_meta({"apiVersion": resource.api_version, "kind": resource.kind} | sent)
    if obj["kind"] != resource.kind:  # of a custom resource: its validator tells, and there is no schema to go by
        _place(resource, request, obj)
        return obj
    custom = resource.crd is not None  # the rest of a custom resource is its validator's business
    wrong = type_error(obj["metadata"], Schema.META) if custom else type_error(obj, resource.schema)
    if wrong:
        raise Undecodable(wrong)
    dropped = prune(obj, resource.schema)
    drop_nulls(obj, resource.schema)
    words = list(unknown or ())
    words += [f'unknown field "{path}"' for path in (sorted(dropped) if custom else dropped)]
    if words:
        mode = request.query.get("fieldValidation", "Warn")
        if mode == "Strict":
            raise Undecodable(f"strict decoding error: {', '.join(words)}")
        if mode == "Warn":
            request.warnings += words
    _place(resource, request, obj)
    return obj


def check_kind(resource: Resource, sent: Obj) -> None:
    """Refuse an object of another version, of a built-in resource one of another kind too: 400, or Undecodable."""
    version, kind = sent.get("apiVersion") or resource.api_version, sent.get("kind") or resource.kind
    if (version, kind) == (resource.api_version, resource.kind):
        return
    if version != resource.api_version and resource.crd is not None:
        raise _other_version(resource, version)
    if resource.crd is not None:
        return
    if f"{resource.schema_name.rpartition('.')[0]}.{kind}" not in definitions() or version != resource.api_version:
        raise Undecodable(f'no kind "{kind}" is registered for version "{version}" in scheme "{_SCHEME}"')
    internal = resource.group.split(".")[0] or "core"
    raise Undecodable(f"converting ({resource.version}.{kind}) to ({internal}.{resource.kind}): unknown conversion")


def _other_version(resource: Resource, version: str) -> errors.StatusError:
    return errors.bad_request(
        f"the API version in the data ({version}) does not match the expected API version ({resource.api_version})"
    )


def with_meta(resource: Resource, request: Request, sent: Obj) -> Obj:
    """Return a copy with a metadata of its own, whose name and namespace are those of the URL. 400 when they differ."""
    obj = _with_meta(sent)
    _place(resource, request, obj)
    return obj


def _with_meta(sent: Obj) -> Obj:
    meta = sent.get("metadata")
    if meta is not None and not isinstance(meta, dict):
        got = {list: "array", str: "string", bool: "bool"}.get(type(meta), "number")
        raise Undecodable(f"json: cannot unmarshal {got} into Go value of type v1.ObjectMeta")
    return sent | {"metadata": dict(meta or {})}


def _place(resource: Resource, request: Request, obj: Obj) -> None:
    """Give an object the name and the namespace of the URL. 400 when it has others."""
    meta = obj["metadata"]
    if resource.namespaced:
        if meta.get("namespace", request.namespace) not in ("", None, request.namespace):
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        meta["namespace"] = request.namespace
    else:
        meta.pop("namespace", None)
    if not request.name:
        return
    if not meta.get("name"):
        if request.verb in ("update", "patch") and request.content_type != APPLY:
            raise nameless(request)
        meta["name"] = request.name
    if meta["name"] != request.name:
        raise errors.bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({request.name})"
        )


def nameless(request: Request) -> errors.StatusError:
    """400 for an object that does not say its name, where the URL does."""
    return errors.bad_request(
        f"the name of the object ({request.name} based on URL) was undeterminable: name must be provided"
    )


def shown(patched: Any, *, custom: bool) -> str:
    """Write a patched object as a refusal shows it."""
    ordered = patched if custom else {name: patched[name] for name in sorted(patched)}
    return orjson.dumps(ordered, option=orjson.OPT_SORT_KEYS if custom else 0).decode()


def _unrecognised(resource: Resource, body: bytes, why: str) -> errors.StatusError:
    start = body[:_SUMMARY].decode(errors="replace") if body.startswith(b"{") else body[:_SUMMARY].hex()
    summary = start + (" ..." if len(body) > _SUMMARY else "") if body else "<empty>"
    return errors.bad_request(
        f"the object provided is unrecognized (must be of type {resource.kind}): {why} ({summary})"
    )
