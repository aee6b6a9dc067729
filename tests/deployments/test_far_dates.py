"""Dates from before there was a limit: nobody can count with the last day of the calendar, and no page ends on it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.utils import timezone

from deployments.models import Flavor, QuotaGrant, QuotaRequest, Team, User
from deployments.models.moments import LAST
from tests.deployments import factories as make
from tests.deployments.apis import Api
from tests.deployments.viewing import signed_in

pytestmark = pytest.mark.django_db

FAR = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.fixture
def far(team: Team, h100: Flavor, alice: User) -> QuotaGrant:
    """A grant without end but for the calendar's, one that never begins, and a request for such a one."""
    grant = make.make_grant(team, h100, 2, valid_until=FAR)
    make.make_grant(team, h100, 1, valid_from=FAR)
    QuotaRequest.objects.create(team=team, flavor=h100, gpus=1, why="x", author=alice, valid_from=FAR, valid_until=FAR)
    return grant


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Europe/Berlin"])
@pytest.mark.parametrize(
    "page",
    [
        "/quotas/",
        "/quotas/?team=search",
        "/quotas/?show=requests",
        "/quotas/?show=ends",
        "/quotas/?show=history",
        "/approvals/",
        "/approvals/?kind=quota",
    ],
)
def test_pages_are_shown(far: QuotaGrant, alice: User, carol: User, page: str, zone: str) -> None:
    with timezone.override(zone):
        for person in (alice, carol):
            assert signed_in(person).get(page).status_code == 200


def test_the_api_answers_and_such_a_grant_can_be_changed(far: QuotaGrant, carol: User) -> None:
    admin = Api(carol)
    for path in ("quota-grants/", "quota-requests/", "quotas/", "quotas/ends/", "approvals/", "teams/"):
        assert admin("get", path).status_code == 200, path
    seen = admin("get", f"quota-grants/{far.pk}/")
    assert datetime.fromisoformat(seen.json()["valid_until"]) == LAST

    changed = admin("patch", f"quota-grants/{far.pk}/", {"valid_until": None}, **{"If-Match": seen["ETag"]})

    assert (changed.status_code, changed.json()["valid_until"]) == (200, None)
