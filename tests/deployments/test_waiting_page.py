"""The page of a deployment that waits for quota: its place, what would free GPUs, and what to press."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from django.urls import reverse

from deployments.models import Deployment, Flavor, Revision, Team, User
from deployments.services import ledger, states
from tests.deployments import factories as make
from tests.deployments.viewing import add_node, flat, signed_in


def waiting(team: Team, user: User, gpus: int = 2) -> Deployment:
    """One that is approved and finds the quota taken by another."""
    holder = make.make_deployment(team, user, name="holder", gpus=3, approved=True)
    ledger.reserve(deployment=holder, revision=holder.latest, gpus=3)  # type: ignore[arg-type]
    row = make.make_deployment(team, user, name="late", gpus=gpus)
    assert row.latest is not None
    make.approve(row.latest, current=False)
    states.refresh(row.pk)
    row.refresh_from_db()
    assert row.state == "AwaitingQuota"
    return row


def page(user: User, row: Deployment) -> str:
    return flat(signed_in(user).get(reverse("deployment-detail", args=[row.pk])).content.decode())


def test_it_says_the_place_and_who_holds_what_it_waits_for(team: Team, h100: Flavor, ann: User) -> None:
    text = page(ann, waiting(team, ann))
    assert "It needs 2 GPUs of H100-80GB" in text
    assert "1 of 4 is free in" in text
    assert "<strong>1 of 1</strong>in line" in text
    assert "holder</a>holds them" in text


def test_a_lead_asks_with_one_press_and_a_member_reads_whom_to_ask(
    team: Team, h100: Flavor, ann: User, alice: User
) -> None:
    row = waiting(team, ann)
    link = reverse("quotas") + "?team=search&amp;flavor=h100-80gb&amp;gpus=1&amp;why="
    assert link in page(alice, row)
    text = page(ann, row)
    assert link not in text
    assert "A lead of the team can ask for more quota: alice." in text


def test_a_need_beyond_the_whole_quota_says_that_only_more_helps(team: Team, h100: Flavor, ann: User) -> None:
    assert "The whole quota is 2 too small" in page(ann, waiting(team, ann, gpus=6))


def test_another_way_opens_the_form_with_its_values(hub: list[str], team: Team, h100: Flavor, ann: User) -> None:
    add_node(gpus=4)
    client = signed_in(ann)
    row = waiting(team, ann)
    [way] = client.get(reverse("deployment-detail", args=[row.pk])).context["quota_links"]["ways"]
    assert way["text"] == "1 replica"
    assert parse_qsl(urlsplit(way["url"]).query) == [("set", "replicas_max=1")]

    form = client.get(way["url"] + "&set=kv_cache_dtype%3Dfp8").context["form"]

    assert (form.text("replicas_max"), form.text("kv_cache_dtype")) == ("1", "fp8")
    assert Revision.objects.filter(deployment=row).count() == 1, "nothing is sent by a link"
