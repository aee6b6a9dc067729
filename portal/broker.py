"""A worker that lost an acknowledgement begins its connection anew.

Celery only logs it. The message then counts as in hand for ever, and after as many as a worker may hold (with a
prefetch of one: its number of processes) it takes no other, without a word: a broker that hung for a moment would stop
it for good. Closing the connection gives such messages back to the broker, which hands them out again; the tasks bear
that.
"""

from __future__ import annotations

import logging
from threading import Event
from typing import Any

from celery import bootsteps
from celery.worker import request

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
lost = Event()


class Request(request.Request):
    """A task in hand."""

    def acknowledge(self) -> None:
        """Tell the broker that the task is done; where that fails, have the connection begun anew."""
        if self.acknowledged:
            return
        lost_connection: tuple[type[Exception], ...] = tuple(self.connection_errors)
        try:
            self.message.ack()
        except lost_connection as error:
            logger.warning("the broker did not take an acknowledgement: %s", error)
            lost.set()
        self.acknowledged = True


class Watch(bootsteps.StartStopStep):
    """Looks in the worker's event loop: an error of the connection that is raised there makes it connect again."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self.timer: Any = None

    def start(self, parent: Any) -> None:
        """Begin to look; what an earlier connection lost went with it."""
        lost.clear()
        self.timer = parent.timer.call_repeatedly(LOOK_SECONDS, look)

    def stop(self, parent: Any) -> None:
        """Look no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def look() -> None:
    """Raise what celery takes for a lost connection once an acknowledgement was lost."""
    if lost.is_set():
        lost.clear()
        raise ConnectionResetError("an acknowledgement was lost")
