"""Object metrics and scrape targets: `python -m sandbox metrics --port P --targets-dir D ...`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from pathlib import Path

from sandbox.asgi import listen
from sandbox.client import Client
from sandbox.metrics.app import Metrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--targets-dir", type=Path, required=True, help="scrape targets, for file_sd")
    parser.add_argument("--rules-dir", type=Path, required=True, help="rule files")
    parser.add_argument("--prometheus-url", required=True, help="where /-/reload is asked for")
    parser.add_argument("--kubeconfig", type=Path, default=os.environ.get("KUBECONFIG"))


def run(args: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(_serve(args))


async def _serve(args: argparse.Namespace) -> None:
    metrics = Metrics(
        Client.from_kubeconfig(args.kubeconfig),
        targets=args.targets_dir,
        rules=args.rules_dir,
        prometheus_url=args.prometheus_url,
        address=f"127.0.0.1:{args.port}",
    )
    await listen(metrics, "127.0.0.1", args.port)
    await metrics.run()
