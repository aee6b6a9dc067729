"""Pages of the account: those that Slipway means to have, in its own layout; of allauth's others there is none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import allauth.urls
import pytest
from django.template.loader import get_template
from django.test import Client
from django.urls import URLResolver, reverse

from deployments.models import User
from portal.account_urls import ALWAYS, BY_INVITATION, SINGLE_SIGN_ON
from portal.accounts import SingleSignOnAdapter
from tests.deployments import factories as make

OIDC = {
    "openid_connect": {
        "APPS": [
            {
                "provider_id": "oidc",
                "name": "House login",
                "client_id": "slipway",
                "secret": "s",
                "settings": {"server_url": "http://127.0.0.1:9"},
            }
        ]
    }
}
LABELS = re.compile(r"<(?:h1|h2|label|button|title)\b[^>]*>(.*?)</", re.DOTALL)
TITLE_CASE = re.compile(r"\b[A-Z][a-z]+ (?:[A-Z][a-z]+|[Uu]p)\b")


def addresses(patterns: list[Any], prefix: str = "/accounts/") -> Iterator[tuple[str, str]]:
    """Every address of allauth with its name, filled with what nobody has."""
    for pattern in patterns:
        route = prefix + str(pattern.pattern).replace("^", "").removesuffix("$").removesuffix("\\Z")
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, route)
        else:
            yield re.sub(r"\(\?P<\w+>[^)]*\)|<[\w:]+>", "oidc", route), pattern.name or ""


EVERY = sorted(set(addresses(allauth.urls.urlpatterns)))


@pytest.fixture
def alice(db: None) -> User:
    return make.make_user("alice", team=make.make_team("search"))


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_the_walk_finds_allauths_pages() -> None:
    names = {name for _, name in EVERY}
    assert len(EVERY) > 20
    assert {"account_email", "account_signup", "account_reset_password", "socialaccount_connections"} <= names
    assert names >= ALWAYS | SINGLE_SIGN_ON
    assert reverse("account_login") in {path for path, _ in EVERY}


@pytest.mark.parametrize("signs_in", [False, True])
@pytest.mark.parametrize("single_sign_on", [False, True])
def test_only_pages_that_are_meant_are_there(alice: User, settings: Any, signs_in: bool, single_sign_on: bool) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = OIDC if single_sign_on else {}
    settings.SIGNUP_BY_INVITATION = single_sign_on
    meant = ALWAYS | SINGLE_SIGN_ON | BY_INVITATION if single_sign_on else ALWAYS

    for path, name in EVERY:
        # Anew each time: one of them signs people out.
        client = signed_in(alice) if signs_in else Client()
        for method in (client.get, client.post):
            status = method(path).status_code
            assert (status != 404) == (name in meant), f"{name or path} answers {status}"
            assert status != 500


def test_the_folder_of_accounts_leads_to_ones_own(alice: User) -> None:
    assert signed_in(alice).get("/accounts/")["Location"] == reverse("account")
    assert Client().get("/accounts/", follow=True).redirect_chain[-1][0].startswith(reverse("account_login"))


def test_served_pages_are_ours(alice: User, settings: Any) -> None:
    settings.SOCIALACCOUNT_PROVIDERS, settings.SLIPWAY_SANDBOX = OIDC, True
    for name in sorted((ALWAYS | SINGLE_SIGN_ON) - {"openid_connect_callback"}):
        path = next(path for path, found in EVERY if found == name)
        for client in (Client(), signed_in(alice)):
            answer = client.get(path)
            if answer.status_code in {301, 302}:
                continue
            text = answer.content.decode()
            assert "slipway.css" in text, name
            for words in LABELS.findall(text):
                assert not TITLE_CASE.search(re.sub("<[^>]*>", "", words).replace("House", "house")), (name, words)


def test_the_footer_of_the_login_page_is_for_those_who_are_not_in(alice: User, settings: Any) -> None:
    settings.SLIPWAY_SANDBOX = True
    said = "printed the accounts"

    assert said in Client().get(reverse("account_login")).content.decode()
    assert said not in signed_in(alice).get(reverse("account_logout")).content.decode()


def test_an_issuer_that_is_away_is_said_so(db: None, settings: Any) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = OIDC

    answer = Client().post(reverse("openid_connect_login", args=["oidc"]))

    assert answer.status_code == 503
    assert "Single sign-on failed" in answer.content.decode()


@pytest.mark.parametrize(
    "name",
    [
        "account/login.html",
        "account/logout.html",
        "account/password_change.html",
        "account/account_inactive.html",
        "socialaccount/login.html",
        "socialaccount/login_cancelled.html",
        "socialaccount/authentication_error.html",
        "socialaccount/signup.html",
    ],
)
def test_the_templates_of_served_pages_are_in_this_repository(name: str, settings: Any) -> None:
    found = get_template(name).origin.name  # type: ignore[attr-defined]

    assert found == str(settings.BASE_DIR / "templates" / name)


def test_single_sign_on_makes_accounts_and_nobody_else_does(alice: User, settings: Any) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = OIDC

    assert SingleSignOnAdapter().is_open_for_signup(None, None) is True
    assert Client().post("/accounts/signup/", {"username": "x", "password1": "y" * 12}).status_code == 404
    assert "Sign in with House login" in Client().get(reverse("account_login")).content.decode()


def test_whoever_has_no_password_here_is_not_asked_to_change_it(alice: User) -> None:
    link = reverse("account_change_password")
    alice.set_password("long and unheard of")
    alice.save()
    assert link in signed_in(alice).get(reverse("account")).content.decode()
    alice.set_unusable_password()
    alice.save()
    assert link not in signed_in(alice).get(reverse("account")).content.decode()
