"""A sequence of requests, written once and sent to two servers: what only a server knows stands in it as a token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.kube.kinds import KINDS, Kind

Object = dict[str, Any]

BY_NAME: Mapping[str, Kind] = {kind.kind: kind for kind in KINDS}
JSON = "application/json"
PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
METHODS = {
    "create": "POST",
    "get": "GET",
    "list": "GET",
    "update": "PUT",
    "delete": "DELETE",
    "deletecollection": "DELETE",
} | dict.fromkeys(PATCHES, "PATCH")
WHOLE = ("create", "list", "deletecollection")  # asked of the collection

# Tokens, as whole strings of a body or a query: what the server last said of an object, and what it said first.
# Each may name another object: `@uid ConfigMap a`.
UID, VERSION, OLD_VERSION, NAMESPACE = "@uid", "@version", "@old-version", "@namespace"
CONTINUE = "@continue"  # the token of the last page


@dataclass(frozen=True)
class Step:
    """One request. `live` lays the body over the object as it was last seen, as who reads, edits and writes does."""

    verb: str
    kind: str
    name: str = ""
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    subresource: str = ""
    live: bool = False

    def path(self, namespace: str) -> str:
        """The URL path, with a Namespace's own name in place of the sequence's token for it."""
        kind = BY_NAME[self.kind]
        name = "" if self.verb in WHOLE else self.name.replace(NAMESPACE, namespace)
        path = kind.path(namespace if kind.namespaced else "", name)
        return f"{path}/{self.subresource}" if self.subresource else path

    @property
    def content_type(self) -> str:
        """The media type of the body."""
        return PATCHES.get(self.verb, JSON)

    def __str__(self) -> str:
        query = "&".join(f"{key}={value}" for key, value in self.query.items())
        words = [self.verb, self.kind, self.name, self.subresource, query, "over live" if self.live else ""]
        text = " ".join(word for word in words if word)
        return text if self.body is None else f"{text}\n    {json.dumps(self.body)}"


@dataclass(frozen=True)
class Sequence:
    """Requests in a namespace of their own, whose labels may ask for pod security; then one watch is replayed.

    `watched` is a kind whose events from before the first request on are compared, through a label selector.
    """

    steps: tuple[Step, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    watched: str = ""
    selector: str = ""

    def __str__(self) -> str:
        lines = [f"{number}. {step}" for number, step in enumerate(self.steps)]
        watch = [f"watch {self.watched} {self.selector}".rstrip()] if self.watched else []
        return "\n".join([f"namespace labels {dict(self.labels)}", *lines, *watch])
