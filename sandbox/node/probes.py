"""Startup, readiness and liveness probes: real HTTP and TCP to the pod's address."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

READ_MOST = 65536


@dataclass(frozen=True)
class Probe:
    """One probe of a container, times in seconds."""

    kind: str  # httpGet, tcpSocket, grpc, exec
    path: str
    port: int
    initial_delay: float
    period: float
    timeout: float
    failures: int
    successes: int


def read(spec: Mapping[str, Any] | None, container: Mapping[str, Any]) -> Probe | None:
    """Read a probe of a container, Kubernetes defaults filled in."""
    if not spec:
        return None
    kind = next((kind for kind in ("httpGet", "tcpSocket", "grpc", "exec") if kind in spec), "exec")
    handler = spec.get(kind) or {}
    return Probe(
        kind=kind,
        path=handler.get("path", "/"),
        port=_port(handler.get("port", 0), container),
        initial_delay=spec.get("initialDelaySeconds", 0),
        period=spec.get("periodSeconds", 10),
        timeout=spec.get("timeoutSeconds", 1),
        failures=spec.get("failureThreshold", 3),
        successes=spec.get("successThreshold", 1),
    )


def _port(port: Any, container: Mapping[str, Any]) -> int:
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    named = {entry.get("name"): entry["containerPort"] for entry in container.get("ports") or []}
    return int(named.get(port, 0))


async def attempt(probe: Probe, host: str) -> str | None:
    """Try once; None is success, else the kubelet's words. A command in a simulated container always succeeds."""
    if probe.kind == "exec":
        return None
    try:
        async with asyncio.timeout(probe.timeout):
            if probe.kind == "httpGet":
                return await _http(probe, host)
            _, writer = await asyncio.open_connection(host, probe.port)
            writer.close()
            return None
    except TimeoutError:
        where = f'Get "http://{host}:{probe.port}{probe.path}": ' if probe.kind == "httpGet" else ""
        return f"{where}context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    except OSError as error:
        where = f'Get "http://{host}:{probe.port}{probe.path}": ' if probe.kind == "httpGet" else ""
        return f"{where}dial tcp {host}:{probe.port}: connect: {_words(error)}"


async def _http(probe: Probe, host: str) -> str | None:
    reader, writer = await asyncio.open_connection(host, probe.port)
    try:
        head = f"GET {probe.path} HTTP/1.1\r\nHost: {host}:{probe.port}\r\nUser-Agent: kube-probe/1.36\r\n"
        writer.write(f"{head}Accept: */*\r\nConnection: close\r\n\r\n".encode("latin-1"))
        status_line = (await reader.readline()).split()
        if len(status_line) < 2:
            return f'Get "http://{host}:{probe.port}{probe.path}": EOF'
        status = int(status_line[1])
        await reader.read(READ_MOST)
        return None if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"
    finally:
        writer.close()


def _words(error: OSError) -> str:
    return "connection refused" if isinstance(error, ConnectionRefusedError) else (error.strerror or str(error)).lower()
