"""The look under an account's lock is written in SQL by hand: it says what the models' own querysets say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.models import Deployment, Flavor, QuotaAccount, Revision, Team, User, Wanted
from deployments.services import holds, ledger
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def chat(team: Team, h100: Flavor, ann: User) -> Deployment:
    return make.make_deployment(team, ann, gpus=2, approved=True)


def room_for(row: Deployment) -> holds.Room:
    assert row.latest is not None
    return holds.room_for(row, row.latest)


def test_the_account_is_locked_before_it_is_looked_at_and_made_where_there_is_none(chat: Deployment) -> None:
    QuotaAccount.objects.filter(team=chat.team).delete()
    room_for(chat)
    with CaptureQueriesContext(connection) as queries:
        room_for(chat)

    lock, look = (query["sql"] for query in queries.captured_queries)
    assert lock.rstrip().endswith("FOR NO KEY UPDATE")
    assert "FOR NO KEY UPDATE" not in look


def test_what_is_reserved_and_what_is_held(chat: Deployment, team: Team, ann: User) -> None:
    other = make.make_deployment(team, ann, name="other", approved=True)
    assert chat.latest is not None
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=3)

    assert [(room.reserved, room.held, room.free) for room in map(room_for, (chat, other))] == [(3, 3, 1), (3, 0, 1)]


@pytest.mark.parametrize(
    ("begins", "ends", "limit"),
    [(-2, None, 7), (-2, 2, 7), (-2, -1, 4), (1, 2, 4)],
    ids=["no end", "live", "ended", "not yet"],
)
def test_grants_count_while_they_live(
    chat: Deployment, h100: Flavor, begins: int, ends: int | None, limit: int
) -> None:
    now = timezone.now()
    until = None if ends is None else now + timedelta(hours=ends)
    chat.team.grants.create(flavor=h100, gpus=3, valid_from=now + timedelta(hours=begins), valid_until=until)

    room = room_for(chat)

    assert room.limit == limit == holds.limit_of(room.account)


@pytest.mark.parametrize(
    ("column", "value", "waits"),
    [
        ("approved", None, True),
        ("approved", 1, True),
        ("approved", 2, False),
        ("wanted", Wanted.STOPPED, False),
        ("deleted_at", timezone.now(), False),
        ("verdict", Revision.Verdict.PENDING, False),
        ("flavor", "l4-24gb", False),
    ],
)
def test_others_wait_who_stand_in_the_line(
    chat: Deployment, team: Team, ann: User, h100: Flavor, column: str, value: Any, waits: bool
) -> None:
    other = make.make_deployment(team, ann, name="other", flavor=h100)
    make.approve(other.revisions.get(number=1), current=False)
    newest = make.add_revision(other, ann, flavor=make.make_flavor(value) if column == "flavor" else h100)
    make.approve(newest, current=False)
    if column == "verdict":
        Revision.objects.filter(pk=newest.pk).update(verdict=value)
    elif column == "approved":
        Deployment.objects.filter(pk=other.pk).update(approved=value and other.revisions.get(number=value))
    elif column != "flavor":
        Deployment.objects.filter(pk=other.pk).update(**{column: value})
    line = Deployment.objects.awaiting_quota().filter(team=team, latest__flavor=h100).exclude(pk=chat.pk)

    assert room_for(chat).awaited == waits == line.exists()
    assert not room_for(other).awaited, "nobody waits for themselves"
