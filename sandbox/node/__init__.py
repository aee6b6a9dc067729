"""One GPU node of the sandbox: agent, engines and GPU exporter in one process.

python -m sandbox node --name gpu-l4-1 --kubeconfig FILE --pod-prefix 127.31 --hub-url URL --model-url URL
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path

from sandbox.asgi import Listener, listen
from sandbox.certificates import own_context
from sandbox.client import Client
from sandbox.dcgm import DcgmExporter, Holder
from sandbox.engine.process import GpuUse
from sandbox.node.agent import Agent
from sandbox.node.kubelet import Kubelet
from sandbox.node.machine import DEFAULT_SPEED, Pace
from sandbox.node.stores import GOOGLE
from sandbox.nodes import SHAPES

DCGM_PORT = 9400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--name", required=True, choices=sorted(SHAPES))
    parser.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG"))
    parser.add_argument("--pod-prefix", required=True, help="first two numbers of the pod addresses, such as 127.31")
    parser.add_argument("--hub-url", required=True)
    parser.add_argument("--model-url", required=True)
    parser.add_argument("--google-url", default=GOOGLE, help="where buckets of gs:// are")
    parser.add_argument("--claims", type=Path, help="folder with the content of volume claims; all nodes share it")
    parser.add_argument("--dcgm-port", type=int, default=DCGM_PORT)
    parser.add_argument(
        "--speed",
        type=float,
        default=DEFAULT_SPEED,
        help="divides pulls, downloads, engine starts and probe delays; back-offs keep their seconds",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    if not args.kubeconfig:
        print("node: --kubeconfig or KUBECONFIG is needed", flush=True)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(_serve(args))
    return 0


async def _serve(args: argparse.Namespace) -> None:
    client = Client.from_kubeconfig(args.kubeconfig)
    agent = Agent(
        SHAPES[args.name],
        args.pod_prefix,
        client,
        hub_url=args.hub_url,
        model_url=args.model_url,
        google_url=args.google_url,
        claims=args.claims,
        pace=Pace(args.speed),
    )
    listeners = await open_ports(agent, args.dcgm_port)
    print(
        f"node: {args.name} on {agent.ip}, logs on port {agent.kubelet_port}, GPUs on port {args.dcgm_port}", flush=True
    )
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await agent.run()
    finally:
        for listener in listeners:
            listener.close()
        await client.close()


async def open_ports(agent: Agent, dcgm_port: int) -> list[Listener]:
    """Listen for log requests and for scrapes of the GPUs, before the node says it is ready."""

    def read(index: int) -> tuple[GpuUse, Holder] | None:
        found = agent.gpu_use(index)
        if found is None:
            return None
        use, worker, container = found
        meta = worker.object["metadata"]
        return use, Holder(meta["namespace"], meta["name"], container)

    tls = own_context(agent.shape.name, agent.ip)
    kubelet = await listen(Kubelet(agent), agent.ip, 0, tls=tls)
    agent.kubelet_port = kubelet.address[1]
    return [kubelet, await listen(DcgmExporter(agent.shape, read), agent.ip, dcgm_port)]
