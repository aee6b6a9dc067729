"""Connections that end at a moment: however slowly a name resolves or bytes drip in, nothing is awaited beyond it."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable
from functools import cache
from typing import Any

import httpcore
import httpx

SocketOptions = Iterable[Any]


def resolve(host: str, port: int, deadline: float) -> list[str]:
    """The addresses of a name; OSError when it has none, TimeoutError when the resolver outlasts the deadline.

    The resolver cannot be interrupted: it goes on in a thread that nobody waits for.
    """
    found: list[str] = []
    failure: list[Exception] = []

    def ask() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend(str(entry[4][0]) for entry in entries)
        except (OSError, UnicodeError) as error:
            failure.append(error)

    asking = threading.Thread(target=ask, name="resolver", daemon=True)
    asking.start()
    asking.join(max(0.0, deadline - time.monotonic()))
    if asking.is_alive():
        raise TimeoutError(f"{host} was not resolved in time.")
    if failure:
        raise OSError(str(failure[0])) from failure[0]
    return found


@cache
def tls() -> ssl.SSLContext:
    """Whom servers are vouched for by; read once per process: that takes longer than most calls."""
    return httpx.create_ssl_context(trust_env=False)


class DeadlineTransport(httpx.HTTPTransport):
    """An HTTP transport of which every wait together ends at `deadline` (of the monotonic clock)."""

    def __init__(self, deadline: float) -> None:
        super().__init__(verify=tls(), trust_env=False)
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls(),
            max_connections=1,
            network_backend=_Backend(deadline),
        )


class _Backend(httpcore.NetworkBackend):
    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = resolve(host, port, self._deadline)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        failure: Exception = httpcore.ConnectError(f"{host} has no address.")
        for address in addresses:
            try:
                left = _left(self._deadline, timeout, httpcore.ConnectTimeout)
                stream = self._inner.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self._deadline)
        raise failure


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(self._deadline, timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(self._deadline, timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(self._deadline, timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _left(deadline: float, timeout: float | None, late: type[Exception]) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise late("The time for the whole call is over.")
    return left if timeout is None else min(left, timeout)
