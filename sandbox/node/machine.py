"""What the pods of a node share: GPUs, addresses, the image cache, and connections to the world."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from dataclasses import dataclass, field

import httpx

from sandbox.client import ApiError, Client, resource_path
from sandbox.node.claims import Claims
from sandbox.node.events import EventRecorder
from sandbox.node.hub import HubClient
from sandbox.node.images import Image
from sandbox.node.stores import GOOGLE
from sandbox.nodes import NodeShape

DEFAULT_SPEED = 4.0


@dataclass(frozen=True)
class Pace:
    """How time passes: `speed` divides simulated durations and probe delays; back-offs keep their own seconds."""

    speed: float = DEFAULT_SPEED
    backoff_first: float = 10.0
    backoff_most: float = 300.0
    restart: float = 1.0
    retry: float = 5.0  # after a configuration error

    async def sleep(self, seconds: float) -> None:
        """Sleep for simulated seconds."""
        await asyncio.sleep(seconds / self.speed)


@dataclass(frozen=True)
class GpuOwner:
    """The container that holds a card."""

    uid: str
    namespace: str
    pod: str
    container: str


class GpuSet:
    """Hands out the cards of a node by index."""

    def __init__(self, count: int) -> None:
        self.owners: list[GpuOwner | None] = [None] * count

    def take(self, count: int, owner: GpuOwner) -> list[int] | None:
        """Give `count` free cards to a container, or None when there are fewer."""
        free = [index for index, holder in enumerate(self.owners) if holder is None]
        if len(free) < count:
            return None
        for index in free[:count]:
            self.owners[index] = owner
        return free[:count]

    def release(self, uid: str) -> None:
        """Take back every card of a pod."""
        self.owners = [None if owner is not None and owner.uid == uid else owner for owner in self.owners]

    @property
    def free(self) -> int:
        """How many cards nobody holds."""
        return self.owners.count(None)


class Addresses:
    """Hands out the pod addresses of a node's range, the least recently used first."""

    def __init__(self, cidr: str) -> None:
        hosts = [str(host) for host in ipaddress.ip_network(cidr).hosts()]
        self._free = hosts[1:-1]
        self._used: dict[str, str] = {}

    def take(self, uid: str, wanted: str | None = None) -> str:
        """An address for a pod, `wanted` when it is free."""
        if uid in self._used:
            return self._used[uid]
        address = wanted if wanted in self._free else self._free[0]
        self._free.remove(address)
        self._used[uid] = address
        return address

    def reserve(self, uid: str, address: str) -> None:
        """Keep an address that a pod already has, before others are handed out."""
        if address in self._free:
            self._free.remove(address)
            self._used[uid] = address

    def release(self, uid: str) -> None:
        """Take an address back."""
        address = self._used.pop(uid, None)
        if address is not None:
            self._free.append(address)


@dataclass
class Node:
    """Everything a pod needs from its node."""

    shape: NodeShape
    ip: str
    client: Client
    events: EventRecorder
    hub: HubClient
    http: httpx.AsyncClient
    model_url: str
    pace: Pace
    gpus: GpuSet
    addresses: Addresses
    google: str = GOOGLE  # where buckets of gs:// are
    claims: Claims = field(default_factory=Claims)
    images: dict[str, asyncio.Task[None] | None] = field(default_factory=dict)
    random: random.Random = field(default_factory=random.Random)

    async def resolve(self, host: str) -> str:
        """The address of `pod.subdomain.namespace`, as the DNS of a headless Service gives it; else the host itself.

        Empty while there is no such pod, or nobody can tell.
        """
        name, _, rest = host.partition(".")
        _, _, namespace = rest.partition(".")
        if not namespace:
            return host
        path, selector = resource_path("v1", "pods", namespace.split(".")[0]), f"metadata.name={name}"
        try:
            found = await self.client.list(path, fieldSelector=selector)
        except (ApiError, httpx.HTTPError):
            return ""
        return next((ip for item in found["items"] if (ip := (item.get("status") or {}).get("podIP"))), "")

    def has_image(self, image: Image) -> bool:
        """Whether the image is in the cache."""
        return image.canonical in self.images and self.images[image.canonical] is None
