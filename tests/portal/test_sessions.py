"""A session ends: so long after it began, so long after somebody last did something, and when an admin says so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments.models import Principal, User
from portal.live import permission
from portal.live.callers import Caller, caller_of
from portal.live.http import Refused
from portal.sessions import BEGAN, SEEN
from tests.deployments import factories as make
from tests.deployments.viewing import signed_in
from tests.portal.asgi import cookies_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> User:
    return make.make_user("alice", team=make.make_team("search"), lead=True)


def set_back(client: Client, **ago: timedelta) -> None:
    """Let the session have begun, or been used, so long ago."""
    session = client.session
    for name, by in ago.items():
        session[name] = (timezone.now() - by).timestamp()
    session.save()


def is_in(client: Client) -> dict[str, bool]:
    """Whether pages, API and streams take the session."""
    page = client.get(reverse("account"))
    assert page.status_code in {200, 302}
    return {"page": page.status_code == 200, "api": client.get("/api/v1/whoami/").status_code == 200}


def scope_of(client: Client) -> dict[str, Any]:
    """What an ASGI server says of a stream that this browser opens."""
    headers = [(b"host", b"testserver"), (b"cookie", cookies_of(client)["cookie"].encode())]
    path = "/live/status/"
    return {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}


def caller(client: Client) -> Caller:
    return caller_of(scope_of(client))


ENDED: dict[str, Callable[[Client, User], None]] = {
    "began": lambda client, _: set_back(client, began_at=timedelta(hours=12)),
    "idle": lambda client, _: set_back(client, seen_at=timedelta(hours=1)),
    "by an admin": lambda _, user: setattr(user, "sessions_after", timezone.now()) or user.save(),  # type: ignore[func-returns-value]
    "not counted": lambda client, _: client.session.flush(),
}


@pytest.mark.parametrize("how", ENDED)
def test_nothing_takes_a_session_that_is_over(alice: User, how: str) -> None:
    client = signed_in(alice)
    held = caller(client)
    assert is_in(client) == {"page": True, "api": True}
    assert permission.ended([held]) == set()

    ENDED[how](client, alice)

    assert permission.ended([held]) == {held}
    with pytest.raises(Refused) as refused:
        caller(client)
    assert refused.value.status == 401
    assert is_in(client) == {"page": False, "api": False}


def test_just_before_it_still_does(alice: User) -> None:
    client = signed_in(alice)
    set_back(client, began_at=timedelta(hours=11, minutes=59), seen_at=timedelta(minutes=59))

    assert caller(client).principal == Principal(user=alice)
    assert is_in(client) == {"page": True, "api": True}


def test_who_does_something_goes_on_and_what_a_page_fetches_by_itself_does_not_count(alice: User) -> None:
    client = signed_in(alice)
    set_back(client, seen_at=timedelta(minutes=50))

    client.get(reverse("overview"), headers={"HX-Request": "true"})
    assert timezone.now().timestamp() - client.session[SEEN] > 2900
    client.get(reverse("overview"))
    assert timezone.now().timestamp() - client.session[SEEN] < 60


def test_a_new_sign_in_begins_anew(alice: User) -> None:
    client = signed_in(alice)
    set_back(client, began_at=timedelta(hours=12))
    assert not is_in(client)["page"]

    client.force_login(alice)

    assert timezone.now().timestamp() - client.session[BEGAN] < 60
    assert is_in(client)["page"]


def test_settings_say_how_long(alice: User, settings: Any) -> None:
    settings.SESSION_LASTS, settings.SESSION_IDLE = timedelta(hours=2), timedelta(minutes=5)
    one, other = signed_in(alice), signed_in(alice)
    set_back(one, began_at=timedelta(hours=2))
    set_back(other, seen_at=timedelta(minutes=5))

    assert not is_in(one)["page"]
    assert not is_in(other)["page"]


def test_streams_ask_for_the_second_factor_too(settings: Any) -> None:
    client = signed_in(with_password("carol", admin=True))
    assert caller(client).principal.is_admin
    settings.ADMINS_NEED_SECOND_FACTOR = True

    with pytest.raises(Refused) as refused:
        caller(client)

    assert (refused.value.status, refused.value.code) == (403, "second_factor")
    assert not caller(signed_in(with_password("bob"))).principal.is_admin


def with_password(name: str, *, admin: bool = False) -> User:
    user = make.make_user(name, admin=admin)
    user.set_password("long and unheard of")
    user.save()
    return user
