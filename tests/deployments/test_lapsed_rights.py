"""A right that groups gave lapses without single sign-on: with it ends the word that was given by it, and the news."""

from __future__ import annotations

import pytest
from django.utils import timezone

from deployments.models import Deployment, Flavor, Membership, Notification, Reservation, Revision, Team, User
from deployments.services import authority, emergencies, inbox, lifecycle, waiting
from deployments.services.errors import StaleError
from tests.deployments import factories as make
from tests.deployments.test_approvals import ask, decide, policy
from tests.deployments.viewing import flat, signed_in

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hub")]


def by_group(user: User, *, fresh: bool) -> None:
    """What this person may, groups gave; `fresh`: a single sign-on said so just now."""
    User.objects.filter(pk=user.pk).update(
        admin_by_group=user.is_platform_admin, single_sign_on_at=timezone.now() if fresh else None
    )
    Membership.objects.filter(user=user).update(by_group=True)
    user.refresh_from_db()


@pytest.fixture
def waits(hub: list[str], team: Team, h100: Flavor, ann: User) -> Deployment:
    """More than the team's eight GPUs: approved, it waits for quota."""
    return ask(ann, team, gpus=9)


def waits_as(row: Deployment) -> str:
    row.refresh_from_db()
    return row.state


def test_what_an_admin_approved_waits_anew_when_their_right_has_lapsed(
    waits: Deployment, team: Team, h100: Flavor, carol: User
) -> None:
    by_group(carol, fresh=True)
    word = decide(carol, waits)
    assert authority.stands(word, team.pk)
    assert waits_as(waits) == "AwaitingQuota"

    by_group(carol, fresh=False)
    assert not authority.stands(word, team.pk)
    make.make_grant(team, h100, 8)
    waiting.wake(waits.team.accounts.get().pk)

    waits.refresh_from_db()
    assert waits.latest is not None
    assert (waits.state, waits.latest.verdict) == ("AwaitingApproval", Revision.Verdict.PENDING)
    assert not Reservation.objects.exists()


def test_a_leads_word_lapses_too(hub: list[str], team: Team, h100: Flavor, ann: User, alice: User) -> None:
    policy(team, Team.Policy.LEAD)
    row = ask(ann, team)
    by_group(alice, fresh=True)
    word = decide(alice, row)
    assert authority.stands(word, team.pk)

    by_group(alice, fresh=False)

    assert not authority.stands(word, team.pk)


@pytest.fixture
def called(hub: list[str], team: Team, h100: Flavor, carol: User) -> Deployment:
    """An emergency that carol called for what she asked for herself."""
    make.join(carol, team)
    row = ask(carol, team)
    by_group(carol, fresh=True)
    assert row.latest is not None
    emergencies.call(principal=make.principal(carol), revision=row.latest, digest=row.latest.digest, reason="Fire.")
    return row


def test_an_emergency_lapses_with_the_right_of_who_called_it(called: Deployment, carol: User) -> None:
    erin = make.make_user("erin", admin=True)
    (row,) = emergencies.live()

    by_group(carol, fresh=False)

    assert not emergencies.live().exists()
    with pytest.raises(StaleError, match="lapsed"):
        emergencies.sign(principal=make.principal(erin), emergency_id=row.pk, digest=row.digest)
    by_group(carol, fresh=True)
    assert emergencies.live().get() == row


def test_who_rules_no_more_is_neither_named_nor_told(
    team: Team, h100: Flavor, ann: User, bob: User, carol: User, alice: User
) -> None:
    by_group(carol, fresh=False)
    by_group(alice, fresh=False)

    row = ask(ann, team)

    assert not Notification.objects.filter(user__in=[carol, alice]).exists()
    page = flat(signed_in(ann).get("/quotas/").content.decode())
    assert "carol" not in page
    assert "alice" not in page
    by_group(carol, fresh=True)
    decide(carol, row)
    lifecycle.stop(principal=make.principal(ann), deployment=row)
    assert inbox.undecided(make.principal(carol)).count() == 0
