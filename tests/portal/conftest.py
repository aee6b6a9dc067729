"""The people and the deployment that tests of `portal.live` need."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.kube.observe import ContainerView
from deployments.models import Deployment, Team, User
from tests.deployments import factories as make
from tests.deployments.viewing import observe, pod


@pytest.fixture
def test_host(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["testserver"]


@pytest.fixture
def people(transactional_db: None) -> dict[str, User]:
    search = make.make_team("search")
    return {
        "alice": make.make_user("alice", team=search),
        "bob": make.make_user("bob", team=make.make_team("labs")),
        "carol": make.make_user("carol", admin=True),
    }


@pytest.fixture
def chat(people: dict[str, User]) -> Deployment:
    make.make_flavor()
    row = make.make_deployment(Team.objects.get(slug="search"), people["alice"], approved=True)
    engine, weights = ContainerView(name="kserve-container"), ContainerView(name="storage-initializer", init=True)
    observe(row, pods=(pod("chat-1"), pod("chat-2", containers=(weights, engine))))
    return row
