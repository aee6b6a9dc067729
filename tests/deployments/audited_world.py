"""The world in which each service is carried out once, to see which line it leaves in the audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deployments.models import (
    Deployment,
    Flavor,
    QuotaRequest,
    Revision,
    Team,
    User,
)
from deployments.services import (
    ledger,
    quota_requests,
)
from tests.deployments import factories as make


@dataclass
class World:
    """A team with people and a deployment, and a platform with two admins."""

    team: Team
    ann: User
    alice: User
    bob: User
    carol: User
    dora: User
    h100: Flavor
    spec: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)

    def of(self, user: User) -> Any:
        return make.principal(user)

    def asked(self, author: User | None = None) -> Revision:
        """A revision that waits."""
        latest = make.make_deployment(self.team, author or self.ann, name="asked").latest
        assert latest is not None
        return latest

    def runs(self) -> Deployment:
        """A deployment that runs and holds a GPU."""
        chat = make.make_deployment(self.team, self.ann, approved=True)
        ledger.reserve(deployment=chat, revision=chat.latest, gpus=1)
        return chat

    def quota_asked(self) -> QuotaRequest:
        return quota_requests.ask(
            principal=self.of(self.alice), team=self.team, flavor=self.h100, gpus=2, why="a new model"
        )


# One wish; what it returns is who must stand in the line as its actor.
Act = Callable[[World], User | None]
