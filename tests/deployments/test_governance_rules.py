"""What the database itself refuses of requests for quota and of emergencies, whatever a service would do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, transaction
from django.utils import timezone

from deployments.models import Approval, QuotaRequest, Team, User
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db

Kind = Approval.Kind


@pytest.fixture
def search() -> Team:
    return make.make_team()


@pytest.fixture
def alice(search: Team) -> User:
    return make.make_user("alice", team=search, lead=True)


@pytest.fixture
def carol() -> User:
    return make.make_user("carol", admin=True)


@pytest.fixture
def asked(search: Team, alice: User) -> QuotaRequest:
    return QuotaRequest.objects.create(team=search, flavor=make.make_flavor(), gpus=4, why="The launch", author=alice)


def decided(by: User, state: str = "denied", **fields: Any) -> dict[str, Any]:
    return {"state": state, "decided_by": by, "decided_at": timezone.now(), "comment": "Not this month", **fields}


def refuses(rows: Any, **fields: Any) -> bool:
    try:
        with transaction.atomic():
            rows.update(**fields)
    except DatabaseError:
        return True
    return False


def test_nobody_decides_about_the_quota_they_asked_for(asked: QuotaRequest, alice: User, carol: User) -> None:
    rows = QuotaRequest.objects.filter(pk=asked.pk)

    assert refuses(rows, **decided(alice))
    assert not refuses(rows, **decided(carol))


def test_a_decision_has_a_comment_and_what_it_grants(asked: QuotaRequest, carol: User) -> None:
    rows = QuotaRequest.objects.filter(pk=asked.pk)
    grant = make.make_grant(asked.team, asked.flavor, 2)

    assert refuses(rows, **{**decided(carol), "comment": ""})
    assert refuses(rows, **decided(carol, "partly"))
    assert refuses(rows, **decided(carol, granted=grant))
    assert not refuses(rows, **decided(carol, "partly", granted=grant))


def test_what_was_decided_and_what_was_asked_stays(asked: QuotaRequest, carol: User) -> None:
    rows = QuotaRequest.objects.filter(pk=asked.pk)

    assert refuses(rows, gpus=8)
    rows.update(**decided(carol))
    assert refuses(rows, state="pending")
    assert refuses(rows, comment="Never")
    with pytest.raises(DatabaseError), transaction.atomic():
        asked.delete()


def approve(actor: User, author: User, search: Team, second: User | None, **fields: Any) -> Approval:
    revision = make.make_deployment(search, author).latest
    assert revision is not None
    values = {"kind": Kind.EMERGENCY, "comment": "Search is down", "digest": revision.digest, **fields}
    with transaction.atomic():
        return Approval.objects.create(revision=revision, actor=actor, second=second, approved=True, **values)


def test_in_an_emergency_an_author_approves_with_a_second_admin(search: Team, carol: User) -> None:
    assert approve(carol, carol, search, make.make_user("erin", admin=True)).pk


@pytest.mark.parametrize(
    "changes", [{"comment": ""}, {"digest": "0" * 64}, {"kind": Kind.ADMIN}], ids=["no reason", "other", "ordinary"]
)
def test_it_needs_a_reason_the_digest_and_its_name(search: Team, carol: User, changes: dict[str, Any]) -> None:
    with pytest.raises(DatabaseError):
        approve(carol, carol, search, make.make_user("erin", admin=True), **changes)


def test_two_are_two_and_both_are_admins(search: Team, alice: User, carol: User) -> None:
    gone = make.make_user("erin", admin=True)
    User.objects.filter(pk=gone.pk).update(is_active=False)
    for second in (carol, alice, gone, None):
        with pytest.raises((DatabaseError, IntegrityError)):
            approve(carol, carol, search, second)
        search.deployments.all().update(deleted_at=timezone.now() - timedelta(seconds=1))
