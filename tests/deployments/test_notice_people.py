"""One person is asked for in SQL by hand: it says what the models' own querysets say of many."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from deployments.models import Event, Membership, Team, User
from deployments.services.notice_people import people_of
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db


def told(event: Event, user: User) -> bool:
    """Whether one person is told, which is the same however it is asked."""
    one, many = list(people_of(event, user.pk)), list(people_of(event, Q(pk=user.pk)))
    assert [(person.pk, person.email, person.mail_notices) for person in one] == [
        (person.pk, person.email, person.mail_notices) for person in many
    ]
    return bool(one)


@pytest.mark.parametrize("seen", [None, "lately", "long ago"])
@pytest.mark.parametrize("by_group", [False, True])
@pytest.mark.parametrize("role", ["member", "admin", "stranger"])
def test_one_person_is_told_while_they_may_see_it(team: Team, role: str, by_group: bool, seen: str | None) -> None:
    user = make.make_user("dora", admin=role == "admin", team=team if role == "member" else None)
    ages = {"lately": settings.GROUP_RIGHTS_LAST / 2, "long ago": settings.GROUP_RIGHTS_LAST + timedelta(minutes=1)}
    at = timezone.now() - ages[seen] if seen else None
    User.objects.filter(pk=user.pk).update(
        email="dora@example.org", mail_notices=False, admin_by_group=by_group, single_sign_on_at=at
    )
    Membership.objects.filter(user=user).update(by_group=by_group)

    assert told(Event(team=team), user) == (role != "stranger" and (not by_group or seen == "lately"))
    assert told(Event(), user)


def test_nobody_is_told_who_is_locked_out_or_did_it(team: Team, ann: User) -> None:
    assert told(Event(team=team), ann)
    assert not told(Event(team=team, actor=ann), ann)
    User.objects.filter(pk=ann.pk).update(is_active=False)
    assert not told(Event(team=team), ann)
