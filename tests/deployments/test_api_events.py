"""The audit over the API: the same filters and the same search as on its page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from deployments.models import Event, Flavor, Team, User
from deployments.services import events
from tests.deployments import factories as make


def ids(person: User, **query: Any) -> list[int]:
    client = Client()
    client.force_login(person)
    answer = client.get("/api/v1/events/", query)
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


def test_each_filter_narrows(team: Team, alice: User, bob: User, h100: Flavor) -> None:
    chat = make.make_deployment(team, alice)
    old = Event.objects.create(kind="odd", message="x", team=team, created_at=timezone.now() - timedelta(days=9))
    one = events.record(kind="one", message="First words", deployment=chat, actor=alice, level="bad")
    today = timezone.now().date()

    assert ids(alice) == [one.pk, old.pk]
    assert ids(alice, actor="alice") == ids(alice, kind="one") == ids(alice, level="bad") == [one.pk]
    assert ids(alice, deployment=chat.pk) == ids(alice, q="fir wor") == [one.pk]
    assert ids(alice, since=today) == ids(alice, since=f"{today}T00:00:00Z") == [one.pk]
    assert ids(alice, until=today - timedelta(days=1)) == [old.pk]
    assert ids(alice, until=today) == [one.pk, old.pk]
    assert ids(bob, q="first") == ids(bob, team="search") == []


@pytest.mark.parametrize(
    "query",
    ["q=", "q=%00", "q=" + "a" * 151, "actor=", "level=worse", "since=yesterday", "until=2026-02-31", "since=%D9%A1"],
)
def test_what_cannot_be_meant_is_said(alice: User, query: str) -> None:
    client = Client()
    client.force_login(alice)
    answer = client.get(f"/api/v1/events/?{query}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"?{query.partition('=')[0]}"
