"""The inbox as a page: both kinds, several at once, and history."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from deployments.models import (
    Approval,
    Deployment,
    Flavor,
    Membership,
    QuotaGrant,
    QuotaRequest,
    Revision,
    Team,
    User,
)
from deployments.services import approvals, ledger
from tests.deployments import factories as make
from tests.deployments.viewing import HTMX, add_node, flat, see_cluster, signed_in
from tests.deployments.viewing import inbox as page


@pytest.fixture
def asked(team: Team, ann: User, h100: Flavor) -> Revision:
    latest = make.make_deployment(team, ann, gpus=2).latest
    assert latest is not None
    return latest


@pytest.fixture
def quota(team: Team, alice: User, h100: Flavor) -> QuotaRequest:
    make.make_flavor("l4-24gb")
    return QuotaRequest.objects.create(team=team, flavor=h100, gpus=4, why="The launch", author=alice)


def grant(person: User, quota: QuotaRequest, *, htmx: bool = True, **wish: Any) -> Any:
    """Press a button on the card of a request for quota."""
    fields = {"verdict": "approve", "comment": "Yes", **wish}
    url = reverse("approvals-decide-quota", args=[quota.pk])
    return signed_in(person).post(url, fields, headers=HTMX if htmx else {})


def test_both_kinds_stand_in_one_list_with_the_oldest_first(asked: Revision, quota: QuotaRequest, carol: User) -> None:
    QuotaRequest.objects.filter(pk=quota.pk).update(created_at=asked.created_at - timedelta(hours=1))

    answer = signed_in(carol).get(reverse("approvals"))

    assert [card["key"] for card in answer.context["cards"]] == [f"q{quota.pk}", f"r{asked.pk}"]
    assert answer.context["site"].frame.waiting == 2


def test_a_card_says_why_somebody_is_asked(asked: Revision, team: Team, carol: User) -> None:
    Team.objects.update(ask_above=1, policy=Team.Policy.LEAD)

    text = page(carol)

    assert "It asks for 2 GPUs: for more than 1 an admin decides." in text
    assert 'data-ask="lead_policy"' in text


def test_teams_that_call_themselves_alike_are_told_apart(
    asked: Revision, quota: QuotaRequest, team: Team, carol: User
) -> None:
    """Leads choose what their team is called; who decides reads which team it is."""
    other = make.make_team("labs")
    make.make_grant(other, quota.flavor, 1)
    Team.objects.filter(pk=other.pk).update(name=team.name)

    text = page(carol)

    assert f"quota for {team.name} ({team.slug})" in text
    assert f"{team.name} ({team.slug})" in text.replace(f"quota for {team.name} ({team.slug})", "")
    assert f"{team.name} (labs)" in text


def test_a_lead_sees_that_quota_waits_for_an_admin(quota: QuotaRequest, alice: User) -> None:
    text = page(alice)

    assert "An admin decides about quota." in text
    assert reverse("approvals-decide-quota", args=[quota.pk]) not in text


def test_a_lead_reads_totals_and_nothing_of_other_teams(
    quota: QuotaRequest, h100: Flavor, alice: User, bob: User, carol: User
) -> None:
    labs = Team.objects.get(slug="labs")
    make.make_grant(labs, h100, 16, valid_until=timezone.now() + timedelta(days=90))
    row = make.make_deployment(labs, bob, name="secret", gpus=3, approved=True)
    assert row.latest is not None
    ledger.reserve(deployment=row, revision=row.latest, gpus=3)
    Deployment.objects.filter(pk=row.pk).update(wanted="stopped")

    led, ruled = page(alice), page(carol)

    assert "3 reserved of 16" in ruled
    assert "16 of Labs come back" in ruled
    assert "3 of labs/secret" in ruled
    assert "Labs" not in led
    assert "labs" not in led
    assert "secret" not in led
    for text in (led, ruled):
        assert '<dt>Granted to all teams then</dt><dd class="strong">24</dd>' in text


def test_an_admin_grants_it_whole(quota: QuotaRequest, carol: User) -> None:
    answer = grant(carol, quota)

    assert answer.status_code == 200
    quota.refresh_from_db()
    assert (quota.state, quota.granted.gpus, quota.comment) == ("granted", 4, "Yes")


@pytest.mark.parametrize(
    ("wish", "state", "granted"),
    [
        ({"gpus": "2"}, "partly", (2, "h100-80gb")),
        ({"flavor": "l4-24gb", "beyond": "on"}, "otherwise", (4, "l4-24gb")),
        ({"flavor": "l4-24gb", "gpus": "8", "beyond": "on"}, "otherwise", (8, "l4-24gb")),
        ({"gpus": "6", "beyond": "on"}, "otherwise", (6, "h100-80gb")),
        ({"valid_until": "2099-01-31"}, "otherwise", (4, "h100-80gb")),
    ],
)
def test_an_admin_grants_it_in_part_or_otherwise(
    quota: QuotaRequest, carol: User, wish: Any, state: str, granted: tuple[int, str]
) -> None:
    grant(carol, quota, **wish)

    quota.refresh_from_db()
    assert quota.granted is not None
    assert (quota.state, (quota.granted.gpus, quota.granted.flavor.slug)) == (state, granted)


def test_the_days_that_were_asked_for_stay_as_they_are(quota: QuotaRequest, carol: User) -> None:
    until = timezone.now() + timedelta(days=30)
    again = QuotaRequest.objects.create(
        team=quota.team, flavor=quota.flavor, gpus=1, why="x", author=quota.author, valid_until=until
    )

    grant(carol, again, valid_until=timezone.localtime(until).date().isoformat())

    again.refresh_from_db()
    assert again.granted is not None
    assert (again.state, again.granted.valid_until) == ("granted", until)


def test_dates_that_are_emptied_grant_it_from_now_without_an_end(quota: QuotaRequest, carol: User) -> None:
    dates = {"valid_from": timezone.now() + timedelta(days=9), "valid_until": timezone.now() + timedelta(days=30)}
    row = QuotaRequest.objects.create(
        team=quota.team, flavor=quota.flavor, gpus=1, why="x", author=quota.author, **dates
    )

    grant(carol, row, valid_from="", valid_until="", beyond="on")

    row.refresh_from_db()
    assert row.granted is not None
    assert (row.state, row.granted.valid_until) == ("otherwise", None)
    assert row.granted.valid_from <= timezone.now()


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"gpus": "many"}, "gpus"),
        ({"gpus": "5"}, "beyond"),
        ({"gpus": "٣"}, "gpus"),
        ({"flavor": "none"}, "flavor"),
        ({"valid_until": "2099-02-31"}, "valid_until"),
        ({"comment": ""}, "comment"),
    ],
)
@pytest.mark.parametrize("htmx", [True, False])
def test_what_cannot_be_granted_is_said_and_nothing_is_lost(
    quota: QuotaRequest, carol: User, wish: dict[str, str], field: str, *, htmx: bool
) -> None:
    answer = grant(carol, quota, htmx=htmx, **{"comment": "half a", **wish})

    text = flat(answer.content.decode())
    assert answer.status_code == 422
    assert ("<html" in text) is not htmx
    assert text.count('aria-invalid="true"') == 1
    if field != "comment":
        assert 'value="half a"' in text
    if "gpus" in wish:
        assert f'value="{wish["gpus"]}"' in text
    quota.refresh_from_db()
    assert quota.state == "pending"


def test_every_wrong_field_has_its_own_message_and_the_fold_stays_open(quota: QuotaRequest, carol: User) -> None:
    text = flat(grant(carol, quota, gpus="many", valid_until="2099-02-31", comment="").content.decode())

    assert text.count('aria-invalid="true"') == 3
    for field, words in (("g", "A whole number from 1."), ("u", "There is no such day."), ("", "Say why")):
        at = text.index(f'id="e{field}q{quota.pk}"')
        assert words in text[at : at + 900]
    assert '<details class="more" open>' in text


def test_more_than_was_asked_for_needs_a_tick_that_nobody_sets_by_accident(quota: QuotaRequest, carol: User) -> None:
    text = flat(grant(carol, quota, gpus="40").content.decode())

    at = text.index(f'id="ebq{quota.pk}"')
    assert "This grants 40 GPUs where 4 were asked for. Say that it is meant." in text[at : at + 900]
    box = text[text.index(f'id="bq{quota.pk}"') : at]
    assert 'name="beyond"' in box
    assert "checked" not in box
    assert '<details class="more" open>' in text
    assert not QuotaGrant.objects.filter(gpus=40).exists()


def test_what_was_typed_otherwise_stays_in_sight_when_only_the_comment_is_missing(
    quota: QuotaRequest, carol: User
) -> None:
    same = {"gpus": "4", "flavor": "h100-80gb", "valid_from": "", "valid_until": ""}
    assert '<details class="more" open>' not in flat(grant(carol, quota, comment="", **same).content.decode())
    other = same | {"gpus": "2"}
    assert '<details class="more" open>' in flat(grant(carol, quota, comment="", **other).content.decode())


def test_while_the_cluster_is_away_free_gpus_are_dated(quota: QuotaRequest, h100: Flavor, carol: User) -> None:
    add_node()
    assert "Free on the cluster now</dt><dd>4 of 4</dd>" in page(carol)

    see_cluster(seen_at=timezone.now() - timedelta(hours=3))
    text = page(carol)

    assert 'Free on the cluster</dt><dd class="muted">4 of 4, <time' in text
    assert "What stands here of the cluster was seen" in text


def test_denying_needs_a_comment_and_grants_nothing(quota: QuotaRequest, carol: User) -> None:
    assert grant(carol, quota, verdict="reject", comment="").status_code == 422
    grant(carol, quota, verdict="reject", comment="Not now")

    quota.refresh_from_db()
    assert (quota.state, quota.granted, quota.comment) == ("denied", None, "Not now")


def test_strangers_and_leads_decide_about_no_quota(quota: QuotaRequest, alice: User, bob: User) -> None:
    assert grant(bob, quota).status_code == 404
    assert "Only an admin decides about quota." in grant(alice, quota).content.decode()
    quota.refresh_from_db()
    assert quota.state == "pending"


# Several at once


def select(person: User, *things: Any, verdict: str = "approve", comment: str = "All of them") -> Any:
    items = [f"q{one.pk}" if isinstance(one, QuotaRequest) else f"r{one.pk}:{one.digest}" for one in things]
    wish = {"item": items, "verdict": verdict, "comment": comment}
    return signed_in(person).post(reverse("approvals-decide-all"), wish)


def test_several_are_decided_with_one_comment(
    asked: Revision, quota: QuotaRequest, team: Team, ann: User, carol: User
) -> None:
    second = make.make_deployment(team, ann, name="second").latest

    answer = select(carol, asked, second, quota)

    assert [result.outcome for result in answer.context["results"]] == ["decided"] * 3
    assert {approval.comment for approval in Approval.objects.all()} == {"All of them"}
    quota.refresh_from_db()
    assert quota.state == "granted"
    assert answer.context["cards"] == []


def test_each_has_a_result_of_its_own(asked: Revision, team: Team, ann: User, carol: User) -> None:
    row = make.make_deployment(team, ann, name="edited")
    shown = row.latest
    make.add_revision(row, ann)
    make.join(carol, team)
    own = make.make_deployment(team, carol, name="own").latest

    answer = select(carol, asked, shown, own)

    text = flat(answer.content.decode())
    assert [result.outcome for result in answer.context["results"]] == ["decided", "stale", "not_allowed"]
    assert "changed since" in text
    assert "not allowed" in text
    assert 'value="All of them"' in text or answer.context["mine"] < 2
    assert [approval.revision for approval in Approval.objects.all()] == [asked]


@pytest.mark.parametrize("verdict", ["approve", "reject"])
def test_a_missing_comment_is_said_before_anything_is_decided(
    asked: Revision, quota: QuotaRequest, team: Team, ann: User, carol: User, verdict: str
) -> None:
    answer = select(carol, asked, quota, verdict=verdict, comment=" ")

    assert answer.status_code == 422
    assert "everything rejected needs a comment, and so does quota" in flat(answer.content.decode())
    assert answer.context["chosen"] == {f"r{asked.pk}", f"q{quota.pk}"}
    assert not Approval.objects.exists()
    quota.refresh_from_db()
    assert quota.state == "pending"


def test_what_is_approved_without_quota_says_its_place_in_line(
    team: Team, ann: User, h100: Flavor, carol: User
) -> None:
    rows = [make.make_deployment(team, ann, name=name, gpus=3).latest for name in ("first", "second", "third")]
    first, second, third = (row for row in rows if row is not None)
    wish = {"verdict": "approve", "comment": ""}

    def press(row: Revision) -> str:
        url = reverse("approvals-decide", args=[row.pk])
        return flat(signed_in(carol).post(url, wish | {"digest": row.digest}, headers=HTMX).content.decode())

    assert "is approved." in press(first)
    text = press(second)
    assert "is approved, number 1 of 1 in line for H100-80GB." in text
    assert 'class="state t-purple' in text
    result = select(carol, third).context["results"][0]
    assert (result.outcome, result.message) == ("decided", "number 2 of 2 in line for H100-80GB")


def test_what_was_granted_is_said_where_it_differs(quota: QuotaRequest, carol: User, alice: User) -> None:
    text = flat(grant(carol, quota, gpus="2", valid_until="2099-01-31").content.decode())
    words = "4 × H100-80GB → 2 × H100-80GB, until 31 Jan 2099 (asked without an end)"
    assert f"is granted, {words}." in text
    assert words in flat(signed_in(alice).get(reverse("quotas"), {"show": "requests"}).content.decode())
    assert "until 31 Jan 2099" in page(carol, show="history")


def test_nothing_selected_is_said(asked: Revision, carol: User) -> None:
    answer = select(carol)

    assert answer.status_code == 422
    assert "Choose at least one." in answer.content.decode()


@pytest.mark.parametrize("text", ["", "r", "rx:1", "z3", "r١", "q" + "9" * 30, "\x00"])
def test_boxes_that_no_page_has_are_ignored(asked: Revision, carol: User, text: str) -> None:
    answer = signed_in(carol).post(reverse("approvals-decide-all"), {"item": [text], "verdict": "approve"})

    assert answer.status_code == 422
    assert not Approval.objects.exists()


def test_strangers_decide_nothing_at_once(asked: Revision, quota: QuotaRequest, bob: User) -> None:
    answer = select(bob, asked, quota)

    assert [result.outcome for result in answer.context["results"]] == ["not_found", "not_found"]
    assert "chat" not in flat(answer.content.decode()).split("<main")[1]


# Open pages of those who may not decide any more


def test_an_ex_leads_open_page_decides_nothing(asked: Revision, team: Team, alice: User) -> None:
    Team.objects.update(policy=Team.Policy.LEAD)
    client = signed_in(alice)
    assert 'value="approve"' in client.get(reverse("approvals")).content.decode()
    wish = {"digest": asked.digest, "verdict": "approve", "comment": ""}

    Membership.objects.filter(user=alice).update(role=Membership.Role.MEMBER)
    refused = client.post(reverse("approvals-decide", args=[asked.pk]), wish, headers=HTMX)
    assert refused.status_code == 422
    Membership.objects.filter(user=alice).delete()
    assert client.post(reverse("approvals-decide", args=[asked.pk]), wish, headers=HTMX).status_code == 404

    assert not Approval.objects.exists()


def test_a_demoted_admins_open_page_decides_nothing(asked: Revision, quota: QuotaRequest, carol: User) -> None:
    client = signed_in(carol)
    assert 'value="approve"' in client.get(reverse("approvals")).content.decode()
    User.objects.filter(pk=carol.pk).update(is_platform_admin=False)

    wish = {"digest": asked.digest, "verdict": "approve", "comment": "x"}
    assert client.post(reverse("approvals-decide", args=[asked.pk]), wish, headers=HTMX).status_code == 404
    assert client.post(reverse("approvals-decide-quota", args=[quota.pk]), wish, headers=HTMX).status_code == 404
    client.post(reverse("approvals-decide-all"), {"item": [f"r{asked.pk}:{asked.digest}"], "verdict": "approve"})

    assert not Approval.objects.exists()


def test_an_admin_demoted_while_the_request_runs_decides_nothing(asked: Revision, carol: User) -> None:
    from deployments.services.errors import NotAllowedError

    principal = make.principal(carol)  # What the request knew when it began.
    User.objects.filter(pk=carol.pk).update(is_platform_admin=False)

    with pytest.raises(NotAllowedError):
        approvals.decide(principal=principal, revision=asked, digest=asked.digest, approve=True)


def test_enter_in_a_field_decides_nothing(asked: Revision, quota: QuotaRequest, carol: User) -> None:
    """Browsers press the first button of a form at Enter: whoever types why they reject must not approve by it."""
    text = page(carol)

    decides = [form for form in text.split("<form")[1:] if 'value="approve"' in form.split("</form>")[0]]
    assert len(decides) == 3  # two cards, and everything selected
    for form in decides:
        assert form[form.index("<button") :].startswith('<button type="submit" disabled hidden>')


# History


@pytest.fixture
def decided(asked: Revision, quota: QuotaRequest, team: Team, ann: User, carol: User) -> None:
    approvals.decide(
        principal=make.principal(carol), revision=asked, digest=asked.digest, approve=True, comment="Fine by me"
    )
    other = make.make_deployment(team, ann, name="summary").latest
    assert other is not None
    approvals.decide(
        principal=make.principal(carol), revision=other, digest=other.digest, approve=False, comment="Too big"
    )
    grant(carol, quota, gpus="2", comment="Half for now")


def found(person: User, **params: Any) -> list[str]:
    answer = signed_in(person).get(reverse("approvals"), {"show": "history", **params})
    return [row.comment for _, row in answer.context["rows"]]


@pytest.mark.usefixtures("decided")
def test_the_history_is_searched_and_filtered(alice: User, bob: User, carol: User) -> None:
    assert found(carol) == ["Half for now", "Too big", "Fine by me"]
    assert found(alice) == found(carol)
    assert found(bob) == []
    assert found(carol, q="summary") == ["Too big"]
    assert found(carol, q="FINE me") == ["Fine by me"]
    assert found(carol, q="launch") == ["Half for now"]
    assert found(carol, verdict="rejected") == ["Too big"]
    assert found(carol, verdict="approved") == ["Half for now", "Fine by me"]
    assert found(carol, kind="quota") == ["Half for now"]
    assert found(carol, kind="deployment", verdict="approved", q="carol") == ["Fine by me"]
    assert "asked for 4 × H100-80GB" in page(carol, show="history")
    assert "Nothing like that was decided" in page(carol, show="history", q="nonsense")


def test_an_empty_history_teaches(carol: User) -> None:
    assert "nobody can change them" in page(carol, show="history")


def test_the_history_goes_on_over_pages(team: Team, ann: User, h100: Flavor, carol: User) -> None:
    for number in range(35):
        latest = make.make_deployment(team, ann, name=f"chat-{number}").latest
        assert latest is not None
        make.approve(latest)
    client, seen, after = signed_in(carol), [], ""
    for _ in range(2):
        answer = client.get(reverse("approvals"), {"show": "history", "after": after})
        seen += [row.revision.deployment.name for _, row in answer.context["rows"]]
        after = answer.context["page"].after

    assert seen == [f"chat-{number}" for number in reversed(range(35))]
    assert after == ""


# How much it costs


@pytest.mark.parametrize("show", ["", "history"])
def test_a_page_costs_the_same_queries_for_one_as_for_many(
    team: Team, ann: User, alice: User, h100: Flavor, carol: User, show: str
) -> None:
    def add(number: int) -> None:
        for index in range(number):
            row = make.make_deployment(team, ann, name=f"chat-{number}-{index}")
            QuotaRequest.objects.create(team=team, flavor=h100, gpus=1, why="x", author=alice)
            if show:
                assert row.latest is not None
                make.approve(row.latest)

    def cost() -> int:
        client = signed_in(carol)
        with CaptureQueriesContext(connection) as seen:
            client.get(reverse("approvals"), {"show": show})
        return len(seen)

    add(1)
    few = cost()
    add(12)

    assert cost() == few


def test_the_page_of_a_deployment_still_leads_to_its_card(asked: Revision, carol: User) -> None:
    assert f'id="r{asked.pk}"' in page(carol)
    row = Deployment.objects.get()
    detail = signed_in(carol).get(reverse("deployment-detail", args=[row.pk])).content.decode()
    assert f"#r{asked.pk}" in detail
