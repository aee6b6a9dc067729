"""The bell and the page of notices, and the same over the API."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deployments.models import Deployment, Event, Flavor, Notification, Team, User
from deployments.services import events
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in


@pytest.fixture
def told(team: Team, alice: User, carol: User) -> list[Notification]:
    """Three unread notices of Alice."""
    for n in range(3):
        events.record(kind="quota_granted", message=f"{n} more", team=team, actor=carol)
    return list(Notification.objects.order_by("pk"))


def page(person: User, query: str = "") -> str:
    answer = signed_in(person).get("/notices/" + query)
    assert answer.status_code == 200
    return flat(answer.content.decode())


def test_the_bell_counts_what_is_unread(alice: User, ann: User, told: list[Notification]) -> None:
    assert 'aria-label="Notices, 3 unread"' in page(alice)
    assert 'aria-label="Notices"' in page(ann)
    assert 'aria-label="Notices, 3 unread"' in flat(signed_in(alice).get("/notices/bell/").content.decode())


def test_the_bell_stops_counting_at_a_hundred(team: Team, alice: User) -> None:
    made = Event.objects.bulk_create(Event(kind="noted", message="x", team=team) for _ in range(130))
    Notification.objects.bulk_create(Notification(user=alice, event=event, message="x") for event in made)

    assert 'aria-label="Notices, 100 or more unread"' in page(alice)
    assert ">99+<" in page(alice)


def test_reading_one_and_all(alice: User, told: list[Notification]) -> None:
    client = signed_in(alice)
    assert client.post(f"/notices/{told[0].pk}/read/").status_code == 302
    assert "0 more" not in page(alice, "?show=unread")
    assert client.post("/notices/read/", {"upto": str(told[1].pk)}).status_code == 302
    assert [row.message for row in Notification.objects.unread()] == ["2 more"]
    assert client.get(f"/notices/{told[2].pk}/read/").status_code == 405
    opened = client.post(f"/notices/{told[2].pk}/read/", {"open": "1"})
    assert opened["Location"] == "/quotas/?team=search"
    assert "All read" in page(alice, "?show=unread")


def test_somebody_elses_notice_does_not_exist(bob: User, told: list[Notification]) -> None:
    assert signed_in(bob).post(f"/notices/{told[0].pk}/read/").status_code == 404
    assert "more" not in page(bob).partition('id="content"')[2]


def test_who_left_the_team_finds_neither_notice_nor_its_page(team: Team, ann: User, alice: User, h100: Flavor) -> None:
    chat = make.make_deployment(team, ann, approved=True)
    Deployment.objects.filter(pk=chat.pk).update(state="Running")
    event = events.record(kind="approved", message="done", deployment=chat, actor=alice, data={"revision": 1})
    row = Notification.objects.get(user=ann, event=event)
    assert signed_in(ann).get(row.link).status_code == 200
    ann.memberships.all().delete()

    assert "done" not in page(ann)
    assert 'aria-label="Notices"' in page(ann)
    assert signed_in(ann).get(row.link).status_code == 404
    assert signed_in(ann).post(f"/notices/{row.pk}/read/").status_code == 404


@pytest.mark.parametrize("rows", [1, 200])
def test_six_queries_whatever_the_number_of_notices(team: Team, alice: User, carol: User, rows: int) -> None:
    made = Event.objects.bulk_create(Event(kind="noted", message="x", team=team, actor=carol) for _ in range(rows))
    Notification.objects.bulk_create(Notification(user=alice, event=event, message="x") for event in made)
    client = signed_in(alice)
    with CaptureQueriesContext(connection) as queries:
        assert client.get("/notices/").status_code == 200

    assert len(queries) <= 6


def test_what_others_wrote_is_text(team: Team, alice: User, carol: User) -> None:
    events.record(kind="quota_granted", message="<img src=x onerror=alert(1)>", team=team, actor=carol)

    assert "<img src=x" not in page(alice)
    assert "&lt;img src=x" in page(alice)


def test_mail_is_switched_on_the_account_page(ann: User) -> None:
    client = signed_in(ann)
    assert client.post("/account/mail/").status_code == 302
    ann.refresh_from_db()
    assert ann.mail_notices is False
    assert client.post("/account/mail/", {"mail_notices": "on"}).status_code == 302
    ann.refresh_from_db()
    assert ann.mail_notices is True
    assert "This installation sends no mail" in flat(client.get("/account/").content.decode())


def test_forms_need_their_token(alice: User, told: list[Notification]) -> None:
    client = signed_in(alice, csrf=True)

    for path in (f"/notices/{told[0].pk}/read/", "/notices/read/", "/account/mail/"):
        assert client.post(path).status_code == 403
    assert Notification.objects.unread().count() == 3


def test_the_api_lists_and_reads(alice: User, bob: User, told: list[Notification]) -> None:
    client = signed_in(alice)
    rows = client.get("/api/v1/notices/?limit=2").json()
    assert [row["message"] for row in rows["results"]] == ["2 more", "1 more"]
    assert rows["results"][0]["team"] == "search"
    assert "after=" in rows["next"]
    first = client.post(f"/api/v1/notices/{told[0].pk}/read/", content_type="application/json").json()
    assert first["read_at"] is not None
    assert len(client.get("/api/v1/notices/?show=unread").json()["results"]) == 2
    assert client.post("/api/v1/notices/read/", content_type="application/json").json() == {"read": 2}
    assert client.get("/api/v1/notices/?show=some").status_code == 422
    assert signed_in(bob).get("/api/v1/notices/").json()["results"] == []
    assert signed_in(bob).get(f"/api/v1/notices/{told[0].pk}/").status_code == 404
    assert (
        signed_in(bob).post(f"/api/v1/notices/{told[0].pk}/read/", content_type="application/json").status_code == 404
    )
