"""Who approves for a team, as admins say it on a page."""

from __future__ import annotations

import pytest
from django.urls import reverse

from deployments.models import Team, User
from tests.deployments.viewing import flat, signed_in


def test_an_admin_says_who_approves(team: Team, carol: User) -> None:
    url = reverse("approvals-policy", args=[team.pk])

    answer = signed_in(carol).post(url, {"policy": "lead", "ask_above": "8", "at_expiry": "stop"}, follow=True)

    team.refresh_from_db()
    assert (team.policy, team.ask_above, team.at_expiry) == ("lead", 8, "stop")
    assert "Saved who approves for Search." in answer.content.decode()
    signed_in(carol).post(url, {"policy": "lead", "ask_above": "", "at_expiry": "stop"})
    team.refresh_from_db()
    assert team.ask_above is None


@pytest.mark.parametrize(
    ("wish", "field"), [({"ask_above": "many"}, "ask_above"), ({"policy": "x"}, "policy"), ({"at_expiry": ""}, "x")]
)
def test_a_policy_that_cannot_be_meant_is_said_at_its_field(
    team: Team, carol: User, wish: dict[str, str], field: str
) -> None:
    values = {"policy": "auto", "ask_above": "8", "at_expiry": "keep", **wish}

    answer = signed_in(carol).post(reverse("approvals-policy", args=[team.pk]), values)

    text = flat(answer.content.decode())
    assert answer.status_code == 422
    assert text.count('aria-invalid="true"') == 1
    if field == "ask_above":
        assert 'value="many"' in text
    team.refresh_from_db()
    assert team.policy == "ask"


def test_leads_and_strangers_say_nothing_about_it(team: Team, alice: User, bob: User) -> None:
    for person in (alice, bob):
        assert signed_in(person).post(reverse("approvals-policy", args=[team.pk]), {}).status_code == 404
        assert signed_in(person).get(reverse("approvals-policies")).status_code == 404
