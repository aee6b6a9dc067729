"""Hints through a real Redis: they cost a page next to nothing, whatever Redis does, and work again by themselves."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from celery import Celery

from portal.lib import hints

HUNG_MOST = 2.0  # seconds a page may lose to a broker that hangs


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A Redis of its own, and hints that go there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    app = Celery("hints", set_as_current=False)
    app.config_from_object("portal.settings", namespace="CELERY")
    app.conf.broker_url = f"redis://127.0.0.1:{port}/0"
    monkeypatch.setattr(hints, "current_app", app)
    wait_for(port)
    yield server
    server.send_signal(signal.SIGCONT)
    server.kill()
    server.wait(5)
    app.close()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def no_broker() -> None:
    """Here hints are really sent."""


def cost() -> float:
    began = time.monotonic()
    hints._send(hints.RECONCILE, 1)
    return time.monotonic() - began


def test_a_broker_that_hangs_costs_a_page_little(broker, caplog):
    cost()
    broker.send_signal(signal.SIGSTOP)
    assert cost() < HUNG_MOST
    assert "not sent" in caplog.text
    broker.send_signal(signal.SIGCONT)
    caplog.clear()
    cost()
    assert caplog.text == ""


def test_a_broker_that_is_away_costs_a_page_little(broker, caplog):
    cost()
    broker.kill()
    broker.wait(5)
    assert cost() < HUNG_MOST
    assert "not sent" in caplog.text
