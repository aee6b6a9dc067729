"""Granting quota, whom to ask for more, and what an admin without a team sees."""

from __future__ import annotations

import pytest
from django.urls import reverse

from deployments.models import CatalogEntry, Flavor, QuotaGrant, Team, User
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gpus", "-1"),
        ("gpus", "0"),
        ("gpus", ""),
        ("gpus", "99999"),
        ("gpus", "\u0663"),
        ("until", "\u0662\u0661\u0660\u0660-01-01"),
        ("team", "x\0"),
        ("flavor", "quantum"),
        ("until", "2001-02-31"),
        ("until", "2001-02-03"),
    ],
)
def test_a_grant_is_refused_at_its_field_and_keeps_the_rest(
    team: Team, h100: Flavor, carol: User, field: str, value: str
) -> None:
    wish = {"team": "search", "flavor": "h100-80gb", "gpus": "2", "until": "", "comment": "for the fair", field: value}

    answer = signed_in(carol).post(reverse("quotas-grant"), wish)

    assert answer.status_code == 422
    assert list(answer.context["errors"]) == [field]
    text = flat(answer.content.decode())
    assert f'name="{field}" aria-describedby="e-{field}" aria-invalid="true"' in text
    assert 'value="for the fair"' in text
    assert QuotaGrant.objects.count() == 1


def test_who_cannot_grant_reads_whom_to_ask(h100: Flavor, alice: User, carol: User) -> None:
    carol.first_name, carol.last_name = "Carol", "Berg"
    carol.save()
    make.make_user("erin", admin=True)

    text = signed_in(alice).get(reverse("quotas")).content.decode()

    assert "Ask an admin for more: erin or Carol Berg." in text or "Ask an admin for more: Carol Berg or erin." in text
    assert "Ask an admin for more" not in signed_in(carol).get(reverse("quotas")).content.decode()


def test_an_admin_of_no_team_is_not_offered_to_ask(team: Team, h100: Flavor, alice: User, carol: User) -> None:
    CatalogEntry.objects.create(
        slug="qwen", name="Qwen", uri=make.QWEN, summary="", parameters_billion=7.6, flavor="h100-80gb", args={}
    )
    offer = f'href="{reverse("deployment-create")}'

    for name in ("catalogue", "deployment-list", "overview"):
        assert offer in signed_in(alice).get(reverse(name)).content.decode()
        assert offer not in signed_in(carol).get(reverse(name)).content.decode()
    assert "Your quota now" not in signed_in(carol).get(reverse("catalogue")).content.decode()
    assert "without a team" in signed_in(carol).get(reverse("deployment-create")).content.decode()


@pytest.mark.parametrize(
    ("policy", "gpus", "words"),
    [
        (Team.Policy.ASK, 1, "An admin approves every request of this team."),
        (Team.Policy.LEAD, 1, "Another lead of the team or an admin approves."),
        (Team.Policy.LEAD, 5, "An admin approves: the request goes beyond the team"),
        (Team.Policy.AUTO, 1, "A lead of the team or an admin approves."),
    ],
)
def test_a_waiting_deployment_names_who_decides(
    team: Team, h100: Flavor, ann: User, alice: User, policy: str, gpus: int, words: str
) -> None:
    team.policy = policy
    team.save()
    row = make.make_deployment(team, ann, gpus=gpus)

    assert words in signed_in(alice).get(reverse("deployment-detail", args=[row.pk])).content.decode()
