"""Who approves: the reasons to ask, one by one, and admins who set them."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.models import Event, Flavor, Team, User
from deployments.services import approvals, asks, policies, requests
from deployments.services.errors import InvalidError, MissingError, NotAllowedError
from deployments.services.inbox import undecided
from tests.deployments import factories as make
from tests.deployments.test_approvals import GUARDED, ask, decide

pytestmark = pytest.mark.django_db

Policy = Team.Policy


def codes(team: Team, **values: Any) -> list[str]:
    known: dict[str, Any] = {"gpus": 2, "guarded": [], "within": True, **values}
    return [ask.code for ask in asks.reasons(team, **known)]


@pytest.mark.parametrize(
    ("policy", "above", "values", "found"),
    [
        (Policy.AUTO, None, {}, []),
        (Policy.AUTO, 2, {}, []),
        (Policy.AUTO, 1, {}, ["ask_above"]),
        (Policy.AUTO, 0, {"gpus": 1}, ["ask_above"]),
        (Policy.AUTO, None, {"within": False}, ["over_quota"]),
        (Policy.AUTO, None, {"guarded": ["trust-remote-code"]}, ["guarded"]),
        (Policy.LEAD, None, {}, ["lead_policy"]),
        (Policy.LEAD, 1, {}, ["lead_policy", "ask_above"]),
        (Policy.ASK, 1, {"within": False, "guarded": ["x"]}, ["team_policy", "ask_above", "guarded", "over_quota"]),
    ],
)
def test_each_reason_to_ask_is_named(
    team: Team, policy: str, above: int | None, values: dict[str, Any], found: list[str]
) -> None:
    team.policy, team.ask_above = policy, above

    assert codes(team, **values) == found


def test_a_reason_says_the_numbers(team: Team) -> None:
    team.policy, team.ask_above = Policy.AUTO, 4

    (only,) = asks.reasons(team, gpus=6, guarded=[], within=True)

    assert only.message == "It asks for 6 GPUs: for more than 4 an admin decides."


@pytest.mark.usefixtures("hub")
def test_small_requests_pass_and_large_ones_are_asked_for(team: Team, ann: User, alice: User, carol: User) -> None:
    Team.objects.update(policy=Policy.AUTO, ask_above=1)

    small, large = ask(ann, team, "small", 1), ask(ann, team, "large", 2)

    assert (small.approved is not None, large.approved is not None) == (True, False)
    assert large.latest is not None
    with pytest.raises(NotAllowedError, match="for more than 1 an admin decides"):
        decide(alice, large)
    assert [list(undecided(make.principal(who))) for who in (alice, carol)] == [[], [large.latest]]
    assert decide(carol, large).kind == "admin"


@pytest.mark.usefixtures("hub")
def test_the_form_is_told_all_reasons(team: Team, ann: User) -> None:
    Team.objects.update(policy=Policy.LEAD, ask_above=1)
    team.refresh_from_db()

    spec = make.a_spec(replicas={"min": 2, "max": 2}, engine=GUARDED)
    result = requests.preflight(principal=make.principal(ann), team=team, name="chat", spec=spec)

    assert [(one.code, one.who) for one in result.asks] == [
        ("lead_policy", "lead"),
        ("ask_above", "admin"),
        ("guarded", "admin"),
    ]
    assert result.approval == "An admin approves: the request uses guarded options."


def test_an_admin_sets_it_and_the_audit_tells_before_and_after(team: Team, carol: User) -> None:
    policies.set_policy(
        principal=make.principal(carol), team=team, policy="lead", ask_above=8, at_expiry=Team.AtExpiry.STOP
    )

    team.refresh_from_db()
    assert (team.policy, team.ask_above, team.at_expiry) == ("lead", 8, "stop")
    event = Event.objects.get(kind="team_policy")
    assert event.actor == carol
    assert event.data == {
        "before": {"policy": "ask", "ask_above": None, "at_expiry": "keep"},
        "after": {"policy": "lead", "ask_above": 8, "at_expiry": "stop"},
    }


def test_what_is_not_named_stays_and_nothing_is_an_event(team: Team, carol: User) -> None:
    Team.objects.update(ask_above=3)
    one = make.principal(carol)

    assert policies.set_policy(principal=one, team=team, policy="ask").ask_above == 3
    assert not Event.objects.exists()
    assert policies.set_policy(principal=one, team=team, ask_above=None).ask_above is None


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"policy": "maybe"}, "policy"),
        ({"policy": 3}, "policy"),
        ({"at_expiry": "explode"}, "at_expiry"),
        ({"ask_above": -1}, "ask_above"),
        ({"ask_above": True}, "ask_above"),
        ({"ask_above": 1.5}, "ask_above"),
        ({"ask_above": 10**9}, "ask_above"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(team: Team, carol: User, values: Any, field: str) -> None:
    with pytest.raises(InvalidError) as refused:
        policies.set_policy(principal=make.principal(carol), team=team, **values)

    assert refused.value.field == field


def test_only_an_admin_whose_token_reaches_the_team_sets_it(team: Team, alice: User, bob: User, carol: User) -> None:
    for person in (alice, bob):
        with pytest.raises(NotAllowedError):
            policies.set_policy(principal=make.principal(person), team=team, policy="auto")
    with pytest.raises(NotAllowedError):
        policies.set_policy(principal=make.principal(carol, "read", "write"), team=team, policy="auto")
    bound = make.Principal(user=carol, team_ids=frozenset())
    with pytest.raises(MissingError):
        policies.set_policy(principal=bound, team=team, policy="auto")
    team.refresh_from_db()
    assert team.policy == "ask"


@pytest.mark.usefixtures("hub")
def test_a_new_policy_counts_for_who_decides_about_what_waits(
    team: Team, h100: Flavor, ann: User, alice: User, carol: User
) -> None:
    row = ask(ann, team)
    assert row.latest is not None
    assert not approvals.standing_of(make.principal(alice), row.latest).approve

    policies.set_policy(principal=make.principal(carol), team=team, policy="lead")

    row.refresh_from_db()
    assert decide(alice, row).kind == "lead"
