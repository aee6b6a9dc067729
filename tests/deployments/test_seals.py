"""Seals of the audit: whoever changes the past, with the database's owner's rights, is found by event."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from deployments.models import AuditSeal, Event
from deployments.services import events, seals
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db

AT_ONCE = timedelta(0)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Seven events of an hour ago, in three seals."""
    monkeypatch.setattr(seals, "BATCH", 3)
    team, ann = make.make_team(), make.make_user("ann")
    Event.objects.bulk_create(
        Event(
            team=team,
            actor=ann,
            kind="noted",
            message=f"Number {n} “ü”",
            data={"after": {"n": n, "price": 2.5, "deep": [None, True]}},
            created_at=timezone.now() - timedelta(hours=1),
        )
        for n in range(7)
    )
    assert [seals.seal() for _ in range(4)] == [3, 3, 1, 0]
    return list(Event.objects.order_by("pk"))


def tamper(sql: str, *params: object) -> None:
    """What an owner of the database can do who wants the past to be another."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("event", "auditseal"):
            cursor.execute(f"ALTER TABLE deployments_{table} DISABLE TRIGGER USER")
        cursor.execute(sql, params)


def test_what_stands_as_it_was_written_is_confirmed(written: list[Event]) -> None:
    found = seals.verify()

    assert (found.events, found.problems) == (7, [])
    assert found.digest == AuditSeal.objects.latest("pk").digest


@pytest.mark.parametrize(
    "change",
    [
        "message = 'Number 4 “ü”.'",
        "actor_id = NULL",
        'data = \'{"after": {"n": 4, "price": 2.5, "deep": [null, false]}}\'',
        "created_at = created_at + interval '1 microsecond'",
        "address = '10.0.0.1'",
    ],
)
def test_one_changed_field_names_its_event(written: list[Event], change: str) -> None:
    tamper(f"UPDATE deployments_event SET {change} WHERE id = %s", written[4].pk)

    assert seals.verify().problems == [f"event {written[4].pk} is not as it was written"]


def test_a_removed_event_is_missed_and_one_slipped_in_is_seen(written: list[Event]) -> None:
    moved = "UPDATE deployments_event SET id = %s WHERE id = %s"
    tamper("DELETE FROM deployments_event WHERE id = %s", written[1].pk)
    tamper(moved, written[1].pk, written[5].pk)

    assert seals.verify().problems == [
        f"event {written[1].pk} is not as it was written",
        f"event {written[5].pk} is gone",
    ]


def test_an_event_between_sealed_ones_is_seen(written: list[Event]) -> None:
    tamper("UPDATE deployments_event SET id = id + 1000 WHERE id > %s", written[3].pk)
    problems = seals.verify().problems

    assert f"event {written[4].pk} is gone" in problems
    assert len(problems) == 3


def test_a_seal_that_is_changed_or_left_out_breaks_the_chain(written: list[Event]) -> None:
    first, second, _ = AuditSeal.objects.order_by("pk")
    tamper("UPDATE deployments_auditseal SET digest = %s WHERE id = %s", "0" * 64, first.pk)

    assert [problem for problem in seals.verify().problems if problem.startswith(f"seal {first.pk} ")]

    tamper("DELETE FROM deployments_auditseal WHERE id IN (%s, %s)", first.pk, second.pk)
    assert seals.verify().problems


def test_a_chain_written_anew_misses_the_digest_that_a_log_kept(written: list[Event]) -> None:
    kept = seals.verify().digest
    tamper("DELETE FROM deployments_auditseal")
    tamper("UPDATE deployments_event SET message = 'Nothing happened' WHERE id = %s", written[0].pk)
    seals.seal_all()

    assert seals.verify().problems == []
    assert "removed or written anew" in seals.verify(kept).problems[0]


def test_nothing_is_sealed_that_a_transaction_may_still_stand_before(written: list[Event]) -> None:
    events.record(kind="noted", message="Just now")

    assert seals.seal() == 0
    assert seals.seal(settled=AT_ONCE) == 1


@pytest.mark.parametrize("verb", ["UPDATE deployments_auditseal SET digest = ''", "DELETE FROM deployments_auditseal"])
def test_the_database_keeps_seals(written: list[Event], verb: str) -> None:
    with pytest.raises(DatabaseError, match="append only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(verb)


def test_the_command_says_so_with_its_exit_status(written: list[Event]) -> None:
    said, wrong = StringIO(), StringIO()
    call_command("audit", "verify", stdout=said)
    assert "7 sealed events are as they were written" in said.getvalue()

    tamper("UPDATE deployments_event SET kind = 'x' WHERE id = %s", written[2].pk)
    with pytest.raises(CommandError, match="1 things are wrong"):
        call_command("audit", "verify", stdout=said, stderr=wrong)
    assert f"event {written[2].pk} is not as it was written" in wrong.getvalue()


def test_each_seal_is_logged_for_a_place_that_no_owner_of_the_database_reaches(
    written: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    events.record(kind="noted", message="Late")
    with caplog.at_level("INFO", logger=seals.logger.name):
        seals.seal(settled=AT_ONCE)

    assert AuditSeal.objects.latest("pk").digest in caplog.text
