"""One watcher per database: an advisory lock held by a connection of its own decides."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection

logger = logging.getLogger(__name__)

LOCK = 0x51150A7C  # any number that nothing else locks
RETRY_SECONDS = 2.0


class DeposedError(Exception):
    """The lock's connection is gone: another watcher may be at work."""


class Office:
    """The lock, held. `check` raises DeposedError once it may have been lost."""

    def __init__(self, session: psycopg.Connection[Any]) -> None:
        self._session = session

    def check(self) -> None:
        """Ask the database whether the session that holds the lock still lives."""
        try:
            self._session.execute("SELECT 1")
        except psycopg.Error as error:
            raise DeposedError(str(error)) from error


@contextmanager
def elected(stop: threading.Event) -> Iterator[Office | None]:
    """Wait for the lock and hold it; None when `stop` was set first."""
    session = _wait(stop)
    if session is None:
        yield None
        return
    try:
        yield Office(session)
    finally:
        session.close()


def _wait(stop: threading.Event) -> psycopg.Connection[Any] | None:
    told = False
    while not stop.is_set():
        session = None
        try:
            session = psycopg.connect(**_parameters(), autocommit=True)
            row = session.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
            if row and row[0]:
                return session
            if not told:
                logger.info("another watcher is at work; waiting")
                told = True
        except psycopg.Error as error:
            logger.warning("no database: %s", error)
        if session is not None:
            session.close()
        stop.wait(RETRY_SECONDS)
    return None


def _parameters() -> dict[str, Any]:
    parameters = connection.get_connection_params()
    return {
        name: value
        for name, value in parameters.items()
        if name in {"dbname", "user", "password", "host", "port", "connect_timeout"}
    }
