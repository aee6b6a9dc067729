"""What the clients fight over, as primary keys: it travels to their processes, so it knows nothing of Django."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TEAMS = 10
PLACES = 12  # deployments per team
LARGEST_GRANT = 12
# Two grants per account, one of which is cut; 16 flavors' worth of lock conflicts are not the point, two are.
FLAVORS = ("left", "right")
MODEL = "hf://Qwen/Qwen2.5-7B-Instruct"
PROFILE = "vllm-0.32.0"
# What every deployment asks for; the fight changes replicas and flavor.
SPEC: dict[str, Any] = {
    "source": {"uri": MODEL},
    "strategy": "standard",
    "flavor": FLAVORS[0],
    "replicas": {"min": 1, "max": 1},
    "engine": {"profile": PROFILE, "args": {"max-model-len": 16384}},
}


@dataclass(frozen=True)
class World:
    """Primary keys: accounts by team, grants that may be cut, deployments by team, revisions that wait for approval."""

    accounts: dict[int, tuple[int, ...]]
    grants: tuple[int, ...]
    deployments: dict[int, tuple[int, ...]]
    pending: tuple[int, ...]
    admin: int
    author: int
