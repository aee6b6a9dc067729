"""Get, list and watch."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from sandbox.lite import errors, options, tables
from sandbox.lite.cluster import Cluster, as_read, versioned
from sandbox.lite.replies import Reply
from sandbox.lite.requests import Request, decode_json
from sandbox.lite.resources import Resource
from sandbox.lite.selectors import Selection
from sandbox.lite.storage import Stored
from sandbox.lite.watch import Stream

Obj = dict[str, Any]

WATCH_SECONDS = 1800
FOREVER = 365 * 24 * 3600


@dataclass(frozen=True)
class Form:
    """How objects are asked for: whole, as table rows, or their metadata alone."""

    name: str = ""  # "", Table, PartialObjectMetadata
    include: str = "Metadata"

    @classmethod
    def of(cls, request: Request) -> Form:
        """Read the Accept header: the first form this server has."""
        for choice in request.headers.get("accept", "").split(","):
            if "protobuf" in choice or "cbor" in choice:
                continue
            for part in choice.split(";")[1:]:
                key, _, value = part.strip().partition("=")
                if key == "as" and value.startswith(("Table", "PartialObjectMetadata")):
                    include = request.query.get("includeObject", "Metadata")
                    return cls("Table" if value == "Table" else "PartialObjectMetadata", include)
            return cls()
        return cls()

    def encoder(self, resource: Resource) -> Callable[[Obj, bytes], bytes]:
        """Return how one object is encoded in this form."""
        if self.name == "Table":
            return lambda obj, _: orjson.dumps(tables.table(resource, [obj], self.include, rv=_version(obj)))
        if self.name:
            return lambda obj, _: orjson.dumps(partial(obj))
        return lambda obj, body: versioned(resource, obj, body)


def get(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """Answer with one object."""
    try:
        options.version_number(request.query.get("resourceVersion") or "0")
    except ValueError as error:
        raise errors.StatusError(500, "", str(error)) from None
    stored = cluster.require(resource, request.namespace, request.name)
    return Reply(200, Form.of(request).encoder(resource)(stored.obj, stored.body))


def list_(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """Answer with a page of a collection."""
    options.check_list(request)
    selection = _selection(resource, request)
    at = _asked_version(cluster, request)
    everything = cluster.storage.all(resource.storage_key, request.namespace)
    if at is not None:
        everything = _as_it_was(cluster, resource, request.namespace, at)
    chosen = [stored for stored in everything if selection.everything or selection.matches(stored.obj)]
    meta: Obj = {"resourceVersion": str(cluster.storage.rv)}
    page = _page(cluster, request, chosen, meta)
    form = Form.of(request)
    if form.name == "Table":
        body = tables.table(resource, [stored.obj for stored in page], form.include)
        body["metadata"] = meta
        return Reply(200, orjson.dumps(body))
    kind, version = resource.list_kind, resource.api_version
    if form.name:
        kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
        items = [orjson.dumps(partial(stored.obj)) for stored in page]
    else:
        items = [listed(resource, stored) for stored in page]
    if resource.crd is not None and not form.name:
        meta.setdefault("continue", "")  # so kube-apiserver writes lists of custom resources
    head = orjson.dumps({"kind": kind, "apiVersion": version, "metadata": meta})
    return Reply(200, head[:-1] + b',"items":[' + b",".join(items) + b"]}")


def watch(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """Answer with a stream of changes."""
    form = Form.of(request)
    initial = request.flag("sendInitialEvents")
    text = request.query.get("resourceVersion", "")
    since = None if initial or text in ("", "0") else _number(text)
    if since is not None and since > cluster.storage.rv:
        raise _too_large(cluster, since)
    stream = Stream(
        cluster.hub,
        resource,
        _selection(resource, request),
        since=since,
        form=f"{form.name}/{form.include}",
        encode=form.encoder(resource),
        bookmarks=request.flag("allowWatchBookmarks"),
        seconds=request.number("timeoutSeconds", WATCH_SECONDS),
        initial_end=initial and request.flag("allowWatchBookmarks"),
    )
    return Reply(200, stream=stream.lines())


def listed(resource: Resource, stored: Stored) -> bytes:
    """Encode an object for a list; items of a built-in kind do not say what they are."""
    if resource.crd is not None:
        return versioned(resource, stored.obj, stored.body)
    obj = as_read(resource, stored.obj)
    return orjson.dumps({name: value for name, value in obj.items() if name not in ("apiVersion", "kind")})


def partial(obj: Obj) -> Obj:
    """Return an object's metadata as its own kind."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _selection(resource: Resource, request: Request) -> Selection:
    return Selection(
        resource,
        request.namespace if resource.namespaced else "",
        request.name,
        request.query.get("labelSelector", ""),
        request.query.get("fieldSelector", ""),
    )


