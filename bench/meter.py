"""Measure what passing by the meter adds to each piece of a stream, beside the same streams that do not pass by it.

    .venv/bin/python -m bench.meter                   # half a minute; prints the table of docs/measured.md

A real Envoy with the configuration of the tests, `manage.py meter`, and a model's server that writes the time into each
piece it sends. Callers with a key and callers without one take turns: for the latter Envoy sends nothing by the meter.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import Process
from pathlib import Path

import django
import httpx
import orjson

from portal.demo.layout import REPOSITORY
from sandbox.asgi import Receive, Scope, Send

PIECES, PAUSE = 100, 0.02  # of one stream; seconds between two
ROUNDS = 3
KEY, TOKEN = "key", "token"
PATH = "/search-x7k2p/chat/v1/chat/completions"
TICKS = os.sysconf("SC_CLK_TCK")
SECRET = {"SLIPWAY_SECRET_KEY": "of-this-measurement-" * 3, "DJANGO_SETTINGS_MODULE": "portal.settings"}


def main() -> None:
    """Start everything, and measure with few and with many streams at once."""
    os.environ.update(SECRET)
    django.setup()
    from tests.ops import envoy

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    model, free = (sock.getsockname()[1] for sock in sockets)
    sockets[1].close()
    served = Process(target=serve, args=(sockets[0],), daemon=True)
    served.start()
    command = [sys.executable, "manage.py", "meter", f"--port={free}", "--grace=0"]
    meter = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    ports = {"live": model, "engine": model, "meter": free}
    try:
        with tempfile.TemporaryDirectory() as folder, envoy.running(Path(folder), envoy.bootstrap(ports)) as url:
            until_up(free)
            print("| streams | piece late, without | with the meter | p95 without | with | processor per piece |")
            print("| --- | --- | --- | --- | --- | --- |")
            for streams in (1, 8, 32):
                print(row(url, streams, meter.pid))
    finally:
        meter.terminate()
        served.terminate()


def row(url: str, streams: int, pid: int) -> str:
    """A line of the table, in milliseconds and microseconds."""
    late: dict[str, list[float]] = {TOKEN: [], KEY: []}
    asyncio.run(callers(url, streams, KEY))
    used = 0.0
    for _ in range(ROUNDS):
        for who, found in late.items():
            before = processor_seconds(pid)
            found += asyncio.run(callers(url, streams, who))
            used += processor_seconds(pid) - before
    median = {who: statistics.median(found) * 1e3 for who, found in late.items()}
    p95 = {who: statistics.quantiles(found, n=20)[-1] * 1e3 for who, found in late.items()}
    ratio = f"{median[KEY] / median[TOKEN]:.1f}×"
    per_piece = used / len(late[KEY]) * 1e6
    return (
        f"| {streams} | {median[TOKEN]:.2f} ms | {median[KEY]:.2f} ms ({ratio}) "
        f"| {p95[TOKEN]:.2f} ms | {p95[KEY]:.2f} ms | {per_piece:.0f} µs |"
    )


async def callers(url: str, streams: int, who: str) -> list[float]:
    """How late each piece came, in seconds, over so many streams at once."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        found = await asyncio.gather(*(lateness(client, url, who) for _ in range(streams)))
    return [seconds for one in found for seconds in one]


async def lateness(client: httpx.AsyncClient, url: str, who: str) -> list[float]:
    """How late each piece of one stream came."""
    late = []
    headers = {"authorization": f"Bearer {who}"}
    async with client.stream("POST", url + PATH, json={"stream": True}, headers=headers) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                late.append(time.monotonic() - float(orjson.loads(line[6:])["sent"]))
    assert len(late) == PIECES, len(late)
    return late


def serve(sock: socket.socket) -> None:
    """The model's server, which is asked who may call as well."""
    import uvicorn

    uvicorn.Server(uvicorn.Config(answer, lifespan="off", log_level="critical")).run([sock])


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """To Envoy's question who is charged; to a caller a stream in which each piece says when it was sent."""
    from deployments.services.invoke import Admission, KeyTerms
    from portal.live.metered import HEADER, told

    if scope["path"].startswith("/live/authorize"):
        keyed = (b"authorization", f"Bearer {KEY}".encode()) in scope["headers"]
        header = told(Admission("key:x", 1, key=KeyTerms(1) if keyed else None)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(HEADER.encode(), header)]})
        await send({"type": "http.response.body", "body": b""})
        return
    start = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": start})
    for _ in range(PIECES):
        piece = b"data: " + orjson.dumps({"choices": [{"delta": {}}], "sent": time.monotonic()}) + b"\n\n"
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(PAUSE)
    await send({"type": "http.response.body", "body": b""})


def processor_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def until_up(port: int) -> None:
    """Wait for the meter."""
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    main()
