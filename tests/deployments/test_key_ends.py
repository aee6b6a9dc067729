"""Keys that end soon: their people are told on the days before, once each, and the list shows what to rotate."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from deployments.models import EndpointKey, Event, Notification, Team, User
from deployments.services import endpoint_keys, key_ends
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in

pytestmark = pytest.mark.django_db


def key(team: Team, user: User, *, left: timedelta, lived: timedelta = timedelta(days=90), **own: bool) -> EndpointKey:
    """A key that ends after `left`, and was made `lived` before that."""
    made, _ = endpoint_keys.create(
        principal=make.principal(user),
        team=team,
        name=f"for {left.days} days, {make.a_name()}",
        every_deployment=True,
        days=90,
        **own,
    )
    ends = timezone.now() + left
    EndpointKey.objects.filter(pk=made.pk).update(expires_at=ends, created_at=ends - lived)
    return made


def days(key: EndpointKey) -> list[int]:
    rows = Event.objects.filter(kind="key_ends_soon", data__key=key.pk).order_by("pk")
    return [event.data["days"] for event in rows]


def at(key: EndpointKey, left: timedelta) -> None:
    ends = timezone.now() + left
    EndpointKey.objects.filter(pk=key.pk).update(expires_at=ends, created_at=ends - timedelta(days=90))


def test_a_key_is_told_of_two_weeks_one_week_and_one_day_before(team: Team, alice: User, ann: User) -> None:
    row = key(team, alice, left=timedelta(days=15))
    assert key_ends.warn() == 0
    for left in (13, 10, 6, 2, 0.5):
        at(row, timedelta(days=left))
        key_ends.warn()
        assert key_ends.warn() == 0, "once"

    assert days(row) == [14, 7, 1]
    notices = Notification.objects.filter(event__kind="key_ends_soon")
    assert {notice.user for notice in notices} == {alice}, "a team's key is its leads' to rotate"
    assert notices[0].link == "/keys/?team=search"


def test_a_personal_key_is_told_to_whose_it_is(team: Team, alice: User, ann: User) -> None:
    row = key(team, ann, left=timedelta(days=6), personal=True)
    assert key_ends.warn() == 1
    assert days(row) == [7]
    assert [notice.user for notice in Notification.objects.filter(event__kind="key_ends_soon")] == [ann]


def test_a_key_that_never_lived_so_long_is_not_told_of_at_its_birth(team: Team, alice: User) -> None:
    row = key(team, alice, left=timedelta(days=6), lived=timedelta(days=7))
    assert key_ends.warn() == 0
    EndpointKey.objects.filter(pk=row.pk).update(expires_at=timezone.now() + timedelta(hours=20))
    assert key_ends.warn() == 1
    assert days(row) == [1]


def test_a_key_that_was_rotated_or_revoked_is_told_of_no_more(team: Team, alice: User) -> None:
    rotated, revoked = (key(team, alice, left=timedelta(days=3)) for _ in range(2))
    endpoint_keys.rotate(principal=make.principal(alice), key_id=rotated.pk, grace_hours=24)
    endpoint_keys.revoke(principal=make.principal(alice), key_id=revoked.pk)
    assert key_ends.warn() == 0


def test_the_list_marks_what_ends_soon(team: Team, alice: User) -> None:
    key(team, alice, left=timedelta(days=3))
    key(team, alice, left=timedelta(days=30))
    text = flat(signed_in(alice).get(reverse("keys")).content.decode())
    assert text.count('<span class="chip t-yellow">ends soon</span>') == 1
