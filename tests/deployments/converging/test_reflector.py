"""Following a kind: through compaction, dropped streams, error lines and a server that is away."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import orjson
import pytest

from deployments.kube import slim
from deployments.kube.cluster import Cluster
from deployments.kube.errors import ErrorClass, transport_error
from deployments.kube.kinds import Ref, kind_of
from deployments.kube.ownership import managed_hash
from deployments.kube.reflector import Broken, Changed, Listed, Reflector, Signal
from sandbox.lite.faults import Fault
from sandbox.lite.testing import RunningCluster
from tests.deployments.converging.stage import fresh_suffix

NAMESPACES = kind_of("v1", "Namespace")


class Followed:
    """A reflector of namespaces and the store that its signals make."""

    def __init__(self, cluster: Any, **options: Any) -> None:
        self.signals: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self.store: dict[str, str] = {}
        self.lists = 0
        self.broken: list[Broken] = []
        self.reflector = Reflector(
            cluster, NAMESPACES, slim.Named, lambda raw: raw.metadata.uid, self.signals.put, **options
        )

    def until(self, done: Callable[[], object], seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, "it did not come to pass"
            try:
                signal = self.signals.get(timeout=0.1)
            except queue.Empty:
                continue
            match signal:
                case Listed():
                    self.lists += 1
                    self.store = {key[1]: uid for key, uid in signal.items.items()}
                case Changed(key=(_, name), item=None):
                    self.store.pop(name, None)
                case Changed(key=(_, name), item=uid):
                    self.store[name] = uid
                case Broken():
                    self.broken.append(signal)


@pytest.fixture
def followed(admin: Cluster, ground: RunningCluster) -> Iterator[Followed]:
    followed = Followed(admin)
    followed.reflector.start()
    followed.until(lambda: followed.lists)
    yield followed
    ground.faults.clear()
    followed.reflector.stop()


def make(admin: Cluster) -> str:
    name = f"follow-{fresh_suffix()}"
    admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def test_the_list_comes_first_and_changes_after(followed: Followed, admin: Cluster):
    assert "kube-system" in followed.store
    name = make(admin)
    followed.until(lambda: name in followed.store)
    assert followed.lists == 1


def test_a_deleted_object_goes(followed: Followed, admin: Cluster):
    name = make(admin)
    followed.until(lambda: name in followed.store)
    live = admin.read(_ref(name))
    admin.delete(_ref(name), live["metadata"]["uid"], propagation="Background")
    followed.until(lambda: name not in followed.store)


def test_a_dropped_stream_goes_on_where_it_was(followed: Followed, admin: Cluster, ground: RunningCluster):
    ground.drop_watches()
    name = make(admin)
    followed.until(lambda: name in followed.store)


def test_a_compacted_log_means_a_new_list(followed: Followed, admin: Cluster, ground: RunningCluster):
    ground.faults.before_hook = lambda request: (
        Fault(status=410, reason="Expired", message="too old") if request.flag("watch") else None
    )
    ground.drop_watches()
    name = make(admin)
    followed.until(lambda: name in followed.store and followed.lists > 1)
    ground.faults.clear()
    other = make(admin)
    followed.until(lambda: other in followed.store)


def test_a_server_that_is_away_is_told_and_followed_again(followed: Followed, admin: Cluster, ground: RunningCluster):
    ground.faults.before_hook = lambda _: Fault(drop=True)
    ground.drop_watches()
    followed.until(lambda: followed.broken)
    assert followed.broken[0].error.kind is ErrorClass.RETRY
    ground.faults.clear()
    name = make(admin)
    followed.until(lambda: name in followed.store, seconds=40)


def test_a_refusal_of_a_moment_does_not_blind_for_long(followed: Followed, admin: Cluster, ground: RunningCluster):
    """So does an API server speak that has just started and has not read the roles yet."""
    mine = "/api/v1/namespaces"
    ground.faults.before_hook = lambda request: (
        Fault(status=403, reason="Forbidden", message="forbidden") if request.path == mine else None
    )
    ground.drop_watches()
    followed.until(lambda: followed.broken)
    ground.faults.clear()
    before = followed.lists
    followed.until(lambda: followed.lists > before, seconds=5)


def test_told_that_the_server_answers_again_nothing_waits(
    followed: Followed, admin: Cluster, ground: RunningCluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("deployments.kube.reflector.FIRST_PAUSE", 60.0)
    ground.faults.before_hook = lambda _: Fault(status=403, reason="Forbidden", message="forbidden")
    ground.drop_watches()
    followed.until(lambda: followed.broken)
    first = followed.broken[0].error
    assert (first.kind, first.code) == (ErrorClass.RETRY, "starting")
    ground.faults.clear()
    before = followed.lists
    followed.reflector.hurry()
    followed.until(lambda: followed.lists > before, seconds=5)


def test_a_complete_list_is_made_now_and_then(admin: Cluster):
    followed = Followed(admin, relist_seconds=1.0)
    followed.reflector.start()
    try:
        followed.until(lambda: followed.lists >= 3)
    finally:
        followed.reflector.stop()


class Lines:
    """A cluster that plays one list and then, stream after stream, given lines."""

    def __init__(self, *streams: list[bytes]) -> None:
        self.streams = list(streams)
        self.versions: list[str] = []
        self.listed = 0

    def pages(self, *_: Any, **__: Any) -> Iterator[bytes]:
        self.listed += 1
        yield b'{"metadata":{"resourceVersion":"10"},"items":[]}'

    def watch(self, _kind: Any, version: str, **_: Any) -> Any:
        self.versions.append(version)
        if not self.streams:
            raise transport_error("unreachable", "nothing more", mutating=False)
        return _Stream(self.streams.pop(0))


class _Stream:
    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._lines)

    def abort(self) -> None:
        return None


def added(name: str, version: int) -> bytes:
    return b'{"type":"ADDED","object":{"metadata":{"name":"%s","uid":"u","resourceVersion":"%d"}}}' % (
        name.encode(),
        version,
    )


def play(*streams: list[bytes]) -> tuple[Followed, Lines]:
    lines = Lines(*streams)
    followed = Followed(lines)
    followed.reflector.start()
    try:
        followed.until(lambda: followed.broken)
    finally:
        followed.reflector.stop()
    return followed, lines


def test_a_bookmark_moves_the_place_to_go_on_from():
    bookmark = b'{"type":"BOOKMARK","object":{"kind":"Namespace","metadata":{"resourceVersion":"77"}}}'
    _, lines = play([added("a", 11), bookmark])
    assert lines.versions[:2] == ["10", "77"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"boom"}}',
        b'{"type":"ERROR","object":{"kind":"Status"}}',
        b'{"type":"ERROR","object":"text"}',
        b'{"type":"ERROR","object":null}',
        b'{"type":"SURPRISE","object":{}}',
        b'{"type":"ADDED","object":{"metadata":{"name":5}}}',
        b'{"type":"ADDED"}',
        b"<html>",
    ],
)
def test_no_line_ends_the_following(line):
    followed, lines = play([line], [added("later", 12)])
    assert followed.broken
    assert lines.listed >= 1


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}',
        b'{"type":"ERROR","object":{"kind":"Status","code":410}}',
    ],
)
def test_an_expired_version_in_the_stream_means_a_new_list(line):
    _, lines = play([line], [])
    assert lines.listed >= 2


def test_the_slim_hash_of_our_fields_is_the_same_as_of_the_whole_object(admin: Cluster):
    name = make(admin)
    live = admin.read(_ref(name))
    decoded = msgspec.json.decode(orjson.dumps(live), type=slim.Named)
    assert decoded.metadata.managed() == managed_hash(live) != ""


def _ref(name: str) -> Ref:
    return Ref("v1", "Namespace", "", name)
