"""Breaking the glass: an admin who is an author calls, a second admin signs, everybody reads why."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deployments.models import Approval, Deployment, Emergency, Event, Team, User
from deployments.services import approvals, emergencies, ledger, lifecycle
from deployments.services.errors import (
    ConflictError,
    InvalidError,
    MissingError,
    NotAllowedError,
    StaleError,
)
from tests.deployments import factories as make
from tests.deployments.test_approvals import ask, decide, revise

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hub")]

WHY = "Search is down and nobody else is awake"


@pytest.fixture
def erin() -> User:
    """The second admin."""
    return make.make_user("erin", admin=True)


@pytest.fixture
def wanted(carol: User, erin: User, team: Team) -> Deployment:
    """A request that both admins have written a part of: ordinarily neither may decide."""
    make.join(carol, team)
    make.join(erin, team)
    row = ask(carol, team)
    revise(erin, row, 2)
    row.refresh_from_db()
    return row


def call(user: User, row: Deployment, *, reason: str = WHY, digest: str = "") -> Emergency:
    assert row.latest is not None
    return emergencies.call(
        principal=make.principal(user), revision=row.latest, digest=digest or row.latest.digest, reason=reason
    )


def sign(user: User, emergency: Emergency, digest: str = "") -> Approval:
    return emergencies.sign(
        principal=make.principal(user), emergency_id=emergency.pk, digest=digest or emergency.digest
    )


def test_two_authors_who_are_admins_let_it_run(carol: User, erin: User, wanted: Deployment) -> None:
    for person in (carol, erin):
        with pytest.raises(NotAllowedError):
            decide(person, wanted)

    approval = sign(erin, call(carol, wanted))

    wanted.refresh_from_db()
    assert (approval.kind, approval.actor, approval.second, approval.comment) == ("emergency", carol, erin, WHY)
    assert wanted.approved == wanted.latest
    assert ledger.held_by(wanted) == 2
    assert Emergency.objects.get().approval == approval


def test_the_history_says_it_loudly(carol: User, erin: User, wanted: Deployment) -> None:
    sign(erin, call(carol, wanted))

    called = Event.objects.get(kind="emergency_called")
    signed = Event.objects.get(kind="approved")
    assert (called.level, signed.level) == ("bad", "bad")
    assert WHY in called.message
    assert signed.message.startswith("Revision 2 approved in an emergency by carol and erin")
    assert (signed.data["as"], signed.data["second"]) == ("emergency", erin.pk)


@pytest.mark.parametrize("reason", ["", "  ", "\n"])
def test_it_needs_a_reason(carol: User, wanted: Deployment, reason: str) -> None:
    with pytest.raises(InvalidError) as refused:
        call(carol, wanted, reason=reason)

    assert (refused.value.field, refused.value.code) == ("reason", "required")
    assert not Emergency.objects.exists()


def test_who_called_does_not_sign(carol: User, wanted: Deployment) -> None:
    emergency = call(carol, wanted)

    with pytest.raises(NotAllowedError, match="another admin"):
        sign(carol, emergency)


def test_only_an_admin_who_is_an_author_calls(team: Team, ann: User, alice: User, bob: User, carol: User) -> None:
    row = ask(ann, team)

    for person in (ann, alice, carol):  # a member, a lead, and an admin who may simply decide
        with pytest.raises(NotAllowedError):
            call(person, row)
    with pytest.raises(MissingError):
        call(bob, row)


def test_leads_and_strangers_sign_nothing(carol: User, alice: User, ann: User, bob: User, wanted: Deployment) -> None:
    emergency = call(carol, wanted)

    for person in (alice, ann, bob):
        with pytest.raises(MissingError):
            sign(person, emergency)
    with pytest.raises(MissingError):
        emergencies.sign(
            principal=make.principal(make.make_user(admin=True), "read", "write"),
            emergency_id=emergency.pk,
            digest=emergency.digest,
        )
    assert not Approval.objects.exists()


def test_it_lapses_after_an_hour(carol: User, erin: User, wanted: Deployment) -> None:
    emergency = call(carol, wanted)
    Emergency.objects.filter(pk=emergency.pk).update(expires_at=emergency.expires_at - emergencies.LASTS)

    with pytest.raises(StaleError, match="lapsed"):
        sign(erin, emergency)

    assert sign(erin, call(carol, wanted)).approved  # It can be called again.


def test_it_lasts_an_hour(carol: User, wanted: Deployment) -> None:
    emergency = call(carol, wanted)

    assert abs(emergency.expires_at - emergency.created_at - timedelta(hours=1)) < timedelta(seconds=30)


def test_one_call_at_a_time(carol: User, erin: User, wanted: Deployment) -> None:
    call(carol, wanted)

    for person in (carol, erin):
        with pytest.raises(ConflictError):
            call(person, wanted)


def test_it_is_bound_to_the_digest_it_was_called_for(carol: User, erin: User, wanted: Deployment) -> None:
    with pytest.raises(StaleError):
        call(carol, wanted, digest="0" * 64)
    emergency = call(carol, wanted)
    with pytest.raises(StaleError):
        sign(erin, emergency, "0" * 64)

    revise(carol, wanted, 3)

    with pytest.raises(StaleError):
        sign(erin, emergency)
    assert not Approval.objects.exists()


def test_a_caller_who_is_no_admin_any_more_lets_nothing_through(carol: User, erin: User, wanted: Deployment) -> None:
    emergency = call(carol, wanted)
    User.objects.filter(pk=carol.pk).update(is_platform_admin=False)

    with pytest.raises(StaleError, match="no admin any more"):
        sign(erin, emergency)


def test_a_demoted_admins_open_page_neither_calls_nor_signs(carol: User, erin: User, wanted: Deployment) -> None:
    emergency = call(carol, wanted)
    User.objects.filter(pk=erin.pk).update(is_platform_admin=False)

    with pytest.raises(NotAllowedError):
        sign(erin, emergency)  # As the request began: `erin` in memory is an admin still.
    assert not Approval.objects.exists()


def test_what_is_decided_or_deleted_is_not_signed(carol: User, erin: User, wanted: Deployment) -> None:
    emergency = call(carol, wanted)
    assert wanted.latest is not None
    approvals.decide(
        principal=make.principal(make.make_user(admin=True)),
        revision=wanted.latest,
        digest=wanted.latest.digest,
        approve=False,
        comment="No",
    )
    with pytest.raises(ConflictError):
        sign(erin, emergency)

    again = revise(carol, wanted, 1)
    wanted.refresh_from_db()
    emergency = call(carol, wanted)
    lifecycle.delete(principal=make.principal(carol), deployment=again.deployment)
    with pytest.raises((ConflictError, MissingError)):
        sign(erin, emergency)


def test_the_quota_holds_in_an_emergency_too(carol: User, erin: User, wanted: Deployment) -> None:
    wanted.team.grants.update(gpus=1)

    sign(erin, call(carol, wanted))

    wanted.refresh_from_db()
    assert (wanted.state, wanted.approved, ledger.held_by(wanted)) == ("AwaitingQuota", None, 0)
