"""A second factor: set up, asked for, recovered from, switched off; its secret is nowhere in the clear."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from deployments.models import User
from deployments.services import tokens
from portal.second_factor import SecondFactorAdapter
from tests.deployments import factories as make
from tests.deployments.viewing import flat

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def forget_codes() -> None:
    """Each code is good once, and limits count: between tests neither."""
    cache.clear()


@pytest.fixture
def dora() -> User:
    user = make.make_user("dora", team=make.make_team("search"))
    user.set_password(PASSWORD)
    user.save()
    return user


def log_in(client: Client, **data: str) -> Any:
    return client.post(reverse("account_login"), {"login": "dora", "password": PASSWORD, **data})


def code_for(secret: str) -> str:
    return format_hotp_value(hotp_value(secret, int(time.time()) // 30))


def set_up(client: Client) -> tuple[str, list[str]]:
    """Sign in, say who one is, scan, type a code. Returns the secret and the recovery codes."""
    log_in(client)
    url = reverse("mfa_activate_totp")
    again = client.get(url)
    if again.status_code == 302:
        client.post(reverse("account_reauthenticate"), {"password": PASSWORD, "next": url})
        again = client.get(url)
    page = flat(again.content.decode())
    found = re.search(r'<code id="totp-secret">([A-Z2-7]{32})</code>', page)
    assert found is not None
    assert 'src="data:image/svg+xml;base64,' in page
    secret = found.group(1)
    wrong = client.post(url, {"code": "000000"})
    assert "Incorrect code" in wrong.content.decode()
    assert secret in wrong.content.decode(), "what the app has scanned stays good"
    done = client.post(url, {"code": code_for(secret)})
    assert done["Location"] == reverse("mfa_view_recovery_codes")
    shown = client.get(reverse("mfa_view_recovery_codes")).content.decode()
    block = re.search(r'<pre id="recovery"[^>]*>(.*?)</pre>', shown, re.DOTALL)
    assert block is not None
    return secret, block.group(1).split()


def test_once_it_is_on_a_password_alone_lets_nobody_in(dora: User) -> None:
    secret, recovery = set_up(Client())
    assert len(recovery) == 10
    cache.clear()

    client = Client()
    onward = reverse("people")
    assert log_in(client, next=onward)["Location"].startswith(reverse("mfa_authenticate"))
    assert client.get(onward).status_code == 302
    page = flat(client.get(reverse("mfa_authenticate")).content.decode())
    assert "One more code" in page
    assert client.post(reverse("mfa_authenticate"), {"code": "123"}).status_code == 200
    assert client.get(onward).status_code == 302
    cache.clear()
    assert client.post(reverse("mfa_authenticate"), {"code": code_for(secret)})["Location"] == onward
    assert client.get(onward).status_code == 200


def test_a_recovery_code_lets_in_once(dora: User) -> None:
    _, recovery = set_up(Client())
    for expected in (302, 200):
        client = Client()
        log_in(client)
        cache.clear()
        assert client.post(reverse("mfa_authenticate"), {"code": recovery[0]}).status_code == expected


def test_its_secrets_are_stored_encrypted(dora: User) -> None:
    secret, recovery = set_up(Client())

    stored = str(list(Authenticator.objects.values_list("data", flat=True)))
    assert secret not in stored
    assert not any(code in stored for code in recovery)
    adapter = SecondFactorAdapter()
    assert adapter.decrypt(adapter.encrypt("x")) == "x"
    assert adapter.encrypt("x") != adapter.encrypt("x")


def test_a_new_secret_key_reads_what_the_one_before_sealed(settings: Any) -> None:
    sealed = SecondFactorAdapter().encrypt("x")
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "n" * 60

    assert SecondFactorAdapter().decrypt(sealed) == "x"


def test_it_is_switched_off_by_who_says_who_they_are(dora: User) -> None:
    client = Client()
    set_up(client)
    assert "On: signing in asks" in flat(client.get(reverse("mfa_index")).content.decode())
    stranger = Client()
    stranger.force_login(dora)
    assert stranger.get(reverse("mfa_deactivate_totp")).status_code == 302

    client.post(reverse("mfa_deactivate_totp"))

    assert not Authenticator.objects.exists()
    assert log_in(Client())["Location"] == reverse("overview")


def test_new_recovery_codes_take_the_place_of_the_old(dora: User) -> None:
    client = Client()
    _, before = set_up(client)
    assert "stop working" in flat(client.get(reverse("mfa_generate_recovery_codes")).content.decode())
    client.post(reverse("mfa_generate_recovery_codes"))
    after = client.get(reverse("mfa_download_recovery_codes")).content.decode()
    assert not any(code in after for code in before)


def test_admins_can_be_asked_for_one_before_anything_opens(dora: User, settings: Any) -> None:
    settings.ADMINS_NEED_SECOND_FACTOR = True
    client = Client()
    log_in(client)
    assert client.get(reverse("overview")).status_code == 200
    User.objects.filter(pk=dora.pk).update(is_platform_admin=True)

    assert client.get(reverse("overview"))["Location"] == reverse("mfa_index")
    refused = client.get("/api/v1/teams/")
    assert (refused.status_code, refused["Content-Type"]) == (403, "application/problem+json")
    assert client.get(reverse("overview"), headers={"HX-Request": "true"})["HX-Redirect"] == reverse("mfa_index")
    _, text = tokens.create(principal=make.principal(dora), name="ci")
    assert Client(headers={"authorization": f"Bearer {text}"}).get("/api/v1/teams/").status_code == 200

    set_up(client)
    assert client.get(reverse("overview")).status_code == 200


def test_admins_who_sign_in_elsewhere_have_theirs_there(settings: Any) -> None:
    settings.ADMINS_NEED_SECOND_FACTOR = True
    client = Client()
    client.force_login(make.make_user("carol", admin=True))

    assert client.get(reverse("overview")).status_code == 200
