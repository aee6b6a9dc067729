"""Overview and lists: what they count, in which order, and with how many queries."""

from __future__ import annotations

import gzip
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from deployments.models import Deployment, Flavor, Revision, Team, User
from deployments.services import ledger
from deployments.services.capacity_now import flavors_now
from tests.demo.visitor import text_of
from tests.deployments import factories as make
from tests.deployments.viewing import add_node, flat, see_cluster, signed_in

State = Deployment.State


@pytest.fixture
def fleet(team: Team, ann: User, h100: Flavor) -> list[Deployment]:
    """One deployment in each of some states."""
    see_cluster()
    states = [State.RUNNING, State.RUNNING, State.FAILED, State.AWAITING_APPROVAL, State.STOPPED]
    rows = [make.make_deployment(team, ann, name=f"model-{index}") for index, _ in enumerate(states)]
    for row, state in zip(rows, states, strict=True):
        Deployment.objects.filter(pk=row.pk).update(state=state)
    return rows


def many(team: Team, author: User, flavor: Flavor, count: int) -> None:
    """So many deployments with one revision each, written in bulk."""
    cluster = see_cluster()
    rows = Deployment.objects.bulk_create(
        Deployment(team=team, cluster=cluster, name=f"m-{n:05}", created_by=author, state=State.RUNNING)
        for n in range(count)
    )
    revisions = Revision.objects.bulk_create(
        Revision(deployment=row, number=1, spec=make.a_spec(), digest="0" * 64, flavor=flavor, gpus=1, author=author)
        for row in rows
    )
    for row, revision in zip(rows, revisions, strict=True):
        row.latest = revision
    Deployment.objects.bulk_update(rows, ["latest"], batch_size=1000)


def queries(person: User, url: str) -> tuple[int, Any]:
    client = signed_in(person)
    client.get(url)  # compiles the templates
    with CaptureQueriesContext(connection) as seen:
        answer = client.get(url)
    return len(seen), answer


@pytest.mark.parametrize("name", ["overview", "deployment-list"])
def test_a_page_costs_as_many_queries_at_300_as_at_3(team: Team, ann: User, h100: Flavor, name: str) -> None:
    many(team, ann, h100, 3)
    few, _ = queries(ann, reverse(name))
    team_two = make.make_team("devtools")
    make.join(ann, team_two)
    many(team_two, ann, h100, 300)

    lots, answer = queries(ann, reverse(name))

    assert answer.status_code == 200
    assert few == lots
    assert lots <= 6


def test_the_overview_weighs_little(team: Team, ann: User, h100: Flavor) -> None:
    many(team, ann, h100, 300)
    _, answer = queries(ann, reverse("overview"))

    assert len(gzip.compress(answer.content)) <= 15 * 1024


def test_filters_count_and_select(fleet: list[Deployment], ann: User) -> None:
    answer = signed_in(ann).get(reverse("deployment-list"), {"show": "attention"})

    listing = answer.context["listing"]
    assert [(tab.key, tab.count) for tab in listing.tabs] == [
        ("all", 5),
        ("running", 2),
        ("attention", 1),
        ("waiting", 1),
    ]
    assert [row["name"] for row in listing.page.rows] == ["model-2"]


def test_what_needs_attention_comes_first_on_the_overview(fleet: list[Deployment], ann: User) -> None:
    answer = signed_in(ann).get(reverse("overview"))

    assert [row["name"] for row in answer.context["listing"].page.rows][:2] == ["model-2", "model-3"]


@pytest.mark.parametrize(("text", "found"), [("model-1", 1), ("QWEN2.5", 5), ("search", 5), ("nothing", 0), ("%", 0)])
def test_search_looks_at_name_model_and_team(fleet: list[Deployment], ann: User, text: str, found: int) -> None:
    answer = signed_in(ann).get(reverse("deployment-list"), {"q": text})

    assert answer.context["listing"].total == found


@pytest.mark.parametrize("sort", ["name", "-name", "team", "state", "-state", "gpus", "changed", "-changed"])
def test_paging_shows_every_row_once_and_back_again(team: Team, ann: User, h100: Flavor, sort: str) -> None:
    many(team, ann, h100, 120)
    client = signed_in(ann)
    seen: list[str] = []
    after, pages = "", []
    while True:
        page = client.get(reverse("deployment-list"), {"sort": sort, "after": after}).context["listing"].page
        names = [row["name"] for row in page.rows]
        pages.append(names)
        seen += names
        after = page.after
        if not after:
            break
    assert len(pages) == 3
    assert sorted(seen) == [f"m-{n:05}" for n in range(120)]

    back = client.get(reverse("deployment-list"), {"sort": sort, "before": page.before}).context["listing"].page

    assert [row["name"] for row in back.rows] == pages[1]


@pytest.mark.parametrize("query", ["after=zzz", "after=W10", "before=bnVsbA", "sort=evil", "show=evil", "team=evil"])
def test_addresses_nobody_was_given_do_no_harm(fleet: list[Deployment], ann: User, query: str) -> None:
    assert signed_in(ann).get(f"{reverse('deployment-list')}?{query}").status_code == 200


def test_an_address_with_a_nul_is_refused_and_breaks_nothing(fleet: list[Deployment], ann: User) -> None:
    for query in ("q=%00", "after=WyJ4Iiwi%00"):
        assert signed_in(ann).get(f"{reverse('deployment-list')}?{query}").status_code == 400


