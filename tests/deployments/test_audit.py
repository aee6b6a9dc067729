"""The audit page: who sees which events, how they are found, and what an export holds."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.models import Deployment, Event, Flavor, Team, User
from deployments.services import events
from portal.lib.sheets import CUT_SHORT, cell
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in

AUDIT = "/audit/"


@pytest.fixture
def chat(team: Team, ann: User, h100: Flavor) -> Deployment:
    return make.make_deployment(team, ann, approved=True)


def shown(person: User, query: str = "") -> str:
    answer = signed_in(person).get(AUDIT + query)
    assert answer.status_code == 200
    return flat(answer.content.decode())


def ids(person: User, query: str = "") -> set[int]:
    """The events of a page, as its export gives them."""
    answer = signed_in(person).get(AUDIT + "?format=jsonl&" + query)
    lines = b"".join(answer.streaming_content).splitlines()  # type: ignore[attr-defined]
    return {json.loads(line)["id"] for line in lines}


def test_an_admin_sees_everything_a_lead_the_own_teams_and_others_no_page(
    team: Team, alice: User, ann: User, bob: User, carol: User
) -> None:
    ours = events.record(kind="noted", message="ours", team=team)
    nobodys = events.record(kind="noted", message="of no team")

    assert ids(carol) >= {ours.pk, nobodys.pk}
    assert ids(alice) == {ours.pk}
    assert ids(bob) == set()
    assert signed_in(ann).get(AUDIT).status_code == 404
    assert signed_in(ann).get(AUDIT + "?format=csv").status_code == 404


def test_a_lead_learns_nothing_of_other_teams_by_filters(team: Team, bob: User, chat: Deployment) -> None:
    events.record(kind="noted", message="secret plans", deployment=chat)

    for query in ("team=search", f"deployment={chat.pk}", "deployment=chat", "q=secret", "kind=noted"):
        assert ids(bob, query) == set()


def test_each_filter_narrows(team: Team, alice: User, carol: User, chat: Deployment) -> None:
    other = make.make_team("other")
    old = Event.objects.create(kind="odd", message="x", team=team, created_at=timezone.now() - timedelta(days=9))
    one = events.record(kind="one", message="First words of Qwen2.5-7B", deployment=chat, actor=alice, level="bad")
    two = events.record(kind="two", message="Other words", team=other)
    today = timezone.now().date()

    assert ids(carol, "team=other") == {two.pk}
    assert ids(carol, "actor=alice") == {one.pk}
    assert ids(carol, "kind=two") == {two.pk}
    assert ids(carol, "level=bad") == {one.pk}
    assert ids(carol, f"deployment={chat.pk}") == {one.pk}
    assert ids(carol, "deployment=chat") == {one.pk}
    assert ids(carol, f"since={today}") == {one.pk, two.pk}
    assert ids(carol, f"until={today - timedelta(days=1)}") == {old.pk}
    assert ids(carol, "kind=one&team=other") == set()
    assert ids(carol, "kind=o*") == {old.pk, one.pk}


@pytest.mark.parametrize("text", ["first", "WORDS fir", "qwen2.5-7b", "Qwen2.5", "7b", "of qwen"])
def test_search_finds_beginnings_of_words(carol: User, text: str) -> None:
    found = events.record(kind="one", message="First words of hf://Qwen/Qwen2.5-7B")
    events.record(kind="one", message="Something else")

    assert ids(carol, f"q={text}") == {found.pk}


@pytest.mark.parametrize("text", ["'; DROP", "a & | !", "((", ":*", "'", "\\", "%00x", "né", "☃"])
def test_whatever_is_searched_the_page_answers(carol: User, text: str) -> None:
    answer = signed_in(carol).get(AUDIT, {"q": text.replace("%00", "\0")})

    assert answer.status_code in {200, 400}


def test_a_request_id_finds_all_that_it_caused(carol: User) -> None:
    token = events.request_id.set("5f" * 16)
    try:
        caused = {events.record(kind="noted", message=text).pk for text in ("a", "b")}
    finally:
        events.request_id.reset(token)
    events.record(kind="noted", message="c")

    assert ids(carol, "q=" + "5f" * 16) == caused


def test_a_day_that_does_not_exist_is_said_at_its_field(carol: User) -> None:
    events.record(kind="noted", message="here")
    page = shown(carol, "?since=2026-02-31")

    assert "There is no such day." in page
    assert 'value="2026-02-31"' in page
    assert ids(carol, "since=2026-02-31") == set()


def test_a_change_is_shown_from_what_to_what_with_its_request_and_place(
    team: Team, alice: User, carol: User, chat: Deployment
) -> None:
    client = signed_in(alice)
    answer = client.post(f"/deployments/{chat.pk}/stop/", {"reason": "too dear"})
    assert answer.status_code in {200, 302}
    page = shown(carol, "?kind=stopped")

    assert "Stop asked for" in page
    assert '<th scope="row" class="mono">wanted</th><td class="mono">running</td><td class="mono">stopped</td>' in page
    assert f'href="/deployments/{chat.pk}/"' in page
    assert f"?q={answer['X-Request-Id']}" in page


def test_pages_follow_each_other_and_keep_the_filter(team: Team, carol: User) -> None:
    made = [events.record(kind="noted", message=f"number {n}", team=team).pk for n in range(60)]
    client = signed_in(carol)
    first = client.get(AUDIT + "?kind=noted").context
    second = client.get(AUDIT + first["older"]).context

    assert "kind=noted" in first["older"]
    assert [event.pk for event in first["page"].rows + second["page"].rows] == made[::-1]
    assert client.get(AUDIT + second["newer"]).context["page"].rows == first["page"].rows


@pytest.mark.parametrize("rows", [3, 300])
def test_six_queries_whatever_the_number_of_events(team: Team, alice: User, chat: Deployment, rows: int) -> None:
    Event.objects.bulk_create(
        Event(kind=f"k{n % 9}", message=f"n {n}", team=team, deployment=chat, actor=alice) for n in range(rows)
    )
    client = signed_in(alice)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert client.get(AUDIT + "?q=n&team=search&actor=alice").status_code == 200

    assert len(queries) <= 6


def test_an_export_holds_all_rows_and_no_formula(team: Team, carol: User) -> None:
    Event.objects.bulk_create(Event(kind="noted", message=f'=HYPERLINK("{n}")', team=team) for n in range(2300))
    answer = signed_in(carol).get(AUDIT + "?format=csv&kind=noted")
    pieces = list(answer.streaming_content)  # type: ignore[attr-defined]
    rows = list(csv.DictReader(io.StringIO(b"".join(pieces).decode())))

    assert answer["Content-Disposition"] == 'attachment; filename="audit.csv"'
    assert len(pieces) == 4
    assert len(rows) == 2300
    assert {row["message"][:2] for row in rows} == {"'="}
    assert rows[0]["team"] == "search"


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "  =1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert cell({"a": text})[0] == "{"
    assert cell(-1) == -1


def test_somebody_who_stops_leading_gets_no_more_of_an_export(team: Team, alice: User) -> None:
    Event.objects.bulk_create(Event(kind="noted", message="x", team=team) for _ in range(1500))
    answer = signed_in(alice).get(AUDIT + "?format=jsonl&kind=noted")
    pieces = iter(answer.streaming_content)  # type: ignore[attr-defined]
    first = next(pieces)
    alice.memberships.all().delete()

    assert first.count(b"\n") == 1000
    assert [json.loads(line) for line in pieces] == [{"error": CUT_SHORT}]


@pytest.mark.parametrize("change", [{"is_platform_admin": False}, {"is_active": False}, {"sessions_after": "now"}])
def test_an_export_ends_with_the_right_to_it_and_says_so(team: Team, carol: User, change: dict[str, Any]) -> None:
    Event.objects.bulk_create(Event(kind="noted", message="x", team=team) for _ in range(2500))
    answer = signed_in(carol).get(AUDIT + "?format=csv&kind=noted")
    pieces = iter(answer.streaming_content)  # type: ignore[attr-defined]
    read = [next(pieces), next(pieces)]
    User.objects.filter(pk=carol.pk).update(
        **{name: timezone.now() if value == "now" else value for name, value in change.items()}
    )

    read += list(pieces)

    lines = list(csv.reader(io.StringIO(b"".join(read).decode())))
    assert len(lines) == 1 + 1000 + 1
    assert lines[-1] == [CUT_SHORT]


def test_a_rare_word_is_found_by_its_index_among_many(team: Team) -> None:
    """Newest first and 50 of them: a plan that reads events from the end until it has found 50 reads them all."""
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO deployments_event (kind, level, message, data, request_id, created_at)
               SELECT 'state', 'info', 'Revision ' || n || ' applied', '{}', '', now()
                 FROM generate_series(1, 20000) n"""
        )
        cursor.execute("ANALYZE deployments_event")
        for text in ("zebra", "revision 1999 applied"):
            query, values = Event.objects.search(text).order_by("-pk").values("pk")[:51].query.sql_with_params()
            cursor.execute("EXPLAIN " + query, values)
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert "event_words" in plan, plan
    assert Event.objects.search("revision 19999").count() == 1


