"""The small language model that answers people: `python -m sandbox model --port P`."""

from __future__ import annotations

import argparse
import asyncio
import logging

from sandbox.asgi import listen
from sandbox.model.app import ModelServer
from sandbox.model.llm import LanguageModel, Unavailable

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--lazy", action="store_true", help="load the model at the first question, not at start")


def run(args: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    asyncio.run(_serve(args.host, args.port, lazy=args.lazy))


async def _serve(host: str, port: int, *, lazy: bool) -> None:
    model = LanguageModel()
    listener = await listen(ModelServer(model), host, port)
    print(f"model: listening on http://{host}:{listener.address[1]}", flush=True)
    if not lazy:
        try:
            await model.load()
        except Unavailable as error:
            log.error("questions will be answered with 503: %s", error)
    await asyncio.Event().wait()