def _asked_version(cluster: Cluster, request: Request) -> int | None:
    """Return the version at which alone a list is to be read, None for any that is not older. 400, 504 for a wrong one.

    A page of a list is read at the version that is asked for, even where nothing says that it must match.
    """
    text, query = request.query.get("resourceVersion") or "0", request.query
    if query.get("continue"):
        _decode_token(query["continue"])
        if text != "0":
            raise errors.bad_request("specifying resource version is not allowed when using continue")
        return None
    try:
        version = options.version_number(text)
    except ValueError as error:
        raise errors.bad_request(f"invalid resource version: {error}") from None
    if version > cluster.storage.rv:
        raise _too_large(cluster, version)
    match = query.get("resourceVersionMatch", "")
    exact = match == options.EXACT or (not match and request.number("limit", 0) > 0)
    return version if version and exact else None


def _as_it_was(cluster: Cluster, resource: Resource, namespace: str, version: int) -> list[Stored]:
    """Return a collection at an older version: what happened since is taken back. 410 when that is forgotten."""
    if version < cluster.storage.compacted:
        raise errors.expired(f"The resourceVersion for the provided list is too old: {version}")
    key = resource.storage_key
    found = {tuple(_place(stored)): stored for stored in cluster.storage.all(key, namespace)}
    for change in reversed(list(cluster.storage.changes(key, version))):
        meta = change.obj["metadata"]
        place = (meta.get("namespace", ""), meta["name"])
        if namespace and place[0] != namespace:
            continue
        if change.previous is None:
            found.pop(place, None)
        else:
            number = int(change.previous["metadata"]["resourceVersion"])
            found[place] = Stored(change.previous, orjson.dumps(change.previous), number)
    return [found[place] for place in sorted(found)]


def _too_large(cluster: Cluster, version: int) -> errors.StatusError:
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    text = f"Timeout: Too large resource version: {version}, current: {cluster.storage.rv}"
    return errors.StatusError(504, "Timeout", text, details={"causes": causes, "retryAfterSeconds": 1})


def _page(cluster: Cluster, request: Request, chosen: list[Stored], meta: Obj) -> list[Stored]:
    """Cut the page out of `chosen` and write where the next one starts into `meta`."""
    limit = request.number("limit", 0)
    token = request.query.get("continue", "")
    if token:
        after, first_version = _decode_token(token)
        if first_version < cluster.storage.compacted:
            raise errors.expired("The provided continue parameter is too old to display a consistent list result.")
        meta["resourceVersion"] = str(first_version)
        chosen = [stored for stored in chosen if _place(stored) > after]
    if limit <= 0 or len(chosen) <= limit:
        return chosen
    page = chosen[:limit]
    meta["continue"] = _encode_token(_place(page[-1]), int(meta["resourceVersion"]))
    if not request.query.get("labelSelector") and not request.query.get("fieldSelector"):
        meta["remainingItemCount"] = len(chosen) - limit
    return page


def _place(stored: Stored) -> list[str]:
    meta = stored.obj["metadata"]
    return [meta.get("namespace", ""), meta["name"]]


def _encode_token(place: list[str], version: int) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([place, version])).decode().rstrip("=")


def _decode_token(token: str) -> tuple[list[str], int]:
    try:
        place, version = decode_json(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, TypeError) as error:
        raise errors.bad_request(f"invalid continue token: continue key is not valid: {error}") from None
    return place, version


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise errors.bad_request(f'Invalid value: "{text}": resourceVersion: must be a number') from None


def _version(obj: Obj) -> str:
    return str(obj["metadata"].get("resourceVersion", ""))
