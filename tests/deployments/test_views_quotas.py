"""Granting quota, whom to ask for more, and what an admin without a team sees."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from deployments.models import (
    CatalogEntry,
    Event,
    Flavor,
    QuotaGrant,
    QuotaRequest,
    Team,
    User,
)
from deployments.services import ledger
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gpus", "-1"),
        ("gpus", "0"),
        ("gpus", ""),
        ("gpus", "99999"),
        ("gpus", "\u0663"),
        ("until", "\u0662\u0661\u0660\u0660-01-01"),
        ("team", "x\0"),
        ("flavor", "quantum"),
        ("until", "2001-02-31"),
        ("until", "2001-02-03"),
        ("valid_from", "2001-02-03"),
        ("valid_from", "soon"),
    ],
)
def test_a_grant_is_refused_at_its_field_and_keeps_the_rest(
    team: Team, h100: Flavor, carol: User, field: str, value: str
) -> None:
    wish = {"team": "search", "flavor": "h100-80gb", "gpus": "2", "until": "", "comment": "for the fair", field: value}

    answer = signed_in(carol).post(reverse("quotas-grant"), wish)

    assert answer.status_code == 422
    assert list(answer.context["errors"]) == [field]
    text = flat(answer.content.decode())
    assert f'name="{field}" aria-describedby="e-g-{field}" aria-invalid="true"' in text
    assert 'value="for the fair"' in text
    assert QuotaGrant.objects.count() == 1


def test_an_admin_grants_from_a_later_day_on(team: Team, h100: Flavor, carol: User) -> None:
    day = timezone.localdate() + timedelta(days=9)
    wish = {"team": "search", "flavor": "h100-80gb", "gpus": "2", "comment": "for the fair"}

    answer = signed_in(carol).post(reverse("quotas-grant"), wish | {"valid_from": f"{day}"}, follow=True)

    made = QuotaGrant.objects.latest("pk")
    assert timezone.localtime(made.valid_from) == timezone.make_aware(datetime.combine(day, time.min))
    assert f"2 GPUs of {h100.name} more from {day:%-d %b %Y} on." in flat(answer.content.decode())
    today = {"valid_from": f"{timezone.localdate()}"}
    signed_in(carol).post(reverse("quotas-grant"), wish | today)
    assert QuotaGrant.objects.latest("pk").valid_from <= timezone.now()


def test_the_form_begins_with_the_team_that_the_page_shows(team: Team, h100: Flavor, bob: User, carol: User) -> None:
    for slug in ("search", "labs"):
        text = flat(signed_in(carol).get(reverse("quotas"), {"team": slug}).content.decode())
        form = text.partition('id="g-team"')[2].partition("</select>")[0]
        assert f'<option value="{slug}" selected>' in form
        assert form.count(" selected>") == 1


def test_a_team_without_a_lead_reads_whom_to_ask(h100: Flavor, ann: User, carol: User) -> None:
    carol.first_name, carol.last_name = "Carol", "Berg"
    carol.save()
    make.make_user("erin", admin=True)

    text = signed_in(ann).get(reverse("quotas")).content.decode()

    assert "Ask an admin for more: erin or Carol Berg." in text or "Ask an admin for more: Carol Berg or erin." in text
    assert "Ask an admin for more" not in signed_in(carol).get(reverse("quotas")).content.decode()


def test_an_admin_of_no_team_is_not_offered_to_ask(team: Team, h100: Flavor, alice: User, carol: User) -> None:
    CatalogEntry.objects.create(
        slug="qwen", name="Qwen", uri=make.QWEN, summary="", parameters_billion=7.6, flavor="h100-80gb", args={}
    )
    offer = f'href="{reverse("deployment-create")}'

    for name in ("catalogue", "deployment-list", "overview"):
        assert offer in signed_in(alice).get(reverse(name)).content.decode()
        assert offer not in signed_in(carol).get(reverse(name)).content.decode()
    assert "Your quota now" not in signed_in(carol).get(reverse("catalogue")).content.decode()
    assert "without a team" in signed_in(carol).get(reverse("deployment-create")).content.decode()


@pytest.mark.parametrize(
    ("policy", "gpus", "words"),
    [
        (Team.Policy.ASK, 1, "An admin approves every request of this team."),
        (Team.Policy.LEAD, 1, "Another lead of the team or an admin approves."),
        (Team.Policy.LEAD, 5, "An admin approves: the request goes beyond the team"),
        (Team.Policy.AUTO, 1, "A lead of the team or an admin approves."),
    ],
)
def test_a_waiting_deployment_names_who_decides(
    team: Team, h100: Flavor, ann: User, alice: User, policy: str, gpus: int, words: str
) -> None:
    team.policy = policy
    team.save()
    row = make.make_deployment(team, ann, gpus=gpus)

    assert words in signed_in(alice).get(reverse("deployment-detail", args=[row.pk])).content.decode()


REQUESTS = "/quotas/?show=requests"
ASK = {"team": "search", "flavor": "h100-80gb", "gpus": "2", "valid_from": "", "valid_until": "", "why": "Fair"}


def test_a_lead_asks_on_the_page_and_takes_back(team: Team, h100: Flavor, alice: User, ann: User) -> None:
    client = signed_in(alice)
    answer = client.post(reverse("quotas-ask"), ASK, follow=True)
    text = flat(answer.content.decode())
    assert "Waits for a decision" in text
    assert "2 GPUs of H100-80GB asked for" in text
    row = QuotaRequest.objects.get()
    assert "Withdraw" in signed_in(alice).get(REQUESTS).content.decode()
    assert "Withdraw" not in signed_in(ann).get(REQUESTS).content.decode()

    client.post(reverse("quotas-withdraw", args=[row.pk]))

    row.refresh_from_db()
    assert row.state == "withdrawn"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gpus", "0"),
        ("gpus", "\u0663"),
        ("why", ""),
        ("valid_until", "2001-02-03"),
        ("valid_until", "2001-02-31"),
        ("valid_from", "2001-02-03"),
        ("flavor", "x\0"),
        ("team", "labs"),
    ],
)
def test_a_wrong_field_is_said_beside_it_and_the_rest_is_kept(
    team: Team, h100: Flavor, alice: User, field: str, value: str
) -> None:
    make.make_team("labs")
    wish = ASK | {"why": "for the fair", field: value}
    answer = signed_in(alice).post(reverse("quotas-ask"), wish)
    assert answer.status_code == 422
    assert list(answer.context["ask_errors"]) == [field]
    if field != "why":
        assert 'value="for the fair"' in answer.content.decode()
    assert not QuotaRequest.objects.exists()


def test_all_that_is_wrong_is_said_at_once(team: Team, h100: Flavor, alice: User, carol: User) -> None:
    wrong = {"gpus": "many", "valid_from": "2001-02-03", "valid_until": "2001-02-03", "why": ""}
    answer = signed_in(alice).post(reverse("quotas-ask"), ASK | wrong)
    assert answer.status_code == 422
    assert set(answer.context["ask_errors"]) == set(wrong)
    page = answer.content.decode()
    assert page.count('aria-invalid="true"') == 4
    assert page.count('value="2001-02-03"') == 2
    assert 'value="many"' in page

    wish = {"team": "none", "flavor": "none", "gpus": "0", "until": "2001-02-03", "comment": "x" * 501}
    answer = signed_in(carol).post(reverse("quotas-grant"), wish)
    assert set(answer.context["errors"]) == set(wish)

    grant = QuotaGrant.objects.get()
    answer = change(carol, grant, gpus="few", until="2001-02-03", comment="y" * 501)
    assert set(answer.context["change_errors"]) == {"gpus", "until", "comment"}
    assert "To let the grant end now, set its GPUs to 0." in answer.content.decode()


def test_a_link_brings_the_form_filled_in(team: Team, h100: Flavor, alice: User) -> None:
    text = flat(
        signed_in(alice).get(reverse("quotas") + "?team=search&flavor=h100-80gb&gpus=3&why=chat").content.decode()
    )
    assert 'inputmode="numeric" maxlength="500" value="3"' in text
    assert 'value="chat"' in text


def test_a_member_reads_which_lead_asks(team: Team, h100: Flavor, alice: User, ann: User) -> None:
    text = flat(signed_in(ann).get(reverse("quotas")).content.decode())
    assert "A lead of Search asks for more quota here: alice." in text
    assert reverse("quotas-ask") not in text
    assert signed_in(ann).post(reverse("quotas-ask"), ASK).status_code == 422
    assert not QuotaRequest.objects.exists()


def test_strangers_and_members_change_nothing(team: Team, h100: Flavor, alice: User, bob: User) -> None:
    signed_in(alice).post(reverse("quotas-ask"), ASK)
    row, grant = QuotaRequest.objects.get(), QuotaGrant.objects.get()
    assert signed_in(bob).post(reverse("quotas-withdraw", args=[row.pk])).status_code == 404
    for who in (alice, bob):
        answer = signed_in(who).post(reverse("quotas-grant-change", args=[grant.pk]), {"gpus": "64"})
        assert answer.status_code == 404
    grant.refresh_from_db()
    assert grant.gpus == 4


def test_an_admin_cuts_a_grant_below_what_is_held(team: Team, h100: Flavor, ann: User, carol: User) -> None:
    row = make.make_deployment(team, ann, gpus=4, approved=True)
    ledger.reserve(deployment=row, revision=row.latest, gpus=4)  # type: ignore[arg-type]
    client, url = signed_in(carol), reverse("quotas-grant-change", args=[QuotaGrant.objects.get().pk])

    assert client.post(url, {"gpus": "x", "until": "", "comment": "less"}).status_code == 422
    text = flat(client.post(url, {"gpus": "1", "until": "", "comment": "less"}, follow=True).content.decode())

    assert "over by 3" in text
    assert QuotaGrant.objects.get().gpus == 1
    assert "What runs goes on" in text
    row.refresh_from_db()
    assert row.wanted == "running"


def test_a_teams_page_says_who_holds_what_since_when(team: Team, h100: Flavor, ann: User, alice: User) -> None:
    row = make.make_deployment(team, ann, name="chat", gpus=3, approved=True)
    ledger.reserve(deployment=row, revision=row.latest, gpus=2)  # type: ignore[arg-type]
    ledger.reserve(deployment=row, revision=row.latest, gpus=3)  # type: ignore[arg-type]
    first = row.ledger.order_by("pk")[0]
    [hold] = signed_in(alice).get(reverse("quotas")).context["holders"]
    assert (hold.deployment, hold.gpus, hold.since, hold.ends) == (row, 3, first.created_at, None)


@pytest.mark.parametrize("show", ["grants", "requests", "ends", "history"])
def test_a_tab_costs_as_many_queries_with_many_rows(
    team: Team, h100: Flavor, alice: User, django_assert_max_num_queries: Any, show: str
) -> None:
    client, address = signed_in(alice), f"{reverse('quotas')}?show={show}"
    soon = timezone.now() + timedelta(days=9)

    def more(number: int) -> None:
        row = make.make_deployment(team, alice, name=f"d{number}", gpus=1, approved=True)
        make.make_grant(team, h100, 1, valid_until=soon)
        ledger.reserve(deployment=row, revision=row.latest, gpus=1)  # type: ignore[arg-type]
        QuotaRequest.objects.create(team=team, flavor=h100, gpus=1, why="x", author=alice)

    more(0)
    with CaptureQueriesContext(connection) as few:
        client.get(address)
    for number in range(1, 20):
        more(number)
    with django_assert_max_num_queries(len(few)):
        client.get(address)


def change(person: User, grant: QuotaGrant, **wish: str) -> Any:
    fields = {"gpus": str(grant.gpus), "until": "", "comment": "", **wish}
    return signed_in(person).post(reverse("quotas-grant-change", args=[grant.pk]), fields)


def test_an_emptied_end_makes_a_grant_hold_for_good(team: Team, h100: Flavor, carol: User) -> None:
    until = timezone.now() + timedelta(days=20)
    grant = make.make_grant(team, h100, 2, valid_until=until)

    assert change(carol, grant).status_code == 302

    grant.refresh_from_db()
    assert (grant.gpus, grant.valid_until) == (2, None)
    event = Event.objects.filter(kind="quota_granted").latest("pk")
    assert (event.data["before"], event.data["after"]) == ({"until": until.isoformat()}, {"until": None})


def test_a_change_that_changes_nothing_is_refused(team: Team, h100: Flavor, carol: User) -> None:
    until = timezone.now() + timedelta(days=20)
    grant = make.make_grant(team, h100, 2, valid_until=until)

    answer = change(carol, grant, until=timezone.localdate(until).isoformat(), comment="as it is")

    assert answer.status_code == 422
    text = flat(answer.content.decode())
    assert "Nothing would change: the grant is like this already." in text
    assert 'value="as it is"' in text
    assert not Event.objects.filter(kind="quota_granted").exists()
    grant.refresh_from_db()
    assert grant.valid_until == until


def test_an_old_page_changes_nothing_that_it_does_not_show(team: Team, h100: Flavor, carol: User) -> None:
    grant = make.make_grant(team, h100, 2)
    page = signed_in(carol).get(reverse("quotas"), {"team": "search"})
    seen = next(row["tag"] for row in page.context["grants"] if row["grant"].pk == grant.pk)
    assert page.content.decode().count(f'name="seen" value="{seen}"') == 1
    assert change(carol, grant, gpus="8", seen=seen).status_code == 302

    answer = change(carol, grant, gpus="3", seen=seen, comment="from an old page")

    assert answer.status_code == 422
    text = flat(answer.content.decode())
    assert "Somebody changed this grant meanwhile: it is of 8 now, without an end." in text
    assert 'value="from an old page"' in text
    grant.refresh_from_db()
    assert grant.gpus == 8


def test_a_grant_that_was_cut_to_nothing_stays_listed_with_why_and_can_be_raised_again(
    team: Team, h100: Flavor, carol: User, alice: User
) -> None:
    grant = make.make_grant(team, h100, 2)
    change(carol, grant, gpus="0", comment="Needed elsewhere")

    text = flat(signed_in(alice).get(reverse("quotas")).content.decode())
    assert '<span class="chip t-yellow">cut to 0</span>' in text
    assert "2 → 0 GPUs: Needed elsewhere" in text

    grant.refresh_from_db()
    change(carol, grant, gpus="3", comment="Back again")
    grant.refresh_from_db()
    assert grant.gpus == 3
    text = flat(signed_in(alice).get(reverse("quotas")).content.decode())
    assert "0 → 3 GPUs: Back again" in text
    assert "cut to 0" not in text


def test_an_ended_grant_is_extended_by_thirty_days_with_one_press(team: Team, h100: Flavor, carol: User) -> None:
    now = timezone.now()
    make.make_grant(team, h100, 2, valid_from=now - timedelta(days=9), valid_until=now - timedelta(days=1))
    long_ago = now - timedelta(days=200)
    make.make_grant(team, h100, 7, valid_from=long_ago - timedelta(days=9), valid_until=long_ago)

    answer = signed_in(carol).get(reverse("quotas"), {"team": "search"})

    assert [(row["grant"].gpus, row["ended"]) for row in answer.context["grants"]] == [(4, False), (2, True)]
    ended = answer.context["grants"][1]
    text = flat(answer.content.decode())
    assert '<span class="chip">ended</span>' in text
    assert f'name="until" value="{timezone.localdate(ended["extended"]).isoformat()}"' in text
    change(carol, ended["grant"], until=timezone.localdate(ended["extended"]).isoformat())
    ended["grant"].refresh_from_db()
    assert timezone.localdate(ended["grant"].valid_until) == timezone.localdate(now + timedelta(days=30))


def test_a_lead_asks_to_extend_from_the_day_after(team: Team, h100: Flavor, alice: User, ann: User) -> None:
    until = timezone.now() + timedelta(days=20)
    make.make_grant(team, h100, 2, valid_until=until)
    begins = timezone.localdate(until) + timedelta(days=1)

    text = flat(signed_in(alice).get(reverse("quotas")).content.decode())

    assert f"?team=search&amp;flavor=h100-80gb&amp;gpus=2&amp;valid_from={begins.isoformat()}" in text
    assert "2 of 6 end" in text
    assert "Ask to extend" not in signed_in(ann).get(reverse("quotas")).content.decode()


def test_who_holds_more_than_the_quota_is_named_with_a_link(
    team: Team, h100: Flavor, ann: User, alice: User, carol: User
) -> None:
    row = make.make_deployment(team, ann, gpus=4, approved=True)
    assert row.latest is not None
    ledger.reserve(deployment=row, revision=row.latest, gpus=4)
    change(carol, team.grants.get(), gpus="1")

    text = flat(signed_in(alice).get(reverse("quotas")).content.decode())

    assert 'href="/quotas/?team=search#holders-h">over by 3</a>' in text
    assert "held by chat (4)" in text


def test_a_team_that_is_not_there_or_not_to_be_seen_is_said(team: Team, h100: Flavor, alice: User, bob: User) -> None:
    for name in ("labs", "nosuch"):
        answer = signed_in(alice).get(reverse("quotas"), {"team": name})
        assert (answer.status_code, answer.context["rows"], answer.context["grants"]) == (404, [], [])
        assert "There is no such team" in answer.content.decode()
    assert "There is no such team" not in signed_in(alice).get(reverse("quotas"), {"team": "search"}).content.decode()


def test_a_list_that_is_cut_says_so(team: Team, h100: Flavor, alice: User) -> None:
    words = "The newest 20 are shown"
    for _ in range(19):
        QuotaRequest.objects.create(team=team, flavor=h100, gpus=1, why="x", author=alice)
    assert words not in signed_in(alice).get(REQUESTS).content.decode()
    QuotaRequest.objects.create(team=team, flavor=h100, gpus=1, why="x", author=alice)
    assert words in signed_in(alice).get(REQUESTS).content.decode()


def tabs(person: User, **query: str) -> dict[str, int]:
    """The tabs by their label, with what waits or ends in each."""
    return {tab["label"]: tab["count"] for tab in signed_in(person).get(reverse("quotas"), query).context["tabs"]}


def test_tabs_say_what_waits_and_what_ends(team: Team, h100: Flavor, alice: User, bob: User, carol: User) -> None:
    QuotaRequest.objects.create(team=team, flavor=h100, gpus=1, why="x", author=alice)
    make.make_grant(team, h100, 2, valid_until=timezone.now() + timedelta(days=29))
    make.make_grant(team, h100, 2, valid_until=timezone.now() + timedelta(days=31))

    assert tabs(alice) == {"Grants": 0, "Requests": 1, "Ends soon": 1, "History": 0}
    assert tabs(carol) == {"Grants": 0, "Waiting": 1, "Ends soon": 1, "History": 0}
    assert tabs(carol, team="nosuch") == {"Grants": 0, "Waiting": 0, "Ends soon": 0, "History": 0}
    assert tabs(bob) == {"Grants": 0, "Requests": 0, "Ends soon": 0, "History": 0}
    asked = flat(signed_in(carol).get(REQUESTS).content.decode())
    assert f'href="/approvals/?kind=quota&amp;team=search#q{QuotaRequest.objects.get().pk}"' in asked
    assert "Decide" not in signed_in(alice).get(REQUESTS).content.decode()


def test_the_end_of_a_grant_says_what_it_means(team: Team, h100: Flavor, ann: User, alice: User, carol: User) -> None:
    first, second = (timezone.now() + timedelta(days=days) for days in (3, 9))
    QuotaGrant.objects.update(gpus=1)
    make.make_grant(team, h100, 2, valid_until=first)
    make.make_grant(team, h100, 3, valid_until=second)
    make.make_grant(team, h100, 1, valid_from=first - timedelta(days=1))
    row = make.make_deployment(team, ann, gpus=6, approved=True)
    ledger.reserve(deployment=row, revision=row.latest, gpus=6)  # type: ignore[arg-type]

    answer = signed_in(alice).get(reverse("quotas"), {"show": "ends"})

    assert [(end.grant.gpus, end.left, end.over, end.days) for end in answer.context["ends"]] == [
        (2, 5, 1, 3),
        (3, 2, 4, 9),
    ]
    text = flat(answer.content.decode())
    assert "over by 4" in text
    assert "4 GPUs held beyond the quota: what runs goes on, and cannot grow." in text
    assert "Ask to extend" in text
    assert "Extend 30 d" not in text
    Team.objects.update(at_expiry=Team.AtExpiry.STOP)
    admins = flat(signed_in(carol).get(reverse("quotas"), {"show": "ends"}).content.decode())
    assert "4 GPUs held beyond the quota: the newest deployments are stopped." in admins
    assert admins.count("Extend 30 d") == 2


def test_an_end_is_put_off_from_the_list_of_ends(team: Team, h100: Flavor, carol: User) -> None:
    grant = make.make_grant(team, h100, 2, valid_until=timezone.now() + timedelta(days=3))
    (end,) = signed_in(carol).get(reverse("quotas"), {"show": "ends"}).context["ends"]
    fields = {"until": timezone.localdate(end.extended).isoformat(), "seen": end.tag, "show": "ends"}

    answer = change(carol, grant, **fields)

    assert (answer.status_code, answer["Location"]) == (302, "/quotas/?show=ends&team=search")
    assert "Nothing ends soon" in signed_in(carol).get(reverse("quotas"), {"show": "ends"}).content.decode()