def test_the_rows_alone_are_sent_to_htmx(carol: User) -> None:
    answer = signed_in(carol).get(AUDIT, headers={"HX-Request": "true"})

    assert b"<html" not in answer.content
    assert b'id="audit-rows"' in answer.content


def test_objects_lead_to_their_lines(team: Team, ann: User, alice: User, chat: Deployment) -> None:
    def links(person: User, path: str) -> str:
        return flat(signed_in(person).get(path).content.decode())

    assert f'href="/audit/?deployment={chat.pk}"' in links(alice, f"/deployments/{chat.pk}/")
    assert 'href="/audit/?kind=quota_*' in links(alice, "/quotas/")
    assert 'href="/audit/?team=search"' in links(alice, "/people/teams/search/")
    assert "/audit/" not in links(ann, f"/deployments/{chat.pk}/")


def test_kinds_that_begin_alike_can_be_asked_for_together(carol: User) -> None:
    for kind in ("quota_asked", "quota_denied", "stopped"):
        events.record(kind=kind, message="x")

    page = shown(carol, "?kind=quota_*")
    assert '<option value="quota_*" selected>Quota: all</option>' in page
    assert '<option value="stopped">Stopped</option>' in page
    assert len(ids(carol, "kind=quota_*")) == 2


def test_kinds_of_other_teams_are_not_offered(chat: Deployment, alice: User, bob: User, carol: User) -> None:
    events.record(kind="stopped", message="x", deployment=chat)

    offered = ['<option value="stopped">' in shown(person) for person in (carol, alice, bob)]
    assert offered == [True, True, False]
