"""Watches: what they say, where they start, and that they survive a restart of the server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from sandbox.client import ApiError, Client, Reflector
from sandbox.lite.storage import Storage
from sandbox.lite.testing import Fault, RunningCluster, running_cluster
from tests.sandbox.conftest import Api, Obj, config_map, pod


@pytest.fixture(scope="module")
def team(api: Api) -> str:
    return api.namespace("team-watch")


@contextlib.contextmanager
def lines(api: Api, path: str, **params: Any) -> Iterator[Iterator[Obj]]:
    """Open a watch and yield its events."""
    with api.http.stream("GET", path, params={"watch": "true", **params}) as answer:
        yield (orjson.loads(line) for line in answer.iter_lines() if line)


def version(api: Api, path: str) -> str:
    return str(api.get(path).json()["metadata"]["resourceVersion"])


def seen(event: Obj) -> tuple[str, str]:
    return event["type"], event["object"]["metadata"].get("name", "")


def test_a_watch_tells_each_change_in_order(api: Api, team: str) -> None:
    path = f"{team}/configmaps"
    with lines(api, path, resourceVersion=version(api, path)) as events:
        api.post(path, config_map("a"))
        api.patch(f"{path}/a", {"data": {"x": "1"}})
        api.delete(f"{path}/a")
        found = [next(events) for _ in range(3)]

    assert [seen(event) for event in found] == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in found]
    assert versions == sorted(set(versions))


def test_what_finalizers_held_goes_as_it_was_and_is_answered_as_sent(api: Api, team: str) -> None:
    path = f"{team}/configmaps"
    body = config_map("held")
    body["metadata"]["finalizers"] = ["slipway.dev/wait"]
    with lines(api, path, resourceVersion=version(api, path)) as events:
        api.post(path, body)
        marked = api.delete(f"{path}/held").json()["metadata"]
        freed = api.patch(f"{path}/held", {"metadata": {"finalizers": None}}).json()["metadata"]
        gone = [next(events) for _ in range(3)][-1]

    assert "finalizers" not in freed
    assert freed["resourceVersion"] == marked["resourceVersion"]
    assert (gone["type"], gone["object"]["metadata"]["finalizers"]) == ("DELETED", ["slipway.dev/wait"])
    assert int(gone["object"]["metadata"]["resourceVersion"]) > int(marked["resourceVersion"])


def test_a_watch_from_an_earlier_version_starts_with_what_happened_since(api: Api, team: str) -> None:
    path = f"{team}/configmaps"
    start = version(api, path)
    api.post(path, config_map("b"))

    with lines(api, path, resourceVersion=start) as events:
        assert seen(next(events)) == ("ADDED", "b")


def test_a_watch_without_a_version_starts_with_what_is_there(api: Api, team: str) -> None:
    api.post(f"{team}/secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "there"}})

    with lines(api, f"{team}/secrets") as events:
        assert seen(next(events)) == ("ADDED", "there")


def test_objects_come_into_view_and_leave_it_by_label(api: Api, team: str) -> None:
    path = f"{team}/configmaps"
    with lines(api, path, resourceVersion=version(api, path), labelSelector="hot=yes") as events:
        api.post(path, config_map("l"))
        api.patch(f"{path}/l", {"metadata": {"labels": {"hot": "yes"}}})
        api.patch(f"{path}/l", {"data": {"x": "1"}})
        api.patch(f"{path}/l", {"metadata": {"labels": {"hot": "no"}}})
        found = [next(events)["type"] for _ in range(3)]

    assert found == ["ADDED", "MODIFIED", "DELETED"]


def test_a_node_agent_sees_its_own_pods_alone(api: Api, team: str) -> None:
    start = version(api, "/api/v1/pods")
    with lines(api, "/api/v1/pods", resourceVersion=start, fieldSelector="spec.nodeName=gpu-1") as events:
        api.post(f"{team}/pods", pod("elsewhere", {"nodeName": "gpu-2"}))
        api.post(f"{team}/pods", pod("here"))
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "here"}, "target": {"name": "gpu-1"}}
        api.post(f"{team}/pods/here/binding", binding)
        assert seen(next(events)) == ("ADDED", "here")


def test_an_old_version_is_gone_after_compaction(lite: RunningCluster, api: Api, team: str) -> None:
    start = version(api, f"{team}/configmaps")
    api.post(f"{team}/configmaps", config_map("late"))
    lite.compact()

    answer = api.get(f"{team}/configmaps", watch="true", resourceVersion=start)

    assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")


def test_bookmarks_carry_the_newest_version(api: Api, team: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.lite.watch.BOOKMARK_SECONDS", 0.05)
    path = f"{team}/secrets"
    with lines(api, path, resourceVersion=version(api, path), allowWatchBookmarks="true") as events:
        api.post(f"{team}/configmaps", config_map("unrelated"))
        newest = int(version(api, path))
        bookmarks = (int(e["object"]["metadata"]["resourceVersion"]) for e in events if e["type"] == "BOOKMARK")
        assert next(found for found in bookmarks if found >= newest)


def test_initial_events_end_with_a_marked_bookmark(api: Api, team: str) -> None:
    params = {"sendInitialEvents": "true", "allowWatchBookmarks": "true", "resourceVersionMatch": "NotOlderThan"}
    with lines(api, "/api/v1/namespaces", **params) as events:
        for event in events:
            if event["type"] == "BOOKMARK":
                assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
                break
            assert event["type"] == "ADDED"


def test_a_watch_ends_after_its_time(api: Api, team: str) -> None:
    with lines(api, f"{team}/secrets", resourceVersion=version(api, f"{team}/secrets"), timeoutSeconds=1) as events:
        assert list(events) == []


def test_a_reflector_follows_through_broken_streams_and_compaction(lite: RunningCluster, api: Api) -> None:
    path = api.namespace("team-reflect") + "/configmaps"

    async def follow() -> dict[tuple[str, str], Obj]:
        client = Client.from_kubeconfig(lite.kubeconfig)
        seen_: list[tuple[str, str]] = []
        reflector = Reflector(client, path, on_change=lambda kind, obj: seen_.append((kind, obj["metadata"]["name"])))
        task = asyncio.create_task(reflector.run())
        await asyncio.wait_for(reflector.synced.wait(), 5)
        await client.create(path, config_map("one"))
        await until(lambda: ("ADDED", "one") in seen_)
        lite.drop_watches()
        await client.delete(f"{path}/one")
        lite.compact()
        await client.create(path, config_map("two"))
        await until(lambda: ("ADDED", "two") in seen_ and ("DELETED", "one") in seen_)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()
        return reflector.store

    async def until(condition: Any) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)

    assert {name for _, name in asyncio.run(follow())} == {"two", "kube-root-ca.crt"}


def test_injected_faults_reach_the_client(lite: RunningCluster, api: Api, team: str) -> None:
    async def errors() -> list[str]:
        client = Client.from_kubeconfig(lite.kubeconfig)
        found = []
        for fault in (Fault(status=429, retry_after=1), Fault(status=500), Fault(drop=True)):
            lite.faults.before_hook = lambda request, fault=fault: fault if request.method == "POST" else None
            try:
                await client.create(f"{team}/configmaps", config_map("faulty"))
            except ApiError as error:
                found.append(str(error.status))
            except Exception as error:
                found.append(type(error).__name__)
        lite.faults.clear()
        await client.close()
        return found

    assert asyncio.run(errors()) == ["429", "500", "RemoteProtocolError"]
    assert api.get(f"{team}/configmaps/faulty").status_code == 404


def test_a_fault_after_the_write_hides_a_write_that_happened(lite: RunningCluster, api: Api, team: str) -> None:
    lite.faults.after_hook = lambda request: Fault(status=500) if request.method == "POST" else None
    answer = api.post(f"{team}/configmaps", config_map("hidden"))
    lite.faults.clear()

    assert answer.status_code == 500
    assert api.get(f"{team}/configmaps/hidden").status_code == 200


def test_a_restart_keeps_objects_versions_and_tokens(tmp_path: Path) -> None:
    with running_cluster(tmp_path, controllers=False) as first:
        api = Api.of(first)
        path = api.namespace("team-restart") + "/configmaps"
        start = version(api, path)
        api.post(path, config_map("kept", a="1"))
        token, before = first.token, version(api, path)

    with running_cluster(tmp_path, controllers=False) as second:
        api = Api.of(second, token)
        assert api.get(f"{path}/kept").json()["data"] == {"a": "1"}
        assert int(version(api, path)) >= int(before)
        with lines(api, path, resourceVersion=start) as events:
            assert seen(next(events)) == ("ADDED", "kept")


def test_a_killed_server_has_lost_nothing_it_answered(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "sandbox", "apiserver", f"--data={tmp_path}", f"--port={port}", "--no-controllers"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        answered = asyncio.run(write_until_killed(tmp_path / "admin.kubeconfig", server))
    finally:
        server.kill()
        server.wait()

    storage = Storage(tmp_path / "cluster.db")
    kept = {stored.obj["metadata"]["name"] for stored in storage.all("/configmaps", "default")}
    storage.close()
    assert len(answered) == 20
    assert answered <= kept


async def write_until_killed(kubeconfig: Path, server: subprocess.Popen[bytes]) -> set[str]:
    client = await when_up(kubeconfig)
    answered = set()
    for index in range(20):
        await client.create("/api/v1/namespaces/default/configmaps", config_map(f"k{index}"))
        answered.add(f"k{index}")
    server.send_signal(signal.SIGKILL)
    await client.close()
    return answered


async def when_up(kubeconfig: Path) -> Client:
    deadline = time.monotonic() + 20
    while True:
        try:
            client = Client.from_kubeconfig(kubeconfig)
            await client.get("/version")
            return client
        except (OSError, Exception):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
