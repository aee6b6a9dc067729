"""The outer of two layers: it waits for the supervisor, passes on signals, and ends what a dead one left."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import NoReturn

from portal.demo import proc

STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
STOP_SECONDS = 15.0


def run(serve: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    """Run `serve(stop)` in a child of its own; returns its status when nothing of it is left.

    `stop` is set by Ctrl-C, TERM or a closed terminal; a second Ctrl-C kills at once. When the child is killed
    its programs are ended here, and when this process is killed the child ends them.
    """
    proc.become_subreaper()
    watched = STOP_SIGNALS | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    guard = os.getpid()
    sys.stdout.flush()
    inner = os.fork()
    if inner == 0:
        _inner(guard, serve)
    try:
        code = _wait(inner, watched)
        proc.sweep(guard, patience=2.0, reap=_reap)
        return code if code >= 0 else 128 - code
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(inner: int, watched: set[signal.Signals]) -> int:
    asked = deadline = 0.0
    while True:
        for pid, code in proc.reap_all():
            if pid == inner:
                return code
        info = signal.sigtimedwait(watched, 0.5)
        number = info.si_signo if info else 0
        if number in STOP_SIGNALS:
            # A terminal sends one Ctrl-C to make and to us: what follows at once is the same wish.
            again = asked and time.monotonic() - asked > 1.0
            proc.send(inner, signal.SIGKILL if again else signal.SIGTERM)
            asked = asked or time.monotonic()
            deadline = asked + STOP_SECONDS
        if deadline and time.monotonic() > deadline:
            proc.send(inner, signal.SIGKILL)


def _inner(guard: int, serve: Callable[[asyncio.Event], Awaitable[int]]) -> NoReturn:
    """Serve in a session of its own; ends by `_exit`, so that nothing of the guard's runs twice."""
    code = 70
    try:
        os.setsid()
        proc.die_with_parent(guard, signal.SIGTERM)
        proc.become_subreaper()
        code = asyncio.run(_serve(serve))
    finally:
        if code == 70:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


async def _serve(serve: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS | {signal.SIGCHLD})
    return await serve(stop)


def _reap() -> None:
    proc.reap_all()
