"""Single sign-on through the real callback, against a provider that runs on loopback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import oidc_provider_mock
import pytest
from allauth.socialaccount import signals
from allauth.socialaccount.models import SocialAccount, SocialLogin
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.test import Client, RequestFactory
from django.urls import reverse

from deployments.models import Event, GroupRule, Membership, Team, User
from deployments.services import groups, invitations
from portal.accounts import groups_of
from tests.deployments import factories as make

pytestmark = [
    pytest.mark.integration,
    pytest.mark.django_db,
    # The provider's own library speaks of its future.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Issuer:
    """A provider, and what it says of people."""

    def __init__(self, url: str) -> None:
        self.url = url

    def says(self, sub: str, **claims: Any) -> None:
        """Set the claims of somebody."""
        answer = httpx.put(f"{self.url}/users/{sub}", json=claims)
        assert answer.is_success, answer.text


@pytest.fixture
def issuer(settings: Any) -> Iterator[Issuer]:
    with oidc_provider_mock.run_server_in_thread() as server:
        url = f"http://localhost:{server.server_port}"
        settings.SOCIALACCOUNT_PROVIDERS = {
            "openid_connect": {
                "APPS": [
                    {
                        "provider_id": "oidc",
                        "name": "House login",
                        "client_id": "slipway",
                        "secret": "s",
                        "settings": {"server_url": url, "oauth_pkce_enabled": True},
                    }
                ]
            }
        }
        yield Issuer(url)


def sign_in(sub: str, client: Client | None = None, *, onward: str = "") -> tuple[Client, Any]:
    """Go the whole way: our button, the provider's page, our callback. Returns the browser and our answer."""
    client = client or Client()
    page = client.get(reverse("account_login"), {"next": onward} if onward else {}).content.decode()
    button = re.search(r'action="([^"]*oidc/login/[^"]*)"', page)
    assert button is not None
    there = client.post(button.group(1).replace("&amp;", "&"))
    assert there.status_code == 302, there.content
    assert "code_challenge=" in there["Location"]
    back = httpx.post(there["Location"], data={"sub": sub})
    assert back.status_code == 302, back.text
    return client, client.get(back.headers["location"].replace("http://testserver", ""))


def signed_in_as(client: Client) -> str:
    pk = client.session.get("_auth_user_id")
    return User.objects.get(pk=pk).username if pk else ""


def roles(username: str) -> dict[str, tuple[str, bool]]:
    rows = Membership.objects.filter(user__username=username)
    return {slug: (role, by_group) for slug, role, by_group in rows.values_list("team__slug", "role", "by_group")}


@pytest.fixture
def rules() -> dict[str, Team]:
    search, labs = make.make_team("search"), make.make_team("labs")
    GroupRule.objects.create(group="search-people", team=search)
    GroupRule.objects.create(group="search-leads", team=search, role="lead")
    GroupRule.objects.create(group="labs", team=labs)
    GroupRule.objects.create(group="gpu-admins", team=None)
    return {"search": search, "labs": labs}


def test_somebody_new_gets_an_account_and_what_their_groups_give(issuer: Issuer, rules: dict[str, Team]) -> None:
    issuer.says("d-1", preferred_username="dora", groups=["search-people", "search-leads", "canteen"])

    client, answer = sign_in("d-1")

    assert answer["Location"] == reverse("overview")
    assert signed_in_as(client) == "dora"
    assert roles("dora") == {"search": ("lead", True)}
    assert not User.objects.get(username="dora").has_usable_password()


def test_a_later_sign_in_follows_the_groups_and_leaves_alone_what_people_made(
    issuer: Issuer, rules: dict[str, Team]
) -> None:
    issuer.says("d-1", preferred_username="dora", groups=["search-leads", "labs"])
    client, _ = sign_in("d-1")
    make.join(User.objects.get(username="dora"), make.make_team("vision"))
    Membership.objects.filter(team=rules["labs"]).update(by_group=False, role="lead")

    issuer.says("d-1", preferred_username="dora", groups=["search-people"])
    sign_in("d-1")
    assert roles("dora") == {"search": ("member", True), "labs": ("lead", False), "vision": ("member", False)}

    issuer.says("d-1", preferred_username="dora", groups=[])
    sign_in("d-1")
    assert roles("dora") == {"labs": ("lead", False), "vision": ("member", False)}
    # The browser of the first sign-in is still signed in, as whoever dora is now.
    assert not Team.objects.visible_to(make.principal(User.objects.get(username="dora"))).filter(slug="search").exists()
    assert client.get(reverse("overview")).status_code == 200
    kinds = [line.kind for line in Event.objects.filter(team=rules["search"]).order_by("pk")]
    assert kinds == ["member_added", "member_changed", "member_removed"]


