"""One server under test: keep-alive connections to it, and what it said so far, to fill tokens from."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson

from tests.differential.bodies import LEAST, whole
from tests.differential.sequences import (
    BY_NAME,
    CONTINUE,
    JSON,
    METHODS,
    NAMESPACE,
    OLD_VERSION,
    UID,
    VERSION,
    Object,
    Sequence,
    Step,
)

AGENT = "differential/1.0"
MARK = "mark"  # every label of a marker, so that selectors can take it in
SECONDS = 20.0


def markers_of(kind: str) -> str:
    """The namespace of what ends the replayed watches of a kind: one each, lest a quota refuses pods."""
    return f"markers-{kind.lower()}"


@dataclass
class Answer:
    """What a server answered: a status, an object (a Status, a list, ...) and its warnings."""

    status: int
    body: Any
    warnings: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """All that a server said to one sequence; `events` are (type, object) pairs."""

    answers: list[Answer] = field(default_factory=list)
    events: list[tuple[str, Object]] = field(default_factory=list)


class Memory:
    """What a server said of each object of one sequence, first and last."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.first: dict[tuple[str, str], Object] = {}
        self.last: dict[tuple[str, str], Object] = {}
        self.page = ""

    def note(self, step: Step, answer: Answer) -> None:
        """Remember the object that a step was answered with."""
        body = answer.body
        tried = step.query.get("dryRun") or (isinstance(step.body, dict) and step.body.get("dryRun"))
        if not isinstance(body, dict) or answer.status >= 400 or tried:
            return
        self.page = (body.get("metadata") or {}).get("continue", "") if step.verb == "list" else self.page
        if body.get("kind") == step.kind:
            key = step.kind, step.name
            self.first.setdefault(key, body)
            self.last[key] = body

    def fill(self, value: Any, step: Step) -> Any:
        """Return a copy of a body with its tokens replaced."""
        if isinstance(value, dict):
            return {name: self.fill(child, step) for name, child in value.items()}
        if isinstance(value, list):
            return [self.fill(child, step) for child in value]
        if isinstance(value, str) and value.startswith("@"):
            return self._token(value, step)
        return value

    def _token(self, text: str, step: Step) -> str:
        word, *where = text.split()
        if word == NAMESPACE:
            return self.namespace
        if word == CONTINUE:
            return self.page
        kind, name = where or (step.kind, step.name)
        seen = (self.first if word == OLD_VERSION else self.last).get((kind, name), {}).get("metadata", {})
        if word == UID:
            return str(seen.get("uid", "00000000-0000-4000-8000-000000000000"))
        if word in (VERSION, OLD_VERSION):
            return str(seen.get("resourceVersion", "1"))
        return text


class Server:
    """A server, reached as its administrator through one kept connection and one more for each watch."""

    def __init__(self, name: str, url: str, token: str, trust: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.requests = 0
        parts = urlsplit(url)
        self._place = parts.hostname or "", parts.port or 443
        self._trust = trust
        self._headers = {"Authorization": f"Bearer {token}", "Accept": JSON, "User-Agent": AGENT}
        self._connection = self._open()

    def close(self) -> None:
        """Close the kept connection."""
        self._connection.close()

    def play(self, sequence: Sequence, namespace: str) -> Outcome:
        """Send a sequence in a new namespace, then read back what a watch from before it shows."""
        body = whole("Namespace", namespace, labels=dict(sequence.labels))
        made = self.send("POST", BY_NAME["Namespace"].path(), body)
        outcome = Outcome([made])
        memory = Memory(namespace)
        memory.note(Step("create", "Namespace", NAMESPACE), made)
        for step in sequence.steps:
            answer = self._step(step, memory)
            memory.note(step, answer)
            outcome.answers.append(answer)
        if sequence.watched:
            since = made.body["metadata"]["resourceVersion"]
            outcome.events = list(self._replay(sequence, namespace, since))
        return outcome

    def send(
        self, method: str, path: str, body: Any = None, kind: str = JSON, query: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request. OSError or HTTPException when the server does not answer."""
        self.requests += 1
        url = f"{path}?{urlencode(query)}" if query else path
        content = None if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        headers = self._headers if content is None else self._headers | {"Content-Type": kind}
        try:
            self._connection.request(method, url, content, headers)
        except (OSError, http.client.HTTPException):  # kept too long: closed by the server before anything was sent
            self._connection.close()
            self._connection.request(method, url, content, headers)
        answer = self._connection.getresponse()
        raw = answer.read()
        warnings = answer.msg.get_all("Warning") or []
        return Answer(answer.status, _decoded(raw), warnings)

    def _step(self, step: Step, memory: Memory) -> Answer:
        body = memory.fill(step.body, step)
        if step.live:
            seen = memory.last.get((step.kind, step.name))
            body = _laid_over(seen, body) if seen is not None else body
        query = {key: str(memory.fill(value, step)) for key, value in step.query.items()}
        path = step.path(memory.namespace)
        seen = memory.last.get((step.kind, step.name))
        if step.name.endswith("-") and seen is not None:  # a name that the server made
            path = path.replace(step.name, seen["metadata"]["name"])
        return self.send(METHODS[step.verb], path, body, step.content_type, query)

    def _replay(self, sequence: Sequence, namespace: str, since: str) -> Iterator[tuple[str, Object]]:
        """Yield the events of the namespace up to a marker made now in another one."""
        kind = BY_NAME[sequence.watched]
        name = f"{MARK}-{namespace}"
        place = markers_of(kind.kind) if kind.namespaced else ""
        marker = whole(kind.kind, name, LEAST[kind.kind], labels={"app": MARK, "tier": MARK})
        made = self.send("POST", kind.path(place), marker)
        assert made.status == 201, made
        query = {"watch": "true", "resourceVersion": since, "timeoutSeconds": "20"}
        if sequence.selector:
            query["labelSelector"] = sequence.selector
        self.requests += 1
        with self._stream(f"{kind.path()}?{urlencode(query)}") as lines:
            for line in lines:
                event = orjson.loads(line)
                meta = event["object"].get("metadata") or {}
                if meta.get("name") == name:
                    return
                if namespace in (meta.get("namespace"), meta.get("name")) or event["type"] == "ERROR":
                    yield event["type"], event["object"]
        raise AssertionError(f"{self.name}: the watch ended before its marker came")

    @contextmanager
    def _stream(self, url: str) -> Iterator[http.client.HTTPResponse]:
        connection = self._open()
        try:
            connection.request("GET", url, headers=self._headers)
            yield connection.getresponse()
        finally:
            connection.close()

    def _open(self) -> http.client.HTTPConnection:
        host, port = self._place
        if self._trust is None:
            return http.client.HTTPConnection(host, port, timeout=SECONDS)
        return http.client.HTTPSConnection(host, port, timeout=SECONDS, context=self._trust)


def _laid_over(live: Any, changes: Any) -> Any:
    """Lay changes over an object: maps join, None removes, all else replaces."""
    if not isinstance(live, dict) or not isinstance(changes, dict):
        return changes
    joined = dict(live)
    for name, value in changes.items():
        if value is None:
            joined.pop(name, None)
        else:
            joined[name] = _laid_over(live.get(name), value)
    return joined


def _decoded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.decode(errors="replace")
