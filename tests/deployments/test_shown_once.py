"""What is shown once lies nowhere: neither a table nor a session holds it, before or after it was shown."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.urls import reverse

from deployments.models import EndpointKey, Team, User
from deployments.services import invitations
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db

TEXT = {
    "account": re.compile(r'id="new-token">([^<]+)<'),
    "keys-create": re.compile(r'id="new-key">([^<]+)<'),
    "keys-rotate": re.compile(r'id="new-key">([^<]+)<'),
    "people-invite": re.compile(r'id="new-link">[^<]*/join/([^/<]+)/<'),
}


def everything_stored() -> str:
    """All rows of all tables as text, and what sessions hold once they are unpacked."""
    found = [json.dumps(session.get_decoded()) for session in Session.objects.all()]
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            found += [row[0] for row in cursor.fetchall()]
    return "\n".join(found)


@pytest.mark.parametrize("nonce", ["n" * 32, ""], ids=["nonce", "no nonce"])
@pytest.mark.parametrize("name", list(TEXT))
def test_nothing_of_it_is_stored(team: Team, alice: User, name: str, nonce: str) -> None:
    make.make_deployment(team, alice)
    client = Client()
    client.force_login(alice)
    key = {"team": "search", "name": "frontend", "days": "30", "reach": "every", "whose": "own"}
    if name == "keys-rotate":
        client.post(reverse("keys-create"), key)
    bodies: dict[str, dict[str, Any]] = {
        "account": {"name": "notebook", "scopes": "read", "days": "9"},
        "keys-create": key,
        "keys-rotate": {"grace_hours": "1"},
        "people-invite": {"role": "member", "days": "7"},
    }
    args = {"keys-rotate": [getattr(EndpointKey.objects.first(), "pk", 0)], "people-invite": ["search"]}.get(name, [])
    path = reverse(name, args=args)

    answer = client.post(path, bodies[name] | {"once": nonce})

    shown = TEXT[name].search(answer.content.decode())
    assert shown is not None
    text = shown.group(1)
    assert len(text) > 30
    assert (answer.status_code, answer["Cache-Control"]) == (201, "no-store")
    stored = everything_stored()
    assert text not in stored
    assert text[12:40] not in stored
    assert "alice" in stored  # it was looked at
    assert text not in client.get(reverse("keys")).content.decode()
    again = client.post(path, bodies[name] | {"once": nonce})
    if nonce:
        assert text in again.content.decode()
    else:
        assert text not in again.content.decode()


def test_a_word_that_somebody_came_with_is_not_remembered(
    team: Team, alice: User, settings: Any, client: Client
) -> None:
    settings.SIGNUP_BY_INVITATION = True
    _, word = invitations.invite(principal=make.principal(alice), team=team)

    answer = client.post(reverse("invitation", args=[word]), {"do": "sign-up"})

    assert answer.status_code == 302
    sessions = [json.dumps(session.get_decoded()) for session in Session.objects.all()]
    assert sessions
    assert all(word not in session for session in sessions)
    assert client.get(reverse("account_signup")).status_code == 200
