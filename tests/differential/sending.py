"""One server under test: keep-alive connections to it, and sequences sent over them."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson

from tests.differential.bodies import LEAST, whole
from tests.differential.remembering import Answer, Memory, Outcome, Places
from tests.differential.sequences import BY_NAME, JSON, METHODS, NAMESPACE, Object, Recorded, Sequence, Step

AGENT = "differential/1.0"
MARK = "mark"  # every label of a marker, so that selectors can take it in
SECONDS = 20.0


def markers_of(kind: str) -> str:
    """The namespace of what ends the replayed watches of a kind: one each, lest a quota refuses pods."""
    return f"markers-{kind.lower()}"


class Server:
    """A server, reached as its administrator through one kept connection and one more for each watch."""

    def __init__(self, name: str, url: str, token: str, trust: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.requests = 0
        self.caught_up: Callable[[Server], None] | None = None  # waits until admission knows the quotas as they are
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
            if step.kind == "ResourceQuota" and step.verb not in ("get", "list") and self.caught_up is not None:
                self.caught_up(self)
            outcome.answers.append(answer)
        if sequence.watched:
            since = made.body["metadata"]["resourceVersion"]
            outcome.events = list(self._replay(sequence, namespace, since))
        return outcome

    def replay(self, recorded: Recorded, namespace: str) -> Outcome:
        """Send what was recorded, in a new namespace that its first requests make, then what it watched."""
        memory = Places()
        outcome = Outcome([Answer(0, None)])  # nothing is asked before
        watches: dict[str, str] = {}
        for step in recorded.steps:
            request = memory.fill(step.within(namespace))
            path, query = request["path"], request.get("query", {})
            if query.get("watch"):
                since = query.pop("resourceVersion")
                asked = urlencode(query | {"timeoutSeconds": "1"})
                watches.setdefault(f"{path}?{asked}", since)
                outcome.answers.append(Answer(0, None))  # its events are compared
                continue
            answer = self.send(request["method"], path, request.get("body"), request.get("type", JSON), query)
            answer.body = _own(answer.body, namespace)
            memory.learn(path, answer)
            outcome.answers.append(answer)
        urls = [f"{url}&resourceVersion={since}" for url, since in watches.items()]
        self.requests += len(urls)
        with ThreadPoolExecutor(len(urls)) as pool:
            for found in pool.map(lambda url: self._watched(url, namespace), urls):
                outcome.events += found
        return outcome

    def _watched(self, url: str, namespace: str) -> list[tuple[str, Object]]:
        """Return all that a watch says of a namespace until its time is up."""
        with self._stream(url) as lines:
            events = [(event["type"], event["object"]) for event in map(orjson.loads, lines)]
        return [
            (sort, obj) for sort, obj in events if sort == "ERROR" or (sort != "BOOKMARK" and _is_in(obj, namespace))
        ]

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
                if event["object"].get("metadata", {}).get("name") == name:
                    return
                if _is_in(event["object"], namespace) or event["type"] == "ERROR":
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


def _own(body: Any, namespace: str) -> Any:
    """Leave out of a list what other sequences made."""
    if isinstance(body, dict) and isinstance(body.get("items"), list):
        return body | {"items": [item for item in body["items"] if _is_in(item, namespace)]}
    return body


def _is_in(obj: Object, namespace: str) -> bool:
    meta = obj.get("metadata") or {}
    return namespace in (meta.get("namespace"), meta.get("name"))


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
