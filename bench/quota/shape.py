"""What the clients fight over, as primary keys: it travels to their processes, so it knows nothing of Django."""

from __future__ import annotations

from dataclasses import dataclass

TEAMS = 10
PLACES = 12  # deployments per team
LARGEST_GRANT = 12
# Two grants per account, one of which is cut; 16 flavors' worth of lock conflicts are not the point, two are.
FLAVORS = ("left", "right")


@dataclass(frozen=True)
class World:
    """Primary keys: accounts by team, grants that may be cut, deployments by team, revisions that wait for approval."""

    accounts: dict[int, tuple[int, ...]]
    grants: tuple[int, ...]
    deployments: dict[int, tuple[int, ...]]
    pending: tuple[int, ...]
    admin: int
