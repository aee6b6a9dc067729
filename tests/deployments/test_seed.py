"""The demo: made by the services in the names of its people, and made once."""

from __future__ import annotations

import io
import json
import stat
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.utils import timezone

from deployments.models import (
    ApiToken,
    CatalogEntry,
    Deployment,
    EndpointKey,
    Event,
    Flavor,
    Membership,
    QuotaGrant,
    QuotaRequest,
    User,
)
from deployments.services import invoke, ledger, model_checks, tokens
from deployments.sources import Reply
from portal.management import demo
from portal.management.demo import Demo
from sandbox.hub.app import Hub
from tests.deployments.sealing_keys import use_keys

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def quick(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.SLIPWAY_SANDBOX = True
    use_keys(settings)


@pytest.fixture
def hub_up(monkeypatch):
    """The sandbox's hub, without a socket in between."""
    hub = Hub()

    def get(path: str) -> Reply:
        parts = urlsplit(path)
        answer = hub.answer([part for part in parts.path.split("/") if part], dict(parse_qsl(parts.query)), None)
        return Reply(answer.status, json.loads(answer.body) if answer.status == 200 else None)

    monkeypatch.setattr(model_checks, "_get", get)


def seed(*args: str) -> dict[str, object]:
    out = io.StringIO()
    call_command("seed_demo", *args, stdout=out, stderr=io.StringIO())
    told: dict[str, object] = json.loads(out.getvalue())
    return told


@pytest.mark.usefixtures("hub_up")
def test_the_demo_is_what_the_tour_needs():
    told = seed()

    rows = {f"{row.team.slug}/{row.name}": row for row in Deployment.objects.select_related("team", "latest")}
    assert {name: (row.approved_id is not None, ledger.held_by(row)) for name, row in rows.items()} == {
        "search/chat": (True, 1),
        "devtools/code": (True, 1),
        "labs/summary": (False, 0),
        "labs/extract": (True, 1),
    }
    asked = QuotaRequest.objects.get()
    assert (asked.team.slug, asked.flavor.slug, asked.state, asked.author.username) == (
        "labs",
        "h100-80gb",
        "pending",
        "bob",
    )
    ending = QuotaGrant.objects.get(valid_until__isnull=False)
    assert (ending.team.slug, ending.gpus) == ("search", 2)
    assert timedelta(days=4) < ending.valid_until - timezone.now() < timedelta(days=6)
    approvals = {name: row.latest.approvals.first() for name, row in rows.items()}
    assert {name: approval.kind for name, approval in approvals.items() if approval} == {
        "search/chat": "admin",
        "devtools/code": "policy",
        "labs/extract": "admin",
    }
    assert all(row.created_by.username in {"amir", "dora", "mia"} for row in rows.values())
    assert set(told["traffic"]) == {
        f"{rows[name].team.namespace}/{rows[name].name}" for name in ("search/chat", "devtools/code")
    }


@pytest.mark.usefixtures("hub_up")
def test_its_logins_and_tokens_work():
    told = seed()
    assert {(row["username"], row["role"], row["team"]) for row in told["accounts"]} >= {
        ("alice", "lead", "search"),
        ("bob", "lead", "labs"),
        ("carol", "admin", None),
        ("erin", "admin", None),
    }
    for row in told["accounts"]:
        user = User.objects.get(username=row["username"])
        assert user.check_password(row["password"])
        assert tokens.authenticate(row["token"]).user == user
        role = Membership.objects.filter(user=user).values_list("role", flat=True).first()
        assert (user.is_platform_admin, role) == (
            row["role"] == "admin",
            None if row["role"] == "admin" else row["role"],
        )
    chat = Deployment.objects.get(name="chat")
    header = f"Bearer {told['traffic_token']}"
    assert invoke.admit(header, chat.team.namespace, "chat").status == 200
    summary = Deployment.objects.get(name="summary")
    assert invoke.admit(header, summary.team.namespace, "summary").status == 403
    assert set(told["traffic_keys"]) == {chat.team.namespace}
    key = f"Bearer {told['traffic_keys'][chat.team.namespace]}"
    assert invoke.admit(key, chat.team.namespace, "chat").status == 200
    assert invoke.admit(key, summary.team.namespace, "summary").status == 403


@pytest.mark.usefixtures("hub_up")
def test_a_second_run_adds_nothing_and_tells_the_same():
    first = seed()
    Deployment.objects.filter(name="summary").update(deleted_at="2026-01-01T00:00:00Z")
    events = Event.objects.count()
    assert seed() == first
    assert (Event.objects.count(), Deployment.objects.count()) == (events, 4)


@pytest.mark.usefixtures("hub_up")
def test_a_revoked_demo_key_stays_revoked():
    seed()
    EndpointKey.objects.update(revoked_at="2026-01-01T00:00:00Z")
    assert seed()["traffic_keys"] == {}
    assert EndpointKey.objects.count() == 1


@pytest.mark.usefixtures("hub_up")
def test_a_revoked_demo_token_is_replaced_and_not_revived():
    first = seed()
    ApiToken.objects.filter(user__username="traffic").update(revoked_at="2026-01-01T00:00:00Z")
    second = seed()
    assert second["traffic_token"] != first["traffic_token"]
    assert tokens.authenticate(first["traffic_token"]) is None
    assert tokens.authenticate(second["traffic_token"]) is not None


@pytest.mark.usefixtures("hub_up")
def test_another_secret_key_gives_other_passwords_that_work(settings):
    first = seed()
    settings.SECRET_KEY = "another"
    second = seed()
    account, before = second["accounts"][2], first["accounts"][2]
    assert account["password"] != before["password"]
    assert User.objects.get(username=account["username"]).check_password(account["password"])


@pytest.mark.usefixtures("hub_up")
def test_the_file_with_logins_is_private(tmp_path):
    file = tmp_path / "accounts.json"
    told = seed("--accounts", str(file))
    assert json.loads(file.read_text()) == told
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_a_hub_it_says_so_and_a_later_run_goes_on(monkeypatch, hub_up):
    answers = model_checks._get
    monkeypatch.setattr(demo, "HUB_SECONDS", 0.0)
    monkeypatch.setattr(model_checks, "_get", lambda path: Reply(0, error="connection refused"))
    with pytest.raises(CommandError, match=settings.HUB_URL):
        seed()
    assert not Deployment.objects.exists()
    monkeypatch.setattr(model_checks, "_get", answers)
    model_checks.ModelCheck.objects.all().delete()
    seed()
    assert Deployment.objects.count() == 4


@pytest.mark.usefixtures("hub_up")
def test_the_catalogue_names_models_that_the_hub_knows():
    Demo().seed()
    known = Hub().models
    flavors = set(Flavor.objects.values_list("slug", flat=True))
    for entry in CatalogEntry.objects.all():
        model = known[entry.uri.removeprefix("hf://")]
        assert bool(model.gated) == entry.gated
        assert entry.flavor in flavors