def test_a_group_makes_platform_admins_and_unmakes_only_those(issuer: Issuer, rules: dict[str, Team]) -> None:
    issuer.says("d-1", preferred_username="dora", groups=["gpu-admins"])
    sign_in("d-1")
    dora = User.objects.get(username="dora")
    assert (dora.is_platform_admin, dora.admin_by_group) == (True, True)
    assert not dora.is_superuser

    issuer.says("d-1", preferred_username="dora")
    sign_in("d-1")
    dora.refresh_from_db()
    assert (dora.is_platform_admin, dora.admin_by_group) == (False, False)

    User.objects.filter(pk=dora.pk).update(is_platform_admin=True)
    sign_in("d-1")
    dora.refresh_from_db()
    assert dora.is_platform_admin, "an admin made by hand stays one"


def test_an_account_that_is_off_stays_off_and_out(issuer: Issuer, rules: dict[str, Team]) -> None:
    issuer.says("d-1", preferred_username="dora", groups=["search-people"])
    sign_in("d-1")
    User.objects.filter(username="dora").update(is_active=False)

    issuer.says("d-1", preferred_username="dora", groups=["search-people", "gpu-admins"])
    client, answer = sign_in("d-1")

    assert answer["Location"] == reverse("account_inactive")
    assert signed_in_as(client) == ""
    dora = User.objects.get(username="dora")
    assert not dora.is_active
    assert not dora.is_platform_admin


def test_accounts_can_be_for_people_of_known_groups_alone(
    issuer: Issuer, rules: dict[str, Team], settings: Any
) -> None:
    settings.OIDC_SIGNUP = "groups"
    issuer.says("e-1", preferred_username="eve", groups=["canteen", "SEARCH-PEOPLE", "search-people "])

    client, answer = sign_in("e-1")

    assert signed_in_as(client) == ""
    assert not User.objects.filter(username="eve").exists()
    assert "slipway.css" in answer.content.decode()
    assert "does not open an account" in " ".join(answer.content.decode().split())
    issuer.says("d-1", preferred_username="dora", groups=["labs"])
    assert signed_in_as(sign_in("d-1")[0]) == "dora"


def test_the_way_back_after_single_sign_on_is_the_invitation(issuer: Issuer, rules: dict[str, Team]) -> None:
    carol = make.make_user("carol", admin=True)
    _, word = invitations.invite(principal=make.principal(carol), team=rules["labs"])
    link = reverse("invitation", args=[word])
    issuer.says("d-1", preferred_username="dora")

    client, answer = sign_in("d-1", onward=link)

    assert answer["Location"] == link
    client.post(link)
    assert roles("dora") == {"labs": ("member", False)}


ODD: list[Any] = [
    None,
    "",
    7,
    True,
    {"search-people": True},
    {"name": "search-people"},
    [["search-people"]],
    [None, 1, {}, {"id": "search-people"}],
    "search-people,gpu-admins",
    "search-peopl",
    [" search-people"],
    ["search-people\x00"],
    ["x" * 201],
]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_odd_claims_give_no_rights_and_do_no_harm(rules: dict[str, Team], value: Any) -> None:
    dora = make.make_user("dora")
    found = groups_of({"userinfo": {"sub": "d-1", "groups": value}})

    groups.apply(user=dora, groups=found)

    assert roles("dora") == {}
    dora.refresh_from_db()
    assert not dora.is_platform_admin


