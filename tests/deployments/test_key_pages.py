"""Pages of endpoint keys: shown once, found by team and deployment, changed by those whose they are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from deployments.models import Deployment, EndpointKey, Team, User
from deployments.services import endpoint_keys as keys
from deployments.services import invoke, usage
from deployments.services.usage import Use
from tests.deployments import factories as make
from tests.deployments.viewing import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def gateway_reports(settings: Any) -> None:
    """The gateway of this installation says how many tokens answers took."""
    settings.GATEWAY_TOKEN = "of-the-gateway"


@pytest.fixture
def chat(team: Team, ann: User) -> Deployment:
    return make.make_deployment(team, ann, approved=True)


def new(user: User, team: Team, name: str = "frontend", **fields: Any) -> EndpointKey:
    wish = {"every_deployment": not fields.get("deployments"), **fields}
    return keys.create(principal=make.principal(user), team=team, name=name, **wish)[0]


def form(**changes: Any) -> dict[str, Any]:
    return {"team": "search", "name": "frontend", "days": "30", "whose": "team", "reach": "every", **changes}


def posted(client: Client, **changes: Any) -> Any:
    return client.post(reverse("keys-create"), form(**changes))


def test_a_key_is_shown_once_with_a_call_that_works(chat: Deployment, alice: User, team: Team) -> None:
    client = signed_in(alice)

    answer = posted(client, reach="some", deployments=[str(chat.pk)], tokens_per_minute="10,000")

    assert (answer.status_code, answer["Cache-Control"]) == (201, "no-store")
    page = answer.content.decode()
    assert f'href="/keys/?deployment={chat.pk}"' in page
    text = page.partition('id="new-key">')[2].partition("<")[0]
    assert invoke.admit(f"Bearer {text}", team.namespace, "chat").status == 200
    assert f"curl http://127.0.0.1:8081/{team.namespace}/chat/v1/chat/completions" in page
    listed = client.get(f"/keys/?deployment={chat.pk}").content.decode()
    assert "10,000 tokens" in listed
    assert text not in listed


def test_a_page_of_a_deployment_leads_to_a_key_for_it(chat: Deployment, alice: User, team: Team) -> None:
    new(alice, team, "everything")
    new(alice, team, "elsewhere", deployments=[make.make_deployment(team, alice, name="code")])
    gone = new(alice, team, "retired")
    keys.revoke(principal=make.principal(alice), key_id=gone.pk)
    client = signed_in(alice)

    page = client.get(reverse("deployment-detail", args=[chat.pk])).content.decode()
    ask = client.get(f"{reverse('keys-create')}?deployment={chat.pk}").content.decode()

    assert "everything" in page
    assert "elsewhere" not in page
    assert "retired" not in page
    assert f"/keys/new/?deployment={chat.pk}" in page
    assert f'value="{chat.pk}" checked' in " ".join(ask.split())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "This field is required."),
        ({"days": "many"}, "A key lives 1 to 365 days."),
        ({"requests_per_minute": "-3"}, "A whole number from 1 to 1,000,000, or nothing."),
        ({"tokens_per_minute": "0"}, "A whole number from 1 to 1,000,000,000, or nothing."),
        ({"reach": "some"}, "Choose 1 to 100 deployments, or all of the team."),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_is_lost(
    chat: Deployment, alice: User, change: dict[str, str], words: str
) -> None:
    answer = posted(signed_in(alice), **change)

    assert answer.status_code == 422
    page = answer.content.decode()
    assert words in page
    assert all(f'value="{value}"' in page for name, value in form(**change).items() if name == "days")
    assert not EndpointKey.objects.exists()


def test_all_that_is_wrong_with_a_key_is_said_at_once(chat: Deployment, alice: User) -> None:
    wrong = {"name": "", "days": "many", "requests_per_minute": "-3", "tokens_per_minute": "none", "reach": "some"}
    answer = posted(signed_in(alice), **wrong)
    assert answer.status_code == 422
    assert set(answer.context["errors"]) == {*wrong, "deployments"} - {"reach"}
    page = answer.content.decode()
    assert page.count('aria-invalid="true"') == 4
    assert all(f'value="{wrong[name]}"' in page for name in ("days", "requests_per_minute", "tokens_per_minute"))


def test_members_make_their_own(chat: Deployment, ann: User) -> None:
    client = signed_in(ann)
    page = client.get(f"{reverse('keys-create')}?team=search").content.decode()
    assert 'value="team" disabled' in " ".join(page.split())
    refused = posted(client)
    assert (refused.status_code, "made by its leads" in refused.content.decode()) == (422, True)
    assert posted(client, whose="own").status_code == 201
    assert EndpointKey.objects.get().person == ann


def test_strangers_find_nothing(chat: Deployment, alice: User, bob: User, team: Team) -> None:
    key = new(alice, team)
    client = signed_in(bob)

    assert key.prefix not in client.get(reverse("keys")).content.decode()
    assert client.get(f"/keys/?deployment={chat.pk}").status_code == 404
    assert client.get(f"/keys/new/?deployment={chat.pk}").status_code == 404
    assert posted(client).status_code == 404
    for name in ("keys-rotate", "keys-revoke"):
        assert client.get(reverse(name, args=[key.pk])).status_code == 404
        assert client.post(reverse(name, args=[key.pk]), {"grace_hours": "0"}).status_code == 404
    key.refresh_from_db()
    assert key.revoked_at is None


def test_a_member_sees_the_teams_keys_and_changes_none(chat: Deployment, alice: User, ann: User, team: Team) -> None:
    key = new(alice, team)
    client = signed_in(ann)
    page = client.get(reverse("keys")).content.decode()

    assert key.prefix in page
    assert reverse("keys-revoke", args=[key.pk]) not in page
    assert client.get(reverse("keys-revoke", args=[key.pk])).status_code == 404
    client.post(reverse("keys-revoke", args=[key.pk]))
    key.refresh_from_db()
    assert key.revoked_at is None


def test_an_admin_sees_all(alice: User, bob: User, carol: User, team: Team) -> None:
    mine, theirs = new(alice, team), new(bob, bob.memberships.get().team)
    page = signed_in(carol).get(reverse("keys")).content.decode()

    assert mine.prefix in page
    assert theirs.prefix in page


def test_rotating_asks_for_the_grace_and_shows_the_new_key(chat: Deployment, alice: User, team: Team) -> None:
    old = new(alice, team, deployments=[chat])
    client = signed_in(alice)
    assert 'value="24" checked' in client.get(reverse("keys-rotate", args=[old.pk])).content.decode()

    answer = client.post(reverse("keys-rotate", args=[old.pk]), {"grace_hours": "1"})

    assert "it is never shown again" in answer.content.decode()
    page = client.get(reverse("keys")).content.decode()
    old.refresh_from_db()
    assert old.expires_at is not None
    assert old.expires_at - timezone.now() <= timedelta(hours=1)
    assert reverse("keys-rotate", args=[old.pk]) not in page  # it has its successor
    assert reverse("keys-rotate", args=[old.successors.get().pk]) in page
    assert client.post(reverse("keys-rotate", args=[old.pk]), {"grace_hours": "x"}).status_code == 302
    assert EndpointKey.objects.count() == 2


def test_revoking_says_who_notices(chat: Deployment, alice: User, team: Team) -> None:
    key = new(alice, team)
    usage.report([Use(key.pk, chat.pk, requests=12)])
    client = signed_in(alice)
    assert "12 requests in the last day" in client.get(reverse("keys-revoke", args=[key.pk])).content.decode()

    client.post(reverse("keys-revoke", args=[key.pk]))

    assert key.prefix not in client.get(reverse("keys")).content.decode()
    assert key.prefix in client.get("/keys/?ended=1").content.decode()


def test_use_stands_beside_each_key(chat: Deployment, alice: User, team: Team) -> None:
    key = new(alice, team)
    usage.report([Use(key.pk, chat.pk, 1234, 5, 700, 800)])

    page = signed_in(alice).get("/keys/?team=search").content.decode()

    for figure in ("1,234", "1,500", ">5<"):
        assert figure in page


@pytest.mark.parametrize("query", ["?team=%F0%9F%9A%80", "?q=%25", "?team=none", "?after=zzz", "?ended=1&before=x"])
def test_odd_filters_find_what_they_can(alice: User, team: Team, query: str) -> None:
    assert signed_in(alice).get(f"/keys/{query}").status_code == 200


def test_a_long_list_takes_as_many_queries_as_a_short_one(chat: Deployment, alice: User, team: Team) -> None:
    client, counts = signed_in(alice), []
    for number in range(12):
        new(alice, team, f"key {number}", deployments=[chat])
        if number in (0, 11):
            with CaptureQueriesContext(
                connection,
            ) as queries:
                client.get(reverse("keys"))
            counts.append(len(queries))

    assert counts[0] == counts[1]
    assert counts[1] <= 6