def test_htmx_gets_the_list_alone(fleet: list[Deployment], ann: User) -> None:
    answer = signed_in(ann).get(reverse("deployment-list"), headers={"HX-Request": "true"})

    text = answer.content.decode()
    assert flat(text).startswith('<section class="card" id="list-live"')
    assert "HX-Request" in answer["Vary"]


def test_deleted_deployments_are_gone_from_lists(fleet: list[Deployment], ann: User) -> None:
    Deployment.objects.filter(pk=fleet[0].pk).update(deleted_at=timezone.now(), state=State.DELETED)

    assert signed_in(ann).get(reverse("deployment-list")).context["listing"].total == 4


def test_capacity_counts_use_idle_reservations_and_what_is_free(team: Team, ann: User, h100: Flavor) -> None:
    chat = make.make_deployment(team, ann, gpus=3, approved=True)
    assert chat.approved is not None
    ledger.reserve(deployment=chat, revision=chat.approved, gpus=3)
    add_node("gpu-1", holders=[{"namespace": "x", "pod": "p", "gpus": 1, "deployment": chat.pk}])
    add_node("gpu-2", holders=[{"namespace": "y", "pod": "q", "gpus": 2, "deployment": None}])

    now = flavors_now()[0]

    assert (now.total, now.in_use, now.idle, now.free, now.block) == (8, 3, 2, 3, 3)


def test_gpus_of_a_cordoned_node_are_not_free(team: Team, h100: Flavor) -> None:
    node = add_node()
    node.unschedulable = True
    node.save()

    now = flavors_now()[0]

    assert (now.total, now.free, now.away, now.block) == (4, 0, 4, 0)


def test_a_cluster_that_was_lost_is_said_to_be_lost(fleet: list[Deployment], ann: User) -> None:
    see_cluster(trouble="connection refused")

    text = text_of(signed_in(ann).get(reverse("overview")).content.decode())

    assert "cluster: not reached since" in text


def test_the_top_bar_says_how_old_what_is_live_is(fleet: list[Deployment], ann: User) -> None:
    see_cluster(seen_at=timezone.now() - timedelta(seconds=2))

    text = text_of(signed_in(ann).get(reverse("overview")).content.decode())

    assert re.search(r"cluster: live, [23] s ago", text)


def test_without_anything_the_overview_teaches(db: None, carol: User) -> None:
    text = text_of(signed_in(carol).get(reverse("overview")).content.decode())

    assert "Nothing on the slipway yet" in text
    assert "cluster: not seen yet" in text


def test_a_pod_that_is_not_ready_holds_its_gpus_without_serving(team: Team, ann: User, h100: Flavor) -> None:
    row = make.make_deployment(team, ann, approved=True)
    held = {"namespace": "x", "gpus": 1, "deployment": row.pk}
    add_node("gpu-1", holders=[{**held, "pod": "a", "ready": True}, {**held, "pod": "b", "ready": False}])

    now = flavors_now()[0]
    heat = signed_in(ann).get(reverse("overview-heat")).content.decode()
    capacity = signed_in(ann).get(reverse("capacity")).content.decode()

    assert (now.serving, now.held, now.free) == (1, 1, 2)
    assert heat.count('class="g-use"') == heat.count('class="g-idle"') == 1
    assert "1 held, not serving" in capacity


def test_the_crumb_names_the_team(team: Team, ann: User, carol: User) -> None:
    assert '<p class="crumb">Search</p>' in flat(signed_in(ann).get(reverse("overview")).content.decode())
    assert '<p class="crumb">All teams</p>' in flat(signed_in(carol).get(reverse("overview")).content.decode())
    narrowed = flat(signed_in(carol).get(reverse("overview"), {"team": "search"}).content.decode())
    assert '<p class="crumb">Search</p>' in narrowed


def test_a_reason_in_a_list_is_whole(team: Team, ann: User, h100: Flavor) -> None:
    row = make.make_deployment(team, ann)
    title = "A sentence that is rather long, as reasons of engines are, and ends with the word that counts."
    Deployment.objects.filter(pk=row.pk).update(state=State.FAILED, reason={"title": title})

    assert f"{title}</span>" in signed_in(ann).get(reverse("deployment-list")).content.decode()


def test_a_page_that_is_not_there_keeps_the_navigation_for_people_who_are_signed_in(ann: User) -> None:
    inside, outside = signed_in(ann).get("/nowhere/"), Client().get("/nowhere/")

    assert (inside.status_code, outside.status_code) == (404, 404)
    assert 'aria-label="Main"' in inside.content.decode()
    assert 'aria-label="Main"' not in outside.content.decode()


def test_the_password_page_is_one_of_the_portal(ann: User) -> None:
    ann.set_password("a-long-old-one")
    ann.save()
    browser = signed_in(ann)

    text = browser.get(reverse("account_change_password")).content.decode()
    sent = {"oldpassword": "a-long-old-one", "password1": "a-long-new-one", "password2": "a-long-new-one"}
    answer = browser.post(reverse("account_change_password"), sent)

    assert 'aria-label="Main"' in text
    assert "Back to the account" in text
    assert answer.status_code == 302
    ann.refresh_from_db()
    assert ann.check_password("a-long-new-one")
