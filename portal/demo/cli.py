"""`python -m portal.demo up | status | reset | install`."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from portal.demo import guard, install, proc
from portal.demo.layout import REPOSITORY, Layout, write_private
from portal.demo.logs import LogFolder
from portal.demo.report import Terminal, table
from portal.demo.stack import GROUNDS, Stack, reset
from portal.demo.supervisor import StartFailed, Supervisor, with_needs

SERVERS = "postgres", "redis", "prometheus"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    args = _parser().parse_args(argv)
    terminal = Terminal()
    if args.command == "install":
        return 0 if install.ensure(args.parts, terminal.say) else 1
    try:
        if args.command == "reset":
            return _reset(args.data, terminal)
        if args.command == "status":
            return _status(args.data, terminal)
        return _up(args, terminal)
    except PermissionError as error:
        terminal.say(f"{error.filename} belongs to another user: run as that user, or remove it as root.")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m portal.demo", description="Slipway on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--data", type=Path, default=REPOSITORY / ".demo", help="folder of the data")
    up = commands.add_parser("up", parents=[where], help="start everything and keep it running")
    up.add_argument("--only", type=lambda text: text.split(","), help="these programs and what they need")
    up.add_argument("--ready-file", type=Path, help="written, with the addresses, when everything is up")
    up.add_argument("--cluster", choices=GROUNDS, default="lite", help="what plays the cluster")
    up.add_argument("--quick", action="store_true", help="a database for tests: fast, unsafe in a power cut")
    commands.add_parser("status", parents=[where], help="what runs")
    commands.add_parser("reset", parents=[where], help="remove all data")
    parts = commands.add_parser("install", help="install what is missing from the system's packages")
    parts.add_argument("parts", nargs="+", choices=list(install.PARTS))
    return parser


def _up(args: argparse.Namespace, terminal: Terminal) -> int:
    layout = Layout(args.data.resolve())
    try:
        layout.fits(args.cluster)  # before anything is built or installed for it
    except ValueError as error:
        terminal.say(f"Cannot start: {error}")
        return 1
    if not install.ensure((args.only and set(args.only) & set(SERVERS)) or SERVERS, terminal.say):
        return 1
    if args.cluster == "real":
        from sandbox.real import build, seed

        try:
            build.ensure(terminal.say)
            seed.ensure(terminal.say)
        except (build.BuildError, RuntimeError) as error:
            terminal.say(str(error))
            return 1
    with layout.alone() as alone:
        if not alone:
            terminal.say(f"Already running on {layout.data} (python -m portal.demo status says more).")
            return 1
        if args.ready_file:
            args.ready_file.unlink(missing_ok=True)
        return guard.run(lambda stop: _serve(args, terminal, stop))


async def _serve(args: argparse.Namespace, terminal: Terminal, stop: asyncio.Event) -> int:
    try:
        stack = Stack(args.data, quick=args.quick, ground=args.cluster)
        programs = with_needs(stack.programs, args.only) if args.only else stack.programs
    except KeyError as error:
        terminal.say(f"No program is called {error}.")
        return 1
    except (OSError, ValueError) as error:
        terminal.say(f"Cannot start: {error}")
        return 1
    stack.layout.keep_mail()
    stack.layout.write_environment(stack.environment)
    stack.layout.write_description(stack.describe())
    terminal.expected = len(programs)
    supervisor = Supervisor(
        programs,
        stop=stop,
        logs=LogFolder(stack.layout / "logs"),
        report=terminal,
        status=stack.layout.status,
        cwd=REPOSITORY,
    )
    terminal.say(f"Starting Slipway (data in {_short(stack.layout.data)}, logs in {_short(supervisor.logs.folder)})")
    code = 0
    try:
        await supervisor.start()
        if not stop.is_set():
            if args.ready_file:
                write_private(args.ready_file, json.dumps({"environment": stack.environment}))
            if args.only is None:
                if args.cluster == "real":
                    terminal.say("Nothing scales by load here: this cluster has no KEDA and no metrics API.")
                terminal.closing(
                    stack.describe(), _short(stack.kubeconfig), stack.url("prometheus"), _short(stack.layout / "mail")
                )
            await supervisor.serve()
    except StartFailed as error:
        terminal.say(f"\n{error}\n")
        code = 1
    terminal.say("Stopping ...")
    await supervisor.close()
    terminal.say("Stopped; nothing is left running.")
    return code


def _status(data: Path, terminal: Terminal) -> int:
    layout = Layout(data.resolve())
    if not layout.status.exists():
        terminal.say("Not started yet: make demo")
        return 1
    rows = json.loads(layout.status.read_text())
    running = {name: row["pid"] and proc.alive(row["pid"]) for name, row in rows.items()}
    lines = table(
        ("program", "state", "pid", "restarts"),
        [
            (
                name,
                row["state"] if running[name] or row["state"] == "done" else "down",
                str(row["pid"] or ""),
                str(row["restarts"]),
            )
            for name, row in rows.items()
        ],
    )
    for line in lines:
        terminal.say(line)
    return 0 if any(running.values()) else 1


def _reset(data: Path, terminal: Terminal) -> int:
    if not data.exists():
        terminal.say(f"Nothing to clear: {_short(data)} does not exist.")
        return 0
    with Layout(data.resolve()).alone() as alone:
        if not alone:
            terminal.say("The demo is running: stop it first (Ctrl-C in its terminal).")
            return 1
        reset(data)
    terminal.say(f"Cleared {_short(data)}.")
    return 0


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
