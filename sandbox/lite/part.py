"""`python -m sandbox apiserver`: the API server and, beside it in the same loop, the controllers."""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
from collections.abc import Sequence
from pathlib import Path

from sandbox.lite.run import Settings, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--data", type=Path, required=True, help="folder of the database, certificates, kubeconfigs")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 picks a free one")
    parser.add_argument("--account", action="append", default=[], metavar="NAME", help="write NAME.kubeconfig too")
    parser.add_argument(
        "--manifests", type=Path, action="append", default=[], metavar="PATH", help="YAML to keep applied at start"
    )
    parser.add_argument("--prometheus-url", default="", metavar="URL", help="what autoscalers read metrics from")
    parser.add_argument(
        "--scaling-speed",
        type=float,
        default=1.0,
        metavar="N",
        help="let autoscalers wait N times as short",
    )
    parser.add_argument("--no-controllers", action="store_true", help="serve the API alone")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    args.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = Settings(
        data=args.data,
        accounts=tuple(args.account),
        manifests=tuple(args.manifests),
        controllers=not args.no_controllers,
        prometheus_url=args.prometheus_url,
        scaling_speed=args.scaling_speed,
    )
    _loop(settings, [listen(args.port)])
    return 0


def listen(port: int) -> socket.socket:
    """Return a listening socket on 127.0.0.1."""
    # Told the protocol, asyncio sets TCP_NODELAY on what is accepted: else every answer waits 40 ms for an ACK.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def _loop(settings: Settings, sockets: Sequence[socket.socket]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(settings, sockets))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, sockets))
