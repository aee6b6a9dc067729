"""Look-alike of a model hub: `python -m sandbox hub --port P`."""

from __future__ import annotations

import argparse
import asyncio

from sandbox.asgi import listen
from sandbox.hub.app import Hub


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")


def run(args: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    asyncio.run(_serve(args.host, args.port))


async def _serve(host: str, port: int) -> None:
    listener = await listen(Hub(), host, port)
    print(f"hub: listening on http://{host}:{listener.address[1]}", flush=True)
    await asyncio.Event().wait()
