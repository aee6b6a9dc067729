"""Starts programs in the order of their needs, restarts those that die, and ends them all, dependants first.

One thread: `PR_SET_PDEATHSIG` would fire when the *thread* that forked a child ends, and nothing here forks while
another thread holds a lock.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from portal.demo import proc
from portal.demo.logs import LogFolder
from portal.demo.program import Program

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
STEADY = 10.0  # seconds of life after which a program's next death counts as its first
SETTLED = 0.7
FAILED_STARTS = 4
POLL = 0.05


class Report(Protocol):
    """Where the supervisor says what happens; `text` is a sentence for people."""

    def started(self, name: str, seconds: float) -> None: ...

    def notice(self, text: str) -> None: ...


class StartFailed(Exception):
    """A program did not come up; the message names it, says why, and carries the end of its log."""


@dataclass
class Child:
    """One program and its present process; `pid` is 0 between two lives."""

    program: Program
    pid: int = 0
    restarts: int = 0
    spawned: float = 0.0
    ready: bool = False  # now; `up` says whether it ever was
    up: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Future[int] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def state(self) -> str:
        if self.program.once and self.up.is_set():
            return "done"
        if not self.pid:
            return "waiting" if not self.spawned else "down"
        return "up" if self.ready else "starting"


class Supervisor:
    """Runs `programs` below this process until `stop` is set; use inside `guard.run`."""

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        stop: asyncio.Event,
        logs: LogFolder,
        report: Report,
        status: Path,
        cwd: Path,
    ) -> None:
        self.children = {program.name: Child(program) for program in programs}
        self.logs = logs
        self.report = report
        self.status = status
        self.cwd = cwd
        self.stopping = stop
        self._popen: dict[int, subprocess.Popen[bytes]] = {}
        for program in programs:
            unknown = set(program.after) - set(self.children)
            if unknown:
                raise ValueError(f"{program.name} comes after unknown programs {sorted(unknown)}")

    async def start(self) -> None:
        """Bring every program up; raises StartFailed, with the others still running, if one cannot be."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        self._tasks = [asyncio.create_task(self._keep(child)) for child in self.children.values()]
        self._tasks.append(asyncio.create_task(self.logs.keep_small()))
        while not self.stopping.is_set() and not all(child.up.is_set() for child in self.children.values()):
            self._raise_failure()
            await self._pause(POLL)

    async def serve(self) -> None:
        """Keep everything running until `stop` is set; raises what a keeper raised."""
        while not self.stopping.is_set():
            self._raise_failure()
            await self._pause(0.5)

    async def close(self) -> None:
        """End every program, those that need another one before it, then whatever they left behind."""
        self.stopping.set()
        await asyncio.gather(*(self._end(child) for child in self.children.values()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        proc.sweep(os.getpid(), patience=1.0, reap=self._reap)
        self._write_status()

    def _raise_failure(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    async def _keep(self, child: Child) -> None:
        """Start one program when its needs are met, and again whenever it dies."""
        program = child.program
        for need in program.after:
            await self.children[need].up.wait()
        failures, pause = 0, FIRST_PAUSE
        while not self.stopping.is_set():
            begun = time.monotonic()
            self._spawn(child)
            assert child.ended is not None
            if await self._becomes_ready(child):
                self._came_up(child, time.monotonic() - begun)
                if program.once:
                    return
            code = await child.ended
            first_start = not child.up.is_set()
            self._clear(child)
            if self.stopping.is_set():
                return
            failures += 1
            if (first_start and failures >= FAILED_STARTS) or (program.once and code):
                raise StartFailed(self._failure(child, f"ended ({_ending(code)})"))
            if time.monotonic() - begun > STEADY:
                pause = FIRST_PAUSE
            await self._pause(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            child.restarts += 1
            self.report.notice(f"{program.name} ended ({_ending(code)}), started again")

    def _spawn(self, child: Child) -> None:
        program = child.program
        parent = os.getpid()

        def in_child() -> None:
            proc.die_with_parent(parent)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())

        with self.logs.open(program.name) as log:
            out = program.stdout.open("wb") if program.stdout else None
            try:
                if program.before is not None:
                    program.before()
                popen = subprocess.Popen(
                    program.argv,
                    env={**program.env},
                    cwd=self.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=out or log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=in_child,
                )
            except OSError as error:
                raise StartFailed(f"{program.name} cannot be started: {error}") from error
            finally:
                if out:
                    out.close()
        child.pid, child.spawned = popen.pid, time.time()
        child.ended = asyncio.get_running_loop().create_future()
        self._popen[popen.pid] = popen
        self._write_status()

    async def _becomes_ready(self, child: Child) -> bool:
        """Wait until the program is ready; False when it ended first."""
        program = child.program
        assert child.ended is not None
        if program.once:
            return await asyncio.shield(child.ended) == 0
        deadline = time.monotonic() + program.ready_seconds
        while not child.ended.done():
            if program.ready is None:
                await asyncio.wait([child.ended], timeout=SETTLED)
                return not child.ended.done()
            if await program.ready():
                return True
            if time.monotonic() > deadline:
                late = f"was not ready after {program.ready_seconds:.0f} s"
                if not child.up.is_set():
                    raise StartFailed(self._failure(child, late))
                self.report.notice(f"{program.name} {late} and is killed")
                proc.send(child.pid, signal.SIGKILL)
                await child.ended
            await asyncio.wait([child.ended], timeout=POLL)
        return False

    def _came_up(self, child: Child, seconds: float) -> None:
        first = not child.up.is_set()
        if child.program.once:
            self._clear(child)
        if first and child.program.finish is not None:
            try:
                child.program.finish()
            except (OSError, ValueError) as error:
                raise StartFailed(self._failure(child, f"came up, but: {error}")) from error
        child.ready = True
        child.up.set()
        self._write_status()
        if first:
            self.report.started(child.program.name, seconds)

    def _clear(self, child: Child) -> None:
        """Forget a dead process and end what it left in its session (a worker's pool, for one)."""
        proc.send_group(child.pid, signal.SIGKILL)
        child.pid, child.ready = 0, False
        self._write_status()

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _end(self, child: Child) -> None:
        dependants = [other for other in self.children.values() if child.program.name in other.program.after]
        await asyncio.gather(*(other.gone.wait() for other in dependants))
        ended = child.ended
        if child.pid and ended is not None and not ended.done():
            proc.send(child.pid, child.program.stop_signal)
            await asyncio.wait([ended], timeout=child.program.stop_seconds)
            if not ended.done():
                self.report.notice(f"{child.program.name} did not stop in time and is killed")
                proc.send_group(child.pid, signal.SIGKILL)
                await ended
        child.gone.set()

    def _reap(self) -> None:
        """Collect ended children, those inherited from dead ones included."""
        for pid, code in proc.reap_all():
            popen = self._popen.pop(pid, None)
            if popen is None:
                continue
            popen.returncode = code
            for child in self.children.values():
                if child.pid == pid and child.ended is not None and not child.ended.done():
                    child.ended.set_result(code)

    def _failure(self, child: Child, what: str) -> str:
        name = child.program.name
        return f"{name} {what}; its log ends:\n{self.logs.tail(name)}\n(whole log: {self.logs.path(name)})"

    def _write_status(self) -> None:
        """Publish pids and states, for `portal.demo status` and for tests that kill."""
        rows = {
            name: {"pid": child.pid, "state": child.state, "restarts": child.restarts, "since": child.spawned}
            for name, child in self.children.items()
        }
        fresh = self.status.with_suffix(".new")
        fresh.write_text(json.dumps(rows, indent=1))
        fresh.replace(self.status)


def with_needs(programs: Iterable[Program], wanted: Iterable[str]) -> list[Program]:
    """Return the `wanted` programs and all they need, in the given order; KeyError for an unknown name."""
    known: Mapping[str, Program] = {program.name: program for program in programs}
    keep: set[str] = set()
    todo = list(wanted)
    while todo:
        program = known[todo.pop()]
        if program.name not in keep:
            keep.add(program.name)
            todo += program.after
    return [program for program in known.values() if program.name in keep]


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
