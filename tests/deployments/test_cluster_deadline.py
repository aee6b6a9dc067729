"""A call of the cluster ends when its time is up, whatever the API server does: a lease must not run out under it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from deployments.kube.cluster import Cluster
from deployments.kube.errors import ClusterError
from deployments.kube.kinds import kind_of

POD = kind_of("v1", "Pod")


@contextmanager
def serving(tmp_path: Path, answer: Callable[[socket.socket, int, threading.Event], None]) -> Iterator[Cluster]:
    """A cluster whose API server answers each request, numbered from 0, as `answer` does."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket, number: int) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            answer(connection, number, over)

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            for number in range(10):
                connection, _ = server.accept()
                thread = threading.Thread(target=serve, args=(connection, number), daemon=True)
                thread.start()
                threads.append(thread)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.getsockname()[1]}"}},
            ],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        cluster = Cluster.from_kubeconfig(path)
        try:
            yield cluster
        finally:
            over.set()
            cluster.close()
            for thread in threads:
                thread.join(5)


def reply(connection: socket.socket, status: str, body: bytes, *, length: int | None = None) -> None:
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + body)


def test_a_second_try_after_401_has_the_time_that_is_left(tmp_path: Path) -> None:
    def answer(connection: socket.socket, number: int, over: threading.Event) -> None:
        if number == 0:
            over.wait(1.2)
            reply(connection, "401 Unauthorized", b"{}")
        else:
            over.wait(10)

    with serving(tmp_path, answer) as cluster:
        began = time.monotonic()
        with pytest.raises(ClusterError) as error:
            cluster.version(timeout=1.6)
        took = time.monotonic() - began
    assert error.value.code == "timeout"
    assert took < 2.4


def test_an_error_whose_body_drips_costs_the_time_given(tmp_path: Path) -> None:
    def answer(connection: socket.socket, number: int, over: threading.Event) -> None:
        reply(connection, "500 Internal Server Error", b"{", length=10_000)
        while not over.wait(0.05):
            connection.sendall(b" ")

    with serving(tmp_path, answer) as cluster:
        began = time.monotonic()
        with pytest.raises(ClusterError) as error:
            cluster.version(timeout=0.5)
        took = time.monotonic() - began
    assert error.value.status == 500
    assert took < 4


def test_a_long_list_lets_its_caller_keep_the_lease_after_each_page(tmp_path: Path) -> None:
    def answer(connection: socket.socket, number: int, over: threading.Event) -> None:
        more = b"" if number == 2 else b"next"
        reply(connection, "200 OK", b'{"metadata": {"continue": "' + more + b'"}, "items": [{}]}')

    kept: list[int] = []
    with serving(tmp_path, answer) as cluster:
        found = cluster.list_all(POD, namespace="a", between=lambda: kept.append(len(kept)))
    assert (len(found), kept) == (3, [0, 1, 2])


def test_identity_is_asked_again_after_a_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(connection: socket.socket, number: int, over: threading.Event) -> None:
        reply(connection, "200 OK", b'{"metadata": {"uid": "cluster-%d"}}' % number)

    with serving(tmp_path, answer) as cluster:
        assert [cluster.identity(), cluster.identity()] == ["cluster-0", "cluster-0"]
        monkeypatch.setattr("deployments.kube.cluster.IDENTITY_SECONDS", -1.0)
        assert cluster.identity() == "cluster-1"
