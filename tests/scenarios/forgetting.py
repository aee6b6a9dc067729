"""A watcher that is kept from the cluster, and a cluster that forgets what happened in the meantime."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from deployments.kube.cluster import Cluster, WatchStream
from deployments.kube.errors import ClusterError
from deployments.kube.kinds import Kind
from deployments.watcher.seen import followed
from sandbox.lite.storage import LOG_LENGTH, TRIM_EVERY
from tests.scenarios.grounds import Ground, Object

PATIENCE = 60.0
# Not on every ground: the real one has no KEDA.
SOMETIMES = {"scaledobjects"}
EVERYTHING = {item.kind.plural for item in followed()} - SOMETIMES


class Late(Cluster):
    """The watcher's door: its watches end after a second and, while it is shut, do not begin again.

    `expired` are the collections whose watch was answered with 410, as a status or as an event.
    """

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.expired: set[str] = set()
        self._gate = threading.Event()
        self._gate.set()
        self._waiting: set[str] = set()

    def watch(self, kind: Kind, version: str, **more: Any) -> WatchStream:
        self._waiting.add(kind.plural)
        self._gate.wait()
        self._waiting.discard(kind.plural)
        try:
            stream = super().watch(kind, version, **more | {"seconds": 1})
        except ClusterError as error:
            self._note(kind, error.status)
            raise
        return Overheard(stream, lambda line: self._note(kind, _code(line)))

    @contextmanager
    def shut(self) -> Iterator[None]:
        """No watch is open for the length of the block; those that were ended by themselves, in peace."""
        self._gate.clear()
        try:
            wait_for(lambda: self._waiting >= EVERYTHING, "every watch to end")
            yield
        finally:
            self._gate.set()

    def _note(self, kind: Kind, status: int | None) -> None:
        if status == 410:
            self.expired.add(kind.plural)


class Overheard(WatchStream):
    """A stream whose lines somebody else hears first."""

    def __init__(self, stream: WatchStream, hear: Callable[[bytes], None]) -> None:
        super().__init__(stream._answer)
        self._hear = hear

    def __iter__(self) -> Iterator[bytes]:
        for line in super().__iter__():
            self._hear(line)
            yield line


def _code(line: bytes) -> int | None:
    event = orjson.loads(line)
    return event["object"].get("code") if event["type"] == "ERROR" else None


def forget(ground: Ground) -> None:
    """Make the cluster forget every change until now."""
    if ground.name == "lite":
        _push_out(ground)
    else:
        _compact(ground)


def _push_out(ground: Ground) -> None:
    """Change one object until nothing else is left in the log."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "restless", "namespace": "default"}}
    ground.create(body)
    for number in range(LOG_LENGTH + TRIM_EVERY):
        ground.edit("ConfigMap", "restless", "default", {"data": {"number": str(number)}})
    ground.remove("ConfigMap", "restless", "default")


def _compact(ground: Ground) -> None:
    """Compact etcd, then start an API server that has seen nothing of what etcd has forgotten."""
    found = _etcd(ground, "range", {"key": base64.b64encode(b"/").decode()})
    _etcd(ground, "compaction", {"revision": found["header"]["revision"], "physical": True})
    first = ground.pid(ground.api_server)
    ground.kill(ground.api_server)
    wait_for(lambda: ground.pid(ground.api_server) not in (0, first) and ground.answers(), "the API server")
    wait_for(lambda: _serves(ground), "all that the watcher follows to be served to it")


def _serves(ground: Ground) -> bool:
    """Tell whether the API server knows every kind again and what the watcher may do: for a moment it refuses all."""
    door = Cluster.from_kubeconfig(ground.kubeconfig_of("watcher"))
    try:
        return all(next(door.pages(item.kind)) for item in followed() if item.kind.plural in EVERYTHING)
    except ClusterError:
        return False
    finally:
        door.close()


def _etcd(ground: Ground, verb: str, body: Object) -> Object:
    """Ask etcd as the API server does, through its JSON gateway."""
    ports: dict[str, int] = json.loads((ground.data / "ports.json").read_text())
    context = ssl.create_default_context(cafile=ground.folder / "ca.crt")
    mine = ground.folder / "kube-apiserver-etcd"
    context.load_cert_chain(mine.with_suffix(".crt"), mine.with_suffix(".key"))
    url = f"https://127.0.0.1:{ports['etcd-http']}/v3/kv/{verb}"
    request = urllib.request.Request(url, orjson.dumps(body), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        found: Object = json.load(answer)
        return found


def wait_for(done: Callable[[], object], what: str) -> None:
    """Wait for something; AssertionError after a minute."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(0.05)
