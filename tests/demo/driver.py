"""A small stack for supervisor tests: `python -m tests.demo.driver FOLDER`; programs of four natures."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from portal.demo import guard
from portal.demo.logs import LogFolder
from portal.demo.program import Program
from portal.demo.report import Terminal
from portal.demo.supervisor import StartFailed, Supervisor

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def shell(name: str, script: str, **more: object) -> Program:
    return Program(name, ("sh", "-c", script), env=ENVIRONMENT, **more)  # type: ignore[arg-type]


def programs(folder: Path) -> list[Program]:
    async def ready() -> bool:
        return (folder / "plain-is-up").exists()

    return [
        shell("once", "echo first >> order", once=True),
        shell("plain", "echo plain >> order; touch plain-is-up; exec sleep 300", after=("once",), ready=ready),
        # Its helper left for a session of its own, where no process group finds it.
        shell("parent", "echo parent >> order; setsid sleep 301 & exec sleep 302", after=("plain",)),
        shell("stubborn", "trap '' TERM INT; while :; do sleep 0.2; done", after=("once",), stop_seconds=0.5),
        *([shell("broken", "echo no such luck; exit 3", after=("once",))] if (folder / "break").exists() else []),
    ]


async def serve(folder: Path, stop: asyncio.Event) -> int:
    supervisor = Supervisor(
        programs(folder),
        stop=stop,
        logs=LogFolder(folder / "logs"),
        report=Terminal(),
        status=folder / "processes.json",
        cwd=folder,
    )
    code = 0
    try:
        await supervisor.start()
        print("everything is up", flush=True)
        await supervisor.serve()
    except StartFailed as error:
        print(error)
        code = 1
    await supervisor.close()
    return code


if __name__ == "__main__":
    sys.exit(guard.run(lambda stop: serve(Path(sys.argv[1]), stop)))
