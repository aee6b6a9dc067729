"""Background load: `python -m sandbox traffic --gateway-url URL --plan FILE --token-file FILE`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from pathlib import Path

from sandbox.client import Client
from sandbox.traffic.app import Traffic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--gateway-url", required=True)
    parser.add_argument("--plan", type=Path, help='JSON: {"namespace/name": requests a second}, * allowed')
    parser.add_argument("--token-file", type=Path, help="bearer token sent with each request")
    parser.add_argument("--keys-file", type=Path, help="JSON: for some namespaces the key sent instead")
    parser.add_argument("--kubeconfig", type=Path, default=os.environ.get("KUBECONFIG"))


def run(args: argparse.Namespace) -> None:
    """Send until the process is ended."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(_send(args))


async def _send(args: argparse.Namespace) -> None:
    client = Client.from_kubeconfig(args.kubeconfig)
    traffic = Traffic(client, args.gateway_url, plan=args.plan, token=args.token_file, keys=args.keys_file)
    await traffic.run()
