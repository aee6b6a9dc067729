"""Private ports: chosen once, kept for the next start, and exchanged when somebody else took one."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Mapping
from pathlib import Path

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
            port = next((port for port in wishes if is_free(port) and port not in chosen.values()), None)
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


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _any_free(taken: set[int]) -> int:
    for port in random.sample(range(LOWEST, HIGHEST), 200):
        if port not in taken and is_free(port):
            return port
    raise OSError("No free port found on 127.0.0.1.")
