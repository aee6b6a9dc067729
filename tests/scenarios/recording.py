"""What Slipway's worker and watcher really send during a scenario, kept for `tests/differential` to send again.

SLIPWAY_RECORD is the folder that recordings are written to, one file for each scenario.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from deployments.kube.cluster import MUTATING, Cluster
from tests.differential.sequences import place_of

Object = dict[str, Any]

WRITTEN = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
_UID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_ROW = re.compile(r'(slipway\.dev/(?:deployment|team)(?:": "|=|%3D))\d+')
_TIME = re.compile(r'"20\d\d-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)"')


class Recording:
    """Requests in the order in which they were sent, with tokens in place of what only the server knew.

    `@uid PATH` is the uid of the object there, `@version PATH` what it was last seen at, `@old PATH` what it was seen
    at before, `@list PATH` the version of the last list of a collection, `@namespace` the team's namespace.
    """

    def __init__(self, namespace: str) -> None:
        self.requests: list[Object] = []
        self._namespace = namespace
        self._lock = threading.Lock()
        self._asked: set[bytes] = set()
        self._uids: dict[str, str] = {}
        self._versions: dict[str, str] = {}
        self._before: dict[str, str] = {}
        self._lists: dict[str, str] = {}

    def sent(self, method: str, path: str, params: Mapping[str, str], kind: str, body: Any) -> None:
        """Take down one request; a read that was sent before counts as another one only after a write."""
        query = {name: value for name, value in params.items() if value}
        if "timeoutSeconds" in query:
            query["timeoutSeconds"] = "300"  # they are drawn by chance
        request: Object = {"method": method, "path": path}
        if query:
            request["query"] = query
        if body is not None:
            request |= {"type": kind, "body": body}
        with self._lock:
            request = self._tokens(request, path)
            if method in MUTATING:
                self._asked.clear()
            if (shown := orjson.dumps(request)) not in self._asked:
                self._asked.add(shown)
                self.requests.append(request)

    def answered(self, path: str, raw: bytes) -> None:
        """Learn which objects an answer tells of."""
        answer = orjson.loads(raw)
        with self._lock:
            if "items" in answer:
                self._lists[answer["metadata"]["resourceVersion"]] = path
            for obj in answer.get("items", [answer]):
                meta = obj.get("metadata") or {}
                if "uid" not in meta:
                    continue
                place, version = place_of(path, meta), meta["resourceVersion"]
                self._uids[meta["uid"]] = place
                if self._versions.get(place, version) != version:
                    self._before[self._versions[place]] = place
                self._versions[place] = version

    def text(self) -> bytes:
        """The recording as it is kept: of what this run alone knew, names and numbers are fixed ones."""
        text = orjson.dumps({"requests": self.requests}, option=WRITTEN).decode() + "\n"
        text = _ROW.sub(r"\g<1>1", text.replace(self._namespace, "@namespace"))
        known: dict[str, str] = {}
        text = _UID.sub(lambda found: known.setdefault(found[0], f"00000000-0000-4000-8000-{len(known):012}"), text)
        return _TIME.sub('"2026-01-01T00:00:00Z"', text).encode()

    def _tokens(self, value: Any, path: str, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: self._tokens(child, path, key) for key, child in value.items()}
        if isinstance(value, list):
            return [self._tokens(child, path, name) for child in value]
        if isinstance(value, str) and value in self._uids:
            return f"@uid {self._uids[value]}"
        if isinstance(value, str) and name in ("resourceVersion", "value") and value.isdigit():
            return self._version(value, path) or value
        return value

    def _version(self, value: str, path: str) -> str:
        if value == self._versions.get(path):
            return f"@version {path}"
        if self._before.get(value) == path:
            return f"@old {path}"
        return f"@list {path}" if path in self._lists.values() else ""


@contextmanager
def taken_down(patch: pytest.MonkeyPatch, namespace: str) -> Iterator[Recording]:
    """All that goes through Slipway's door to the cluster within the block."""
    recording = Recording(namespace)
    send, raw = Cluster._send, Cluster._raw

    def sent(self: Cluster, method: str, path: str, **more: Any) -> Any:
        recording.sent(method, path, more.get("params") or {}, more.get("kind", ""), more.get("body"))
        return send(self, method, path, **more)

    def answered(self: Cluster, method: str, path: str, **more: Any) -> bytes:
        answer = raw(self, method, path, **more)
        if not path.endswith("/log"):
            recording.answered(path, answer)
        return answer

    with patch.context() as patched:
        patched.setattr(Cluster, "_send", sent)
        patched.setattr(Cluster, "_raw", answered)
        yield recording


def folder() -> str:
    """Where recordings are written to; empty when none is asked for."""
    return os.environ.get("SLIPWAY_RECORD", "")


def keep(recording: Recording, scenario: str) -> None:
    """Write a recording."""
    Path(folder()).mkdir(parents=True, exist_ok=True)
    (Path(folder()) / f"{scenario}.json").write_bytes(recording.text())