@pytest.mark.parametrize("value", ["labs", ["labs"], ["labs", "labs"], [{"name": "labs", "id": 3}], [None, "labs"]])
def test_the_shapes_that_issuers_use_are_understood(rules: dict[str, Team], value: Any) -> None:
    groups.apply(user=make.make_user("dora"), groups=groups_of({"id_token": {"sub": "d-1", "groups": value}}))

    assert roles("dora") == {"labs": ("member", True)}


def test_groups_that_were_left_out_of_the_token_are_none(rules: dict[str, Team], caplog: Any) -> None:
    claims = {"sub": "d-1", "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://x"}}}

    assert groups_of({"userinfo": {"sub": "d-1"}, "id_token": claims}) == []
    assert "too long for the token" in caplog.text


def test_another_claim_can_be_the_one(rules: dict[str, Team], settings: Any) -> None:
    settings.OIDC_GROUPS_CLAIM = "roles"

    assert groups_of({"userinfo": {"groups": ["labs"], "roles": ["gpu-admins"]}}) == ["gpu-admins"]


@pytest.mark.parametrize("claims", [{"sub": ""}, {"sub": "somebody-else"}, {"sub": None}, {"note": "\x00"}], ids=repr)
def test_an_issuer_that_does_not_say_clearly_who_it_is_signs_nobody_in(
    issuer: Issuer, rules: dict[str, Team], monkeypatch: pytest.MonkeyPatch, claims: dict[str, Any]
) -> None:
    issuer.says("d-1", preferred_username="dora", groups=["gpu-admins"])
    sign_in("d-1")
    honest = OpenIDConnectOAuth2Adapter._fetch_user_info
    monkeypatch.setattr(
        OpenIDConnectOAuth2Adapter, "_fetch_user_info", lambda self, token: honest(self, token) | claims
    )

    client, answer = sign_in("d-1")

    assert signed_in_as(client) == ""
    assert answer.status_code != 500
    assert "Single sign-on failed" in answer.content.decode()
    assert User.objects.count() == 1


@pytest.mark.parametrize("process", ["connect", "redirect"])
def test_no_identity_is_attached_to_an_account_that_is_signed_in(
    issuer: Issuer, rules: dict[str, Team], process: str
) -> None:
    mia = make.make_user("mia", team=rules["labs"])
    client = Client()
    client.force_login(mia)
    issuer.says("d-9", preferred_username="attacker", groups=["gpu-admins"])

    there = client.post(f"{reverse('openid_connect_login', args=['oidc'])}?process={process}&next=https://evil.example")
    back = httpx.post(there["Location"], data={"sub": "d-9"})
    answer = client.get(back.headers["location"].replace("http://testserver", ""))

    assert answer["Location"] == reverse("account")
    assert not SocialAccount.objects.exists()
    mia.refresh_from_db()
    assert (mia.is_platform_admin, mia.single_sign_on_at) == (False, None)
    assert signed_in_as(client) == "mia"


def test_an_account_shows_how_its_person_signs_in(issuer: Issuer, rules: dict[str, Team]) -> None:
    issuer.says("d-1", preferred_username="dora", groups=["labs"])
    client, _ = sign_in("d-1")

    assert "Single sign-on “oidc”" in client.get(reverse("account")).content.decode()
    alone = Client()
    alone.force_login(make.make_user("mia"))
    assert "Linked sign-ins" not in alone.get(reverse("account")).content.decode()


@pytest.mark.parametrize(
    ("signal", "kind"), [("social_account_added", "sign_in_linked"), ("social_account_removed", "sign_in_unlinked")]
)
def test_links_that_come_and_go_are_in_the_audit(rf: RequestFactory, signal: str, kind: str, db: None) -> None:
    mia = make.make_user("mia")
    account = SocialAccount(user=mia, provider="oidc", uid="d-1")
    request = rf.get("/", REMOTE_ADDR="192.0.2.1")
    request.META["SLIPWAY_REQUEST_ID"] = "r1"
    sent = {"sociallogin": SocialLogin(user=mia, account=account), "socialaccount": account}

    getattr(signals, signal).send(sender=SocialAccount, request=request, **sent)

    event = Event.objects.get()
    assert (event.kind, event.actor, event.data["address"], event.request_id) == (kind, mia, "192.0.2.1", "r1")
