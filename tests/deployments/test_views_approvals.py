"""The inbox: each card stands alone, a rejection says why, and only what one may approve is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.urls import reverse

from deployments.models import Approval, Deployment, Flavor, Revision, Team, User
from deployments.services import approvals
from deployments.services.inbox import pending_for, undecided
from tests.deployments import factories as make
from tests.deployments.viewing import flat, inbox, see_cluster, signed_in

HTMX = {"HX-Request": "true"}


@pytest.fixture
def asked(team: Team, ann: User, h100: Flavor) -> Revision:
    latest = make.make_deployment(team, ann, gpus=2).latest
    assert latest is not None
    return latest


def decide(person: User, revision: Revision, verdict: str, comment: str = "", *, htmx: bool = True) -> Any:
    """Press a button of a card."""
    wish = {"digest": revision.digest, "verdict": verdict, "comment": comment}
    url = reverse("approvals-decide", args=[revision.pk])
    return signed_in(person).post(url, wish, headers=HTMX if htmx else {})


def test_a_decision_answers_with_its_own_card_only(asked: Revision, carol: User) -> None:
    answer = decide(carol, asked, "approve")
    text = answer.content.decode()

    assert f'id="r{asked.pk}"' in text
    assert "<html" not in text
    assert json.loads(answer["HX-Trigger"]) == {"slipway:waiting": {"count": 0}}
    assert Approval.objects.get().approved


def test_a_warning_about_the_moment_of_the_request_goes_with_it(asked: Revision, carol: User) -> None:
    unseen = {"code": "cluster_unseen", "field": "", "severity": "warning", "message": "Not seen.", "remedy": ""}
    tight = {**unseen, "code": "kv_cache_small", "message": "Little room."}
    Revision.objects.filter(pk=asked.pk).update(findings=[unseen, tight])

    def page() -> str:
        return str(signed_in(carol).get(reverse("approvals")).content.decode())

    see_cluster(trouble="connection refused")
    assert "Not seen." in page()
    see_cluster(trouble="")
    assert "Not seen." not in page()
    assert "Little room." in page()


def test_a_card_says_what_a_change_takes_while_it_rolls_out(asked: Revision, ann: User, carol: User) -> None:
    assert "while a change rolls out" not in inbox(carol)
    make.add_revision(asked.deployment, ann, gpus=2, surge=1)
    assert "; 1 more GPU while a change rolls out" in inbox(carol)


def test_open_pages_can_ask_how_many_wait(team: Team, asked: Revision, ann: User, alice: User, carol: User) -> None:
    counts = [
        json.loads(signed_in(who).get(reverse("approvals-waiting"), headers=HTMX)["HX-Trigger"])
        for who in (ann, alice, carol)
    ]

    # The team's policy leaves this to admins.
    assert counts == [{"slipway:waiting": {"count": number}} for number in (0, 0, 1)]


def test_a_page_names_the_places_of_the_count(asked: Revision, ann: User, carol: User) -> None:
    decides, asks = (signed_in(who).get(reverse("approvals")).content.decode() for who in (carol, ann))

    assert decides.count("data-waiting>1<") == 2  # in the sidebar and in the tab
    assert "data-waiting-box" not in asks


@pytest.mark.parametrize("htmx", [True, False])
def test_a_rejection_without_a_reason_is_answered_at_the_comment(asked: Revision, carol: User, *, htmx: bool) -> None:
    answer = decide(carol, asked, "reject", htmx=htmx)

    text = answer.content.decode()
    assert answer.status_code == 422
    assert ("<html" in text) is not htmx
    assert 'aria-invalid="true"' in text
    assert "Say why it is rejected" in text
    assert not Approval.objects.exists()


def test_a_stale_card_says_so_and_keeps_the_comment(asked: Revision, carol: User) -> None:
    url = reverse("approvals-decide", args=[asked.pk])

    answer = signed_in(carol).post(url, {"digest": "0" * 64, "verdict": "reject", "comment": "half a"}, headers=HTMX)

    text = answer.content.decode()
    assert answer.status_code == 412
    assert "was changed since the page was loaded" in text
    assert 'value="half a"' in text


@pytest.mark.parametrize("stale", ["digest", "edited", "decided"])
def test_a_stale_card_of_a_plain_form_keeps_the_comment(asked: Revision, ann: User, carol: User, stale: str) -> None:
    body = {"digest": asked.digest, "verdict": "reject", "comment": 'half a "day"', "next": "deployment"}
    if stale == "digest":
        body["digest"] = "0" * 64
    elif stale == "edited":
        make.add_revision(asked.deployment, ann)
    else:
        make.approve(asked)

    answer = signed_in(carol).post(reverse("approvals-decide", args=[asked.pk]), body)

    text = flat(answer.content.decode())
    assert answer.status_code == (409 if stale == "decided" else 412)
    assert ("decided already" if stale == "decided" else "was changed since the page was loaded") in text
    assert "half a &quot;day&quot;" in text
    newest = Deployment.objects.get().latest
    assert newest is not None
    # What waits now stands below, to be signed as it is.
    assert (f'name="digest" value="{newest.digest}"' in text) == (stale != "decided")
    assert not Approval.objects.filter(actor=carol).exists()


def test_a_card_that_waits_no_more_says_so(asked: Revision, carol: User) -> None:
    make.approve(asked)

    answer = decide(carol, asked, "reject", "no")

    assert "decided already" in answer.content.decode()
    assert "<form" not in answer.content.decode()


@pytest.mark.parametrize("policy", list(Team.Policy))
@pytest.mark.parametrize(("gpus", "guarded"), [(2, []), (4, []), (5, []), (2, ["trust-remote-code"])])
def test_the_count_is_what_one_may_approve(
    team: Team, h100: Flavor, alice: User, ann: User, bob: User, carol: User, policy: str, gpus: int, guarded: list[str]
) -> None:
    team.policy = policy
    team.save()
    revision = make.make_deployment(team, ann, gpus=gpus).latest
    assert revision is not None
    if guarded:
        revision.pk, revision.number, revision.guarded = None, 2, guarded
        revision.save(force_insert=True)
        Deployment.objects.update(latest=revision)

    for person in (alice, ann, bob, carol):
        one = make.principal(person)
        rows = pending_for(one).select_related("deployment__team", "flavor")
        assert list(undecided(one)) == [row for row in rows if approvals.standing_of(one, row).approve], person


def test_who_wrote_an_undecided_part_is_not_asked(team: Team, h100: Flavor, ann: User, carol: User) -> None:
    make.join(carol, team)
    row = make.make_deployment(team, carol)
    make.add_revision(row, ann)

    assert row.latest is not None
    assert row.latest.author == ann
    assert list(undecided(make.principal(carol))) == []


def test_what_only_admins_decide_stands_apart(asked: Revision, alice: User) -> None:
    answer = signed_in(alice).get(reverse("approvals"))

    groups = {heading: len(cards) for heading, cards in answer.context["groups"]}
    assert groups == {"": 0, "An admin decides": 1, "You asked: somebody else decides": 0}
    assert answer.context["site"].frame.waiting == 0


def test_findings_are_dated_to_the_request(asked: Revision, carol: User) -> None:
    finding = {"severity": "warning", "message": "Only 1 is free now.", "remedy": ""}
    Revision.objects.filter(pk=asked.pk).update(findings=[finding])

    text = signed_in(carol).get(reverse("approvals")).content.decode()

    assert text.index("Checked at the time of the request") < text.index("Only 1 is free now.")
