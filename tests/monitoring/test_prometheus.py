"""The door to Prometheus: one flight for many viewers, bounded when the server is away or slow."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from monitoring.prometheus import Prometheus, PrometheusUnreachableError, QueryRefusedError, Range
from portal.lib.promql import Query

OVER = Range(1000, 1600, 10)


class Server(ThreadingHTTPServer):
    """Answers like Prometheus; `status` and `values` are set by a test."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.status = 200
        self.values = [[1000, "0.5"], [1010, "NaN"], [1020, "+Inf"]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        time.sleep(0.05)  # long enough that the other viewers arrive meanwhile
        result = [{"metric": {"series": "p95"}, "values": self.server.values}]
        body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def door_to(server: Server) -> Prometheus:
    return Prometheus(f"http://127.0.0.1:{server.server_port}")


def test_a_hundred_viewers_cost_one_query(server: Server) -> None:
    door = door_to(server)

    with ThreadPoolExecutor(20) as viewers:
        answers = list(viewers.map(lambda _: door.range(Query("up"), OVER), range(100)))

    assert len(server.asked) == 1
    assert all(answer == answers[0] for answer in answers)


def test_values_that_json_does_not_know_are_none(server: Server) -> None:
    (line,) = door_to(server).range(Query("up"), OVER)

    assert line.points == [(1000, 0.5), (1010, None), (1020, None)]


def test_an_answer_is_asked_again_when_it_is_old(server: Server) -> None:
    now = [0.0]
    door = Prometheus(f"http://127.0.0.1:{server.server_port}", clock=lambda: now[0])

    door.range(Query("up"), OVER)
    now[0] = OVER.step + 1
    door.range(Query("up"), OVER)

    assert len(server.asked) == 2


def test_a_refused_query_is_not_an_outage(server: Server) -> None:
    server.status = 422
    door = door_to(server)

    with pytest.raises(QueryRefusedError):
        door.range(Query("nonsense("), OVER)
    server.status = 200
    assert door.range(Query("up"), OVER)


def test_an_outage_is_asked_once_not_once_per_chart() -> None:
    now = [100.0]
    door = Prometheus("http://127.0.0.1:9", clock=lambda: now[0])  # the discard port: nobody listens

    for name in ("a", "b", "c"):
        with pytest.raises(PrometheusUnreachableError):
            door.range(Query(name), OVER)
    assert door.queries == 1

    now[0] += 10
    with pytest.raises(PrometheusUnreachableError):
        door.range(Query("d"), OVER)
    assert door.queries == 2


def test_a_server_in_trouble_counts_as_an_outage(server: Server) -> None:
    server.status = 503

    with pytest.raises(PrometheusUnreachableError):
        door_to(server).range(Query("up"), OVER)


def test_an_outage_has_a_beginning_that_ends_with_the_next_answer(server: Server) -> None:
    now = [100.0]
    door = Prometheus(f"http://127.0.0.1:{server.server_port}", clock=lambda: now[0])

    server.status = 503
    assert not door.reachable()
    began = door.away_since
    now[0] += 10
    assert not door.reachable()
    assert began is not None
    assert door.away_since == began

    server.status, now[0] = 200, now[0] + 10
    door.range(Query("up"), OVER)
    assert door.away_since is None
