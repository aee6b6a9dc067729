"""The page of a deployment that waits for quota: its place, what would free GPUs, and what to press."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from django.urls import reverse

from deployments.models import Deployment, Flavor, QuotaRequest, Revision, Team, User
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


def test_a_lead_asks_with_one_press_and_takes_it_back_on_the_same_page(
    team: Team, h100: Flavor, ann: User, alice: User
) -> None:
    row = waiting(team, ann)
    client, here = signed_in(alice), reverse("deployment-detail", args=[row.pk])
    wish = client.get(here).context["quota_links"]["ask"]
    assert "Ask for 1 GPU of quota" in page(alice, row)

    answer = client.post(reverse("quotas-ask"), {**wish, "deployment": str(row.pk)})

    assert answer["Location"] == here
    asked = QuotaRequest.objects.get()
    assert (asked.gpus, asked.flavor, asked.why) == (1, h100, "late is approved and waits for 2 GPUs")
    text = page(alice, row)
    assert "alice asked for 1 GPU of quota" in text
    assert "Ask for 1 GPU" not in text
    assert "Withdraw" not in page(ann, row)

    answer = client.post(reverse("quotas-withdraw", args=[asked.pk]), {"deployment": str(row.pk)})
    assert answer["Location"] == here
    assert "Ask for 1 GPU of quota" in page(alice, row)


def test_a_member_reads_whom_to_ask(team: Team, h100: Flavor, ann: User, alice: User) -> None:
    text = page(ann, waiting(team, ann))
    assert reverse("quotas-ask") not in text
    assert "A lead of the team can ask for more quota: alice." in text


def test_the_whole_page_says_that_it_is_approved_and_waits(team: Team, h100: Flavor, ann: User) -> None:
    row = waiting(team, ann)
    found = signed_in(ann).get(reverse("deployment-detail", args=[row.pk])).context["steps"]
    assert [(step.label, step.mark, step.note) for step in found[1:3]] == [
        ("Approved", "done", "by policy"),
        ("Applied", "wait", "waits for quota"),
    ]
    text = page(ann, row)
    assert "once the request is approved" not in text
    assert "reserved when the request is approved" not in text
    assert "Approved: pods appear here once its GPUs are reserved." in text
    assert "None yet. They are reserved as soon as the quota covers them." in text


def test_a_need_beyond_the_whole_quota_says_that_only_more_helps(team: Team, h100: Flavor, ann: User) -> None:
    assert "The whole quota is 2 too small" in page(ann, waiting(team, ann, gpus=6))


def test_another_way_opens_the_form_with_its_values(hub: list[str], team: Team, h100: Flavor, ann: User) -> None:
    add_node(gpus=4)
    client = signed_in(ann)
    row = waiting(team, ann)
    [way] = client.get(reverse("deployment-detail", args=[row.pk])).context["quota_links"]["ways"]
    assert way["text"] == "1 replica"
    assert "A change gives up the place in line, and somebody has to approve it first." in page(ann, row)
    assert parse_qsl(urlsplit(way["url"]).query) == [("set", "replicas_max=1")]

    form = client.get(way["url"] + "&set=kv_cache_dtype%3Dfp8").context["form"]

    assert (form.text("replicas_max"), form.text("kv_cache_dtype")) == ("1", "fp8")
    assert Revision.objects.filter(deployment=row).count() == 1, "nothing is sent by a link"


def test_an_edit_that_fits_only_once_the_old_one_is_gone_is_offered_to_stop_first(
    team: Team, h100: Flavor, ann: User
) -> None:
    row = make.make_deployment(team, ann, name="roles", flavor=h100)
    old = make.add_revision(row, ann, flavor=h100, gpus=3, surge=1)
    make.approve(old)
    ledger.reserve(deployment=row, revision=old, gpus=4)
    Deployment.objects.filter(pk=row.pk).update(applied=old)
    make.approve(make.add_revision(row, ann, flavor=h100, gpus=2, surge=2), current=False)
    states.refresh(row.pk)
    row.refresh_from_db()

    text = page(ann, row)

    assert "both revisions while one replaces the other" in text
    assert "Stopped first it fits: the new revision alone takes 4 GPUs" in text
    assert "Stop it first" in text
    assert "· 3 × H100-80GB ·" in text.partition("asked for by")[0], "what runs is told, not what waits"
    assert "revision 3 waits for quota</span>" in text
    assert 'Revision 3 <span class="muted small">waits for quota' in text
    answer = signed_in(ann).get(f"/api/v1/deployments/{row.pk}/").json()["waiting"]
    assert (answer["needs"], answer["apart"], answer["fits_apart"]) == (5, 4, True)
