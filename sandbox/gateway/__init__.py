"""HTTP gateway in front of the engines: `python -m sandbox gateway --kubeconfig F --port P --auth-url URL`.

An ordinary API client: it watches Gateways, HTTPRoutes, Services and Pods, answers callers on one port and Prometheus
on another, and writes the statuses of its Gateways and routes. With the API server down it goes on serving what it
last knew.

| subject | module |
| --- | --- |
| which route a request takes, and with which changes | `routes` (pure) |
| whether a Gateway takes a route, and the statuses | `attachment` (pure) |
| which pods stand behind a Service, and the least busy one | `endpoints` |
| asking whether a caller may | `authorization` |
| ending answers whose caller lost the right | `open_streams` |
| how many tokens an answer took | `metering` (pure) |
| telling the authority what keys used | `reporting` |
| one request on its way, and its body | `exchange` |
| passing a request on, answers unbuffered | `proxy` |
| its own numbers, at an address that callers do not have | `metrics` |
| watching, and writing statuses | `cluster` |
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from sandbox.asgi import listen
from sandbox.client import Client
from sandbox.gateway.authorization import Authorizer
from sandbox.gateway.cluster import Cluster
from sandbox.gateway.proxy import Gateway
from sandbox.gateway.reporting import Reporter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG"), help="default: environment KUBECONFIG")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--metrics-port", type=int, help="serve /metrics on 127.0.0.1 at this port; without it they are served nowhere"
    )
    parser.add_argument("--auth-url", help="asked before each request is passed on; without it all are")
    parser.add_argument("--usage-url", help="told what keys used")
    parser.add_argument("--usage-token-file", type=Path, help="holds the token with which it is told")


def run(args: argparse.Namespace) -> int:
    """Serve until the process is ended."""
    if not args.kubeconfig:
        print("gateway: give --kubeconfig or set KUBECONFIG")
        return 2
    if bool(args.usage_url) != bool(args.usage_token_file):
        print("gateway: give --usage-url and --usage-token-file together")
        return 2
    usage = (args.usage_url, args.usage_token_file) if args.usage_url else None
    client = Client.from_kubeconfig(args.kubeconfig)
    asyncio.run(serve(client, args.host, args.port, args.auth_url, usage, args.metrics_port))
    return 0


async def serve(
    client: Client,
    host: str,
    port: int,
    auth_url: str | None,
    usage: tuple[str, Path] | None = None,
    metrics_port: int | None = None,
) -> None:
    """Watch the cluster and serve until cancelled; numbers for Prometheus only where `metrics_port` is given."""
    async with asyncio.TaskGroup() as group:
        cluster = Cluster(client)
        group.create_task(cluster.run())
        reporter = Reporter(*usage) if usage else None
        if reporter is not None:
            group.create_task(reporter.run())
        app = Gateway(cluster, Authorizer(auth_url) if auth_url else None, reporter=reporter)
        listeners = [await listen(app, host, port, server_header="slipway-gateway")]
        if metrics_port is not None:
            listeners.append(await listen(app.metrics, "127.0.0.1", metrics_port, server_header="slipway-gateway"))
        print(f"gateway: listening on http://{host}:{listeners[0].address[1]}", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            for listener in listeners:
                listener.close()
            await app.close()
            await client.close()
