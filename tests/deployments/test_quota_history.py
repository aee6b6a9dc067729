"""The ledger of quota as a file: every line, as of one moment, for whom may have it until its end."""

from __future__ import annotations

import csv
import io
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections
from django.urls import reverse

from deployments.models import Deployment, Flavor, Reservation, Team, User
from deployments.services import ledger
from deployments.views import quota_history
from portal.lib import sheets
from tests.deployments import factories as make
from tests.deployments.viewing import signed_in


def exported(person: User, team: str = "") -> list[list[str]]:
    answer = signed_in(person).get(reverse("quotas"), {"format": "csv", "team": team})
    return list(csv.reader(io.StringIO(b"".join(answer.streaming_content).decode())))  # type: ignore[attr-defined]


def test_the_csv_of_the_ledger_holds_no_formulas(team: Team, h100: Flavor, alice: User, carol: User) -> None:
    row = make.make_deployment(team, alice, name="chat", gpus=1, approved=True)
    ledger.reserve(deployment=row, revision=row.latest, gpus=1)  # type: ignore[arg-type]
    Deployment.objects.filter(pk=row.pk).update(wanted="stopped")
    ledger.force_release(principal=make.principal(carol), deployment=row, reason='=HYPERLINK("http://evil")')
    lines = exported(alice)
    assert [line[7] for line in lines[1:]] == ['\'=HYPERLINK("http://evil")', "revision 1"]
    assert [line[4] for line in lines[1:]] == ["-1", "1"], "numbers stay numbers"


def many_lines(count: int) -> None:
    """Lines of the ledger as they would have come one by one, written past its triggers."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            """INSERT INTO deployments_reservation
                      (account_id, deployment_id, delta, balance_before, kind, reason, created_at)
               SELECT account_id, deployment_id, 1, n, 'take', 'line ' || n, now()
                 FROM (SELECT account_id, deployment_id FROM deployments_reservation LIMIT 1) one,
                      generate_series(1, %s) n""",
            [count],
        )
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")


def test_the_csv_holds_every_line_of_the_ledger_in_little_memory(team: Team, h100: Flavor, alice: User) -> None:
    row = make.make_deployment(team, alice, gpus=1, approved=True)
    ledger.reserve(deployment=row, revision=row.latest, gpus=1)  # type: ignore[arg-type]
    many_lines(25_000)
    client = signed_in(alice)
    tracemalloc.start()
    try:
        answer = client.get(reverse("quotas"), {"format": "csv"})
        pieces, lines, last = 0, 0, b""
        for piece in answer.streaming_content:  # type: ignore[attr-defined]
            pieces, lines, last = pieces + 1, lines + piece.count(b"\n"), piece
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert lines == 1 + 25_001
    assert pieces > 20
    assert last.splitlines()[-1].endswith(b"search,h100-80gb,chat,1,1,take,revision 1,")
    assert peak < 8 << 20, f"{peak / 2**20:.1f} MiB"


def test_an_export_of_the_ledger_ends_with_the_right_to_it(
    team: Team, h100: Flavor, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = make.make_deployment(team, alice, gpus=1, approved=True)
    ledger.reserve(deployment=row, revision=row.latest, gpus=1)  # type: ignore[arg-type]
    many_lines(3000)
    monkeypatch.setattr(sheets, "ASKED_EVERY", 0.0)
    answer = signed_in(alice).get(reverse("quotas"), {"format": "csv"})
    pieces = iter(answer.streaming_content)  # type: ignore[attr-defined]
    read = [next(pieces)]
    alice.memberships.all().delete()

    read += list(pieces)

    assert read[1:] == [f"{sheets.CUT_SHORT}\r\n".encode()]


@pytest.mark.django_db(transaction=True)
def test_the_csv_shows_the_ledger_as_it_was_at_one_moment(
    team: Team, h100: Flavor, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is reserved while it is read is in none of its lines, wherever in the file it would stand."""
    rows = [make.make_deployment(team, alice, name=f"d{n}", gpus=1, approved=True) for n in range(4)]
    for row in rows[:3]:
        ledger.reserve(deployment=row, revision=row.latest, gpus=1)  # type: ignore[arg-type]
    plain = quota_history._line
    written: list[str] = []

    def meanwhile() -> None:
        ledger.reserve(deployment=rows[3], revision=rows[3].latest, gpus=1)  # type: ignore[arg-type]
        connections.close_all()

    def line(row: tuple[Any, ...]) -> list[Any]:
        if not written:
            with ThreadPoolExecutor(1) as other:
                other.submit(meanwhile).result(10)
        written.append(row[3])
        return plain(row)

    monkeypatch.setattr(quota_history, "CHUNK", 1)
    monkeypatch.setattr(quota_history, "_line", line)

    assert [name for _, _, _, name, *_ in exported(alice)[1:]] == ["d2", "d1", "d0"]
    assert Reservation.objects.count() == 4
