"""The parts of a cluster that Slipway knows how to use, told by the API groups the cluster serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """One part: which group shows that it is there, what it is for, and whether deployments need it."""

    name: str
    group: str
    purpose: str
    needed: bool = False
    versions: str = ""

    @property
    def there(self) -> bool:
        """True when the cluster serves its group."""
        return bool(self.versions)


KNOWN = (
    Part("KServe", "serving.kserve.io", "runs every deployment", needed=True),
    Part("Gateway API", "gateway.networking.k8s.io", "routes to endpoints", needed=True),
    Part("Prometheus operator", "monitoring.coreos.com", "finds engines to scrape", needed=True),
    Part("Inference extension", "inference.networking.k8s.io", "routes by KV cache and queue"),
    Part("KEDA", "keda.sh", "scales by load, and to zero"),
    Part("LeaderWorkerSet", "leaderworkerset.x-k8s.io", "one model over several nodes"),
)


def parts_of(groups: Any) -> list[Part]:
    """The known parts with the versions that the cluster serves; empty before it was looked at."""
    if not isinstance(groups, Mapping) or not groups:
        return []
    return [
        Part(part.name, part.group, part.purpose, part.needed, ", ".join(map(str, groups.get(part.group) or ())))
        for part in KNOWN
    ]
