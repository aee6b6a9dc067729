"""The pods behind a Service that can take a request now, and the choice among them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sandbox.client import Obj
from sandbox.gateway.routes import Backend

ROLE = "llm-d.ai/role"  # prefill, decode, or both


@dataclass(frozen=True)
class Endpoint:
    """One ready pod's address, and where its prompts may be computed instead of there."""

    uid: str
    pod: str
    host: str
    port: int
    prefillers: tuple[Endpoint, ...] = ()


def ready_endpoints(service: Obj, port: int, pods: Iterable[Obj]) -> list[Endpoint]:
    """Return the ready pods a Service selects, at the port its own `port` leads to."""
    selector: Mapping[str, str] = service["spec"].get("selector") or {}
    declared = service["spec"].get("ports") or []
    entry = next((item for item in declared if item["port"] == port), declared[0] if declared and not port else None)
    if not selector or entry is None:
        return []
    found = []
    for pod in pods:
        if not (selector.items() <= (pod["metadata"].get("labels") or {}).items()) or not _takes_traffic(pod):
            continue
        number = _port_number(entry.get("targetPort", entry["port"]), pod)
        if number is not None:
            meta = pod["metadata"]
            found.append(Endpoint(meta["uid"], meta["name"], pod["status"]["podIP"], number))
    return found


def pool_endpoints(pool: Obj, pods: Iterable[Obj], *, picker: bool) -> list[Endpoint]:
    """Return where requests to a pool go, as its endpoint picker decides; `picker` tells whether that one is up.

    With it, pods that only prefill get no request of their own: each of the others names them as its prefillers.
    Without it, FailOpen sends to any ready pod of the pool and FailClose to none.
    """
    spec = pool["spec"]
    selector: Mapping[str, str] = (spec.get("selector") or {}).get("matchLabels") or {}
    number = next((int(item["number"]) for item in spec.get("targetPorts") or []), 0)
    if not selector or not number:
        return []
    if not picker and (spec.get("endpointPickerRef") or {}).get("failureMode", "FailClose") != "FailOpen":
        return []
    prefilling: list[Endpoint] = []
    deciding: list[Endpoint] = []
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        if selector.items() <= labels.items() and _takes_traffic(pod):
            meta = pod["metadata"]
            endpoint = Endpoint(meta["uid"], meta["name"], pod["status"]["podIP"], number)
            (prefilling if labels.get(ROLE) == "prefill" else deciding).append(endpoint)
    if not picker:
        return [*deciding, *prefilling]
    return [replace(endpoint, prefillers=tuple(prefilling)) for endpoint in deciding]


def _takes_traffic(pod: Obj) -> bool:
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp") or not status.get("podIP"):
        return False
    return any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions") or [])


def _port_number(target: int | str, pod: Obj) -> int | None:
    if isinstance(target, int):
        return target
    if target.isdigit():
        return int(target)
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or []:
            if port.get("name") == target:
                return int(port["containerPort"])
    return None


class Balancer:
    """Counts requests in flight for each pod and picks the pod with the fewest."""

    def __init__(self) -> None:
        self._busy: Counter[str] = Counter()
        self._random = random.Random()  # noqa: S311 - spreads load, guards nothing

    def backend(self, backends: Sequence[tuple[Backend, list[Endpoint]]]) -> list[Endpoint]:
        """Choose one backend by weight among those that have endpoints; returns its endpoints."""
        alive = [(backend, found) for backend, found in backends if found and backend.weight > 0]
        if not alive:
            return []
        weights = [backend.weight for backend, _ in alive]
        return self._random.choices([found for _, found in alive], weights)[0]

    def pick(self, endpoints: Sequence[Endpoint]) -> Endpoint:
        """Choose the least busy endpoint; equals are chosen among at random."""
        least = min(self._busy[item.uid] for item in endpoints)
        return self._random.choice([item for item in endpoints if self._busy[item.uid] == least])

    @contextmanager
    def prefilling(self, endpoint: Endpoint) -> Iterator[Endpoint | None]:
        """Choose the least busy prefiller of an endpoint, if it has any, and count one request in flight there."""
        if not endpoint.prefillers:
            yield None
            return
        chosen = self.pick(endpoint.prefillers)
        with self.occupied(chosen):
            yield chosen

    @contextmanager
    def occupied(self, endpoint: Endpoint) -> Iterator[None]:
        """Count one request in flight."""
        self._busy[endpoint.uid] += 1
        try:
            yield
        finally:
            self._busy[endpoint.uid] -= 1
            if not self._busy[endpoint.uid]:
                del self._busy[endpoint.uid]
