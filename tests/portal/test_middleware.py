"""What every request meets before its page."""

from __future__ import annotations

import pytest
from django.test import Client

from deployments.models import User
from tests.deployments import factories as make


@pytest.fixture
def alice(db: None) -> User:
    return make.make_user("alice", team=make.make_team("search"))


@pytest.mark.parametrize("address", ["/quotas/?team=%00", "/deployments/new/?model=a%00b", "/a%00b/"])
def test_an_address_with_nul_is_no_request(alice: User, address: str) -> None:
    client = Client()
    client.force_login(alice)

    assert client.get(address).status_code == 400


def test_nul_in_a_grant_is_told_like_any_other_mistake(db: None) -> None:
    client = Client()
    client.force_login(make.make_user("carol", admin=True))

    answer = client.post("/quotas/grant/", {"team": "a\0", "flavor": "b\0", "gpus": "1"})

    assert answer.status_code == 422
    assert "Choose a team" in answer.content.decode()
