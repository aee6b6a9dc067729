"""A sequence of requests, written once and sent to two servers: what only a server knows stands in it as a token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.kube.kinds import KINDS, Kind

Object = dict[str, Any]

_MORE = (
    Kind("apps/v1", "StatefulSet", "statefulsets"),
    Kind("batch/v1", "Job", "jobs"),
    Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Kind("networking.k8s.io/v1", "Ingress", "ingresses"),
    Kind("coordination.k8s.io/v1", "Lease", "leases"),
    Kind("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "leaderworkersets"),
    Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects"),
    Kind("inference.networking.k8s.io/v1", "InferencePool", "inferencepools"),
)
BY_NAME: Mapping[str, Kind] = {kind.kind: kind for kind in (*KINDS, *_MORE)}
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
HARD, UNUSED = "@hard", "@unused"  # of a quota: what its spec allows, and nothing of it used


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

    `watched` is a kind whose events from before the first request on are compared, through a label selector. `origin`
    says how it came to be.
    """

    steps: tuple[Step, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    watched: str = ""
    selector: str = ""
    origin: str = "scripted"

    def __str__(self) -> str:
        lines = [f"{number}. {step}" for number, step in enumerate(self.steps)]
        watch = [f"watch {self.watched} {self.selector}".rstrip()] if self.watched else []
        return "\n".join([f"namespace labels {dict(self.labels)}", *lines, *watch])


@dataclass(frozen=True)
class Request:
    """One request as it was sent to a server, written as `tests.scenarios.recording` does."""

    sent: Object

    @property
    def path(self) -> str:
        """The URL path."""
        return str(self.sent["path"])

    @property
    def kind(self) -> str:
        """What it is about; empty for what is no kind."""
        words = self.path.split("/")
        return next((kind.kind for kind in KINDS if kind.plural in words[-2:]), "")

    def within(self, namespace: str) -> Object:
        """The request with a namespace's name in place of the token for it."""
        found: Object = json.loads(json.dumps(self.sent).replace(NAMESPACE, namespace))
        return found

    def __str__(self) -> str:
        return json.dumps(self.sent)


@dataclass(frozen=True)
class Recorded:
    """What Slipway sent in a scenario."""

    name: str
    steps: tuple[Request, ...]

    def __str__(self) -> str:
        return "\n".join([self.name, *(f"{number}. {step}" for number, step in enumerate(self.steps))])


def place_of(path: str, meta: Mapping[str, str]) -> str:
    """The path of an object that was met in the answer to a request for `path`."""
    if path.endswith(f"/{meta['name']}"):
        return path
    root, _, plural = path.rpartition("/")
    root = root.partition("/namespaces/")[0]
    namespace = f"/namespaces/{meta['namespace']}" if meta.get("namespace") else ""
    return f"{root}{namespace}/{plural}/{meta['name']}"
