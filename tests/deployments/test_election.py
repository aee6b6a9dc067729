"""One watcher is at work, and one that lost its lock knows it."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from deployments.watcher import election
from deployments.watcher.election import DeposedError, elected

pytestmark = pytest.mark.django_db(transaction=True)


def kill_the_holder() -> None:
    """End the session that holds the lock, as a restart of PostgreSQL would."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s",
            [election.LOCK & 0xFFFFFFFF],
        )
        assert cursor.fetchall() == [(True,)]


def test_a_second_watcher_waits_until_the_first_is_gone(monkeypatch):
    monkeypatch.setattr(election, "RETRY_SECONDS", 0.05)
    stop, entered = threading.Event(), threading.Event()

    def second() -> None:
        with elected(stop) as office:
            if office is not None:
                entered.set()

    with elected(threading.Event()) as first:
        assert first is not None
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.5)
    assert entered.wait(5)
    thread.join(5)


def test_a_watcher_whose_session_died_steps_down():
    with elected(threading.Event()) as office:
        assert office is not None
        office.check()
        kill_the_holder()
        with pytest.raises(DeposedError):
            office.check()


def test_a_waiting_watcher_can_be_stopped(monkeypatch):
    monkeypatch.setattr(election, "RETRY_SECONDS", 0.05)
    stop = threading.Event()
    with elected(threading.Event()):
        stop.set()
        with elected(stop) as office:
            assert office is None
