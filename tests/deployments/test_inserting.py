"""Rows by the statement composed once are those that Django would have written."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connection, models
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.models import Approval, Deployment, Event, Flavor, Notification, Reservation, Team, User
from deployments.services.inserting import AT_ONCE, insert
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db

ODD = {"a": [1, "zwei", None, {"ü": "%s"}], "b": 'he said "no"'}


@pytest.fixture
def chat(team: Team, h100: Flavor, ann: User) -> Deployment:
    return make.make_deployment(team, ann)


def stored(row: models.Model) -> dict[str, Any]:
    """What the database has of a row, but for its key and when it was made."""
    values: dict[str, Any] = type(row).objects.filter(pk=row.pk).values().get()  # type: ignore[attr-defined]
    return {name: value for name, value in values.items() if name not in {"id", "created_at"}}


def rows_of(kind: str, chat: Deployment, ann: User, carol: User) -> list[models.Model]:
    """Two rows that differ in nothing but what is given to the second anew."""
    first = chat.latest
    second = make.add_revision(chat, ann)
    if kind == "event":
        said = {"deployment": chat, "actor": ann, "message": "a ' b % c", "data": ODD, "level": Event.Level.BAD}
        return [Event(kind="tried", **said), Event(kind="tried", **said)]
    if kind == "approval":
        given = {"kind": Approval.Kind.ADMIN, "actor": carol, "approved": False, "comment": "no"}
        return [Approval(revision=row, digest="0" * 64, **given) for row in (first, first) if row]
    if kind == "reservation":
        account = chat.team.accounts.get()
        moved = {"account": account, "deployment": chat, "revision": second, "kind": Reservation.Kind.TAKE}
        return [Reservation(delta=1, balance_before=held, **moved) for held in (0, 1)]
    event = Event.objects.create(kind="tried", message="x", team=chat.team)
    return [Notification(user=user, event=event, message="m", mail_due=True) for user in (ann, carol)]


@pytest.mark.parametrize("kind", ["event", "approval", "reservation", "notice"])
def test_a_row_is_as_django_would_have_stored_it(kind: str, chat: Deployment, ann: User, carol: User) -> None:
    one, other = rows_of(kind, chat, ann, carol)
    begun = timezone.now()
    insert([one])
    other.save()
    given = {"user_id", "balance_before"}
    assert [one._state.adding, one._state.db] == [other._state.adding, other._state.db]
    assert {name: value for name, value in stored(one).items() if name not in given} == {
        name: value for name, value in stored(other).items() if name not in given
    }
    assert abs(one.created_at - begun).total_seconds() < 60  # type: ignore[attr-defined]
    one.refresh_from_db()


def test_rows_get_their_keys_in_the_order_given(chat: Deployment) -> None:
    rows = [Event(kind=f"n{number}", message="x", deployment=chat) for number in range(AT_ONCE + 3)]
    with CaptureQueriesContext(connection) as queries:
        insert(rows)
    assert len(queries) == 2
    kinds = dict(Event.objects.filter(deployment=chat).values_list("pk", "kind"))
    assert [kinds[row.pk] for row in rows] == [row.kind for row in rows]


def test_what_a_constraint_refuses_is_an_error_unless_it_is_ignored(chat: Deployment, ann: User) -> None:
    event = Event.objects.create(kind="tried", message="x", team=chat.team)
    rows = [Notification(user=ann, event=event, message=text) for text in ("first", "second")]
    insert(rows, ignore_conflicts=True)
    assert [row.message for row in Notification.objects.all()] == ["first"]
    with pytest.raises(IntegrityError):
        insert([Notification(user=ann, event=event, message="third")])


def test_nothing_is_asked_of_the_database_for_no_rows(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        insert([])
