"""Leads ask for quota, admins decide, and nobody decides about their own request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.utils import timezone

from deployments.models import Event, Flavor, QuotaGrant, QuotaRequest, Team, User
from deployments.services import ledger, quota_requests
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError
from tests.deployments import factories as make
from tests.deployments.viewing import add_node

pytestmark = pytest.mark.django_db

State = QuotaRequest.State


@pytest.fixture
def asked(team: Team, h100: Flavor, alice: User) -> QuotaRequest:
    """A request of Alice for four more H100s."""
    return ask(alice, team, h100)


def ask(user: User, team: Team, flavor: Flavor, gpus: int = 4, **fields: object) -> QuotaRequest:
    words = {"why": "The spring fair", **fields}
    return quota_requests.ask(principal=make.principal(user), team=team, flavor=flavor, gpus=gpus, **words)  # type: ignore[arg-type]


def decide(user: User, row: QuotaRequest, *, grant: bool = True, **fields: object) -> QuotaRequest:
    words = {"comment": "For the fair", **fields}
    return quota_requests.decide(principal=make.principal(user), request_id=row.pk, grant=grant, **words)  # type: ignore[arg-type]


def test_leads_alone_ask(team: Team, h100: Flavor, alice: User, ann: User, bob: User, carol: User) -> None:
    row = ask(alice, team, h100)
    assert (row.state, row.gpus, row.why, row.author) == (State.PENDING, 4, "The spring fair", alice)
    assert Event.objects.get(kind="quota_asked").data["after"] == {"gpus": 4, "from": None, "until": None}
    for member in (ann, carol):
        with pytest.raises(NotAllowedError):
            ask(member, team, h100)
    with pytest.raises(MissingError):
        ask(bob, team, h100)
    with pytest.raises(NotAllowedError):
        quota_requests.ask(principal=make.principal(alice, "read"), team=team, flavor=h100, gpus=1, why="x")


def test_a_team_has_at_most_three_requests_for_a_flavor_waiting(team: Team, h100: Flavor, alice: User) -> None:
    first = ask(alice, team, h100, 1)
    ask(alice, team, h100, 2)
    ask(alice, team, h100, 3)
    with pytest.raises(ConflictError) as refused:
        ask(alice, team, h100, 4)
    assert refused.value.field == "flavor"
    ask(alice, team, make.make_flavor("l4-24gb"))
    quota_requests.withdraw(principal=make.principal(alice), request_id=first.pk)
    ask(alice, team, h100)


@pytest.mark.parametrize("gpus", [0, -1, True, 10**9, "4", 1.5, None])
def test_odd_numbers_are_refused_at_their_field(team: Team, h100: Flavor, alice: User, gpus: object) -> None:
    with pytest.raises(InvalidError) as refused:
        ask(alice, team, h100, gpus=gpus)  # type: ignore[arg-type]
    assert refused.value.field == "gpus"


def test_dates_and_reasons_are_checked(team: Team, h100: Flavor, alice: User) -> None:
    now = timezone.now()
    for field, values in (
        ("valid_from", {"valid_from": now - timedelta(days=1)}),
        ("valid_until", {"valid_until": now - timedelta(days=1)}),
        ("valid_until", {"valid_from": now + timedelta(days=5), "valid_until": now + timedelta(days=4)}),
        ("valid_from", {"valid_from": datetime(9999, 12, 31, tzinfo=UTC)}),
        ("valid_until", {"valid_until": datetime(9999, 12, 31, tzinfo=UTC)}),
        ("why", {"why": "  "}),
        ("why", {"why": "x" * 501}),
    ):
        with pytest.raises(InvalidError) as refused:
            ask(alice, team, h100, **values)
        assert refused.value.field == field
    h100.active = False
    h100.save()
    with pytest.raises(InvalidError) as refused:
        ask(alice, team, h100)
    assert refused.value.field == "flavor"
    assert not QuotaRequest.objects.exists()


def test_an_admin_grants_the_whole_of_it(asked: QuotaRequest, team: Team, h100: Flavor, carol: User) -> None:
    row = decide(carol, asked)
    assert (row.state, row.decided_by, row.comment) == (State.GRANTED, carol, "For the fair")
    assert row.granted is not None
    assert (row.granted.gpus, row.granted.flavor, row.granted.valid_until) == (4, h100, None)
    assert ledger.usage_in(team=team, flavor=h100).limit == 8
    told = Event.objects.get(kind="quota_request_granted")
    assert (told.data["before"], told.data["after"]) == ({"state": "pending"}, {"state": "granted"})


def test_an_admin_grants_fewer_another_flavor_or_another_date(
    team: Team, h100: Flavor, alice: User, carol: User
) -> None:
    l4 = make.make_flavor("l4-24gb")
    end = timezone.now() + timedelta(days=30)
    fewer = decide(carol, ask(alice, team, h100), gpus=1)
    other = decide(carol, ask(alice, team, h100), flavor=l4, gpus=6, beyond=True)
    ends = decide(carol, ask(alice, team, h100), valid_until=end)
    later = decide(carol, ask(alice, team, h100), valid_from=end)
    states = [row.state for row in (fewer, other, ends, later)]
    assert states == [State.PARTLY, State.OTHERWISE, State.OTHERWISE, State.OTHERWISE]
    granted = [QuotaGrant.objects.get(request=row) for row in (fewer, other, ends, later)]
    assert [(row.flavor, row.gpus, row.valid_until) for row in granted[:3]] == [
        (h100, 1, None),
        (l4, 6, None),
        (h100, 4, end),
    ]
    assert granted[3].valid_from == end
    assert ledger.usage_in(team=team, flavor=h100).limit == 4 + 1 + 4, "what begins later does not count yet"


@pytest.mark.parametrize(
    ("slip", "words"),
    [
        ({"gpus": 5}, "5 GPUs where 4 were asked for"),
        ({"flavor": "l4-24gb"}, "L4-24GB where H100-80GB was asked for"),
        ({"flavor": "l4-24gb", "gpus": 40}, "40 GPUs where 4 were asked for and L4-24GB where H100-80GB was asked for"),
        ({"valid_until": None}, "no end where one was asked for"),
        ({"valid_until": timedelta(days=91)}, "an end later than was asked for"),
    ],
)
def test_more_than_was_asked_for_is_granted_only_by_whoever_says_so(
    team: Team, h100: Flavor, alice: User, carol: User, slip: dict[str, Any], words: str
) -> None:
    now, offered = timezone.now(), {"l4-24gb": make.make_flavor("l4-24gb")}
    wish = {
        name: offered.get(str(value), now + value if isinstance(value, timedelta) else value)
        for name, value in slip.items()
    }
    asked = ask(alice, team, h100, valid_until=now + timedelta(days=90))
    with pytest.raises(InvalidError) as refused:
        decide(carol, asked, **wish)
    assert (refused.value.field, refused.value.code) == ("beyond", "not_confirmed")
    assert words in refused.value.message
    asked.refresh_from_db()
    assert asked.state == State.PENDING
    assert QuotaGrant.objects.count() == 1


def test_a_denial_grants_nothing(asked: QuotaRequest, carol: User) -> None:
    assert decide(carol, asked, grant=False).state == State.DENIED
    assert QuotaGrant.objects.count() == 1
    with pytest.raises(ConflictError):
        decide(carol, asked)


@pytest.mark.parametrize("grant", [True, False])
def test_a_decision_needs_a_comment(asked: QuotaRequest, carol: User, grant: bool) -> None:
    with pytest.raises(InvalidError) as refused:
        decide(carol, asked, grant=grant, comment=" ")
    assert refused.value.field == "comment"


def test_nobody_decides_about_their_own_and_leads_not_at_all(
    asked: QuotaRequest, team: Team, h100: Flavor, alice: User, bob: User, carol: User
) -> None:
    make.join(carol, team, lead=True)
    own = ask(carol, team, h100)
    with pytest.raises(NotAllowedError, match="another admin"):
        decide(carol, own)
    with pytest.raises(NotAllowedError):
        decide(alice, asked)
    with pytest.raises(MissingError):
        decide(bob, asked)
    with pytest.raises(NotAllowedError):
        quota_requests.decide(
            principal=make.principal(carol, "read", "write"), request_id=asked.pk, grant=True, comment="x"
        )
    assert QuotaGrant.objects.count() == 1


def test_the_database_too_refuses_the_author(asked: QuotaRequest, alice: User) -> None:
    with pytest.raises(DatabaseError, match="second_person"), transaction.atomic():
        QuotaRequest.objects.filter(pk=asked.pk).update(state=State.DENIED, decided_by=alice, comment="x")


def test_a_request_is_withdrawn_by_leads_before_it_is_decided(
    asked: QuotaRequest, team: Team, ann: User, bob: User, carol: User
) -> None:
    for who, error in ((bob, MissingError), (ann, NotAllowedError), (carol, NotAllowedError)):
        with pytest.raises(error):
            quota_requests.withdraw(principal=make.principal(who), request_id=asked.pk)
    other = make.make_user("other", team=team, lead=True)
    assert quota_requests.withdraw(principal=make.principal(other), request_id=asked.pk).state == State.WITHDRAWN
    with pytest.raises(ConflictError):
        decide(carol, asked)


def test_a_grant_serves_who_waits(
    asked: QuotaRequest, team: Team, h100: Flavor, ann: User, carol: User, django_capture_on_commit_callbacks: object
) -> None:
    row = make.make_deployment(team, ann, flavor=h100, gpus=6)
    assert row.latest is not None
    make.approve(row.latest, current=False)
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        decide(carol, asked)
    row.refresh_from_db()
    assert row.approved_id == row.latest_id
    assert ledger.held_by(row) == 6


def test_the_context_says_what_there_is_who_has_it_and_what_comes_back(
    asked: QuotaRequest, team: Team, h100: Flavor, ann: User, django_assert_max_num_queries: object
) -> None:
    labs = make.make_team("labs")
    soon = make.make_grant(labs, h100, 2, valid_until=timezone.now() + timedelta(days=3))
    add_node(gpus=8, holders=[{"namespace": "x", "pod": "x", "gpus": 3, "deployment": None}])
    stopped = make.make_deployment(team, ann, gpus=3, approved=True)
    ledger.reserve(deployment=stopped, revision=stopped.latest, gpus=3)  # type: ignore[arg-type]
    type(stopped).objects.filter(pk=stopped.pk).update(wanted="stopped")
    others = [asked, ask(asked.author, team, make.make_flavor("l4-24gb"))]

    with django_assert_max_num_queries(5):  # type: ignore[operator]
        seen = quota_requests.contexts_of(others)[asked.pk]

    assert (seen.capacity.total, seen.capacity.in_use, seen.capacity.free, seen.capacity.block) == (8, 3, 5, 5)
    assert (seen.capacity.granted, seen.capacity.reserved) == (6, 3)
    assert [(share.team, share.granted, share.reserved, share.until) for share in seen.shares] == [
        (labs, 2, 0, soon.valid_until),
        (team, 4, 3, None),
    ]
    assert list(seen.ends) == [soon]
    assert [hold.deployment for hold in seen.releases] == [stopped]
    assert (seen.granted_after, seen.beyond) == (10, 2)
    assert quota_requests.context_of(asked) == seen
