"""What the audit keeps of signing in and out."""

from __future__ import annotations

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from deployments.models import Event, User

PASSWORD = "a-long-enough-word"


@pytest.fixture(autouse=True)
def nobody_tried_before(db: None) -> None:
    """Limits of attempts are counted in the cache, which other tests fill as well."""
    cache.clear()


@pytest.fixture
def ann(db: None) -> User:
    return User.objects.create_user("ann", password=PASSWORD)


def sign_in(client: Client, name: str = "ann", password: str = PASSWORD) -> str:
    """Fill in the form; the id of the request."""
    return str(client.post(reverse("account_login"), {"login": name, "password": password})["X-Request-Id"])


def test_signing_in_and_out_leave_a_line_each_with_who_and_whence(ann: User) -> None:
    client = Client()
    came = sign_in(client)
    went = str(client.post(reverse("account_logout"))["X-Request-Id"])
    first, second = Event.objects.filter(request_id__in=[came, went]).order_by("pk")

    assert (first.kind, first.actor, first.request_id, first.team) == ("signed_in", ann, came, None)
    assert first.data == {"user": ann.pk, "address": "127.0.0.1"}
    assert (second.kind, second.actor, second.request_id) == ("signed_out", ann, went)


def test_a_wrong_password_leaves_a_line_without_it(ann: User) -> None:
    asked = sign_in(Client(), password="canary-password")
    event = Event.objects.get(request_id=asked)

    assert (event.kind, event.actor, event.level, event.request_id) == ("sign_in_refused", None, "warning", asked)
    assert event.data == {"user": ann.pk, "address": "127.0.0.1"}
    assert "canary" not in f"{event.message}{event.data}"


def test_a_name_that_is_nobodys_is_not_kept(ann: User) -> None:
    asked = sign_in(Client(), name="canary-password", password="x")
    event = Event.objects.get(request_id=asked)

    assert event.kind == "sign_in_refused"
    assert "canary" not in f"{event.message}{event.data}"


def test_a_new_password_leaves_a_line(ann: User) -> None:
    client = Client()
    sign_in(client)
    words = {"oldpassword": PASSWORD, "password1": "another-long-word", "password2": "another-long-word"}
    client.post(reverse("account_change_password"), words)
    event = Event.objects.filter(kind="password_changed").get()

    assert event.actor == ann
    assert "another" not in f"{event.message}{event.data}"
    assert Client().login(username="ann", password="another-long-word")
