"""Private ports: chosen once, kept for the next start, and exchanged when somebody else took one.

Between the choice and the moment when a server listens lie seconds, in which another stack may start: so the process
that chose a port holds a lock on it.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO

# Below the range from which the kernel takes the ports of outgoing connections.
LOWEST, HIGHEST = 15_000, 31_000
NODE_PORTS = (8080, 9400)  # engines and GPU exporters listen here, on addresses of 127.PREFIX.0.0/16
PREFIXES = range(16, 250)


class PortBook:
    """The ports of one data folder, by name, written to `path`."""

    def __init__(self, path: Path, *, preferred: Mapping[str, int]) -> None:
        self.path = path
        self.preferred = preferred
        self.ports: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}

    def choose(self, names: list[str]) -> dict[str, int]:
        """Return a free port for each name, the one of last time where it is still free."""
        chosen: dict[str, int] = {}
        for name in names:
            wishes = [port for port in (self.ports.get(name), self.preferred.get(name)) if port]
            port = next((port for port in wishes if port not in chosen.values() and _ours(port)), None)
            chosen[name] = port or _any_free(taken=set(chosen.values()) | set(self.preferred.values()))
        self.ports |= chosen
        return chosen

    def choose_prefix(self) -> int:
        """Return the A of a 127.A.0.0/16 on which nodes and pods can listen; OSError when no such is left."""
        wishes = [self.ports["prefix"]] if "prefix" in self.ports else []
        wishes += random.sample(PREFIXES, 20)
        for prefix in wishes:
            if all(is_free(port, f"127.{prefix}.255.1") for port in NODE_PORTS):
                self.ports["prefix"] = prefix
                return prefix
        raise OSError(f"Ports {NODE_PORTS} are taken on every address: end the program that listens on 0.0.0.0.")

    def save(self) -> None:
        """Write the book."""
        self.path.write_text(json.dumps(self.ports, indent=1))


@cache
def _claims() -> IO[bytes]:
    """The file whose byte at a port's number is locked by the process that chose the port, until it ends.

    It has to stay open: a process that closes any handle of a file gives up all its locks on it.
    """
    folder = Path(tempfile.gettempdir()) / f"slipway-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    return (folder / "ports").open("ab")


def claimed(port: int) -> bool:
    """Claim a port for this process among all stacks of this user; False when another has it."""
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # which of the two, POSIX leaves open
        return False
    return True


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _ours(port: int) -> bool:
    return is_free(port) and claimed(port)


def _any_free(taken: set[int]) -> int:
    for port in random.sample(range(LOWEST, HIGHEST), 200):
        if port not in taken and _ours(port):
            return port
    raise OSError("No free port found on 127.0.0.1.")
