"""Values pushed through every path, failures too; then everything that is kept or told is searched for them."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from deployments.models import Credential, Team, User
from deployments.services import credential_trials, sealing
from portal.lib import outbound
from tests.deployments import factories as make
from tests.deployments.apis import Api
from tests.deployments.sealing_keys import HubOfTokens, use_keys
from tests.deployments.viewing import signed_in
from tests.security.world import every_row

pytestmark = pytest.mark.django_db

CANARIES = {
    name: f"canary{number}Zq7mXv3KpW9sRtYb{name}"
    for number, name in enumerate(
        ("token", "access_key_id", "secret_access_key", "private_key", "username", "password", "misplaced", "again")
    )
}
SERVICE_ACCOUNT = json.dumps(
    {
        "type": "service_account",
        "client_email": "reader@example.iam.gserviceaccount.com",
        "private_key": f"-----BEGIN PRIVATE KEY-----\n{CANARIES['private_key']}\n-----END PRIVATE KEY-----\n",
    }
)
VALUES: dict[str, dict[str, str]] = {
    "hf": {"token": CANARIES["token"]},
    "s3": {"access_key_id": CANARIES["access_key_id"], "secret_access_key": CANARIES["secret_access_key"]},
    "gs": {"service_account": SERVICE_ACCOUNT},
    "registry": {"server": "r.example.com", "username": CANARIES["username"], "password": CANARIES["password"]},
}


def forms_of(text: str) -> set[str]:
    """How a value could lie somewhere: as it is, its beginning, and in the usual clothes."""
    raw = text.encode()
    return {text, text[:16], quote(text, safe=""), raw.hex(), *(_inside_base64(raw, shift) for shift in range(3))}


def _inside_base64(raw: bytes, shift: int) -> str:
    """The middle of a value's base64 that is the same whatever stands around it, for one alignment."""
    return base64.b64encode(b"x" * shift + raw).decode()[4:-8]


def leaks(text: str) -> list[str]:
    return [name for name, value in CANARIES.items() if any(form in text for form in forms_of(value))]


class Told:
    """Everything that was answered, logged or sent."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    def keep(self, answer: Any) -> Any:
        self.answers.append(answer.content.decode(errors="replace") + str(dict(answer.items())))
        return answer


@pytest.fixture
def told(settings: Any, caplog: pytest.LogCaptureFixture, no_broker: list[Any]) -> Iterator[Told]:
    """Searched when the test is over, with database, logs and messages."""
    use_keys(settings)
    settings.SLIPWAY_OCI_REGISTRIES = ["r.example.com"]
    caplog.set_level(logging.DEBUG)
    found = Told()
    yield found
    assert found.answers, "nothing was asked at all"
    places = {
        "answers": "\n".join(found.answers),
        "logs": caplog.text + "".join(str(record.__dict__) for record in caplog.records),
        "messages": str(no_broker),
        "database": "\n".join(every_row().values()),
        "sessions": _sessions(),
    }
    assert {place: leaks(text) for place, text in places.items() if leaks(text)} == {}


def _sessions() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT session_data FROM django_session")
        rows = [row[0] for row in cursor.fetchall()]
    return "\n".join([*rows, *(str(base64.urlsafe_b64decode(row.partition(":")[0] + "==")) for row in rows)])


def test_the_search_finds_what_it_is_for() -> None:
    token = CANARIES["token"]
    assert leaks(f"x{token}y") == leaks(token[:16]) == ["token"]
    for shift in range(3):
        assert leaks(base64.b64encode(b"u" * shift + token.encode() + b"tail").decode()) == ["token"]
    assert leaks(token.encode().hex()) == ["token"]
    assert leaks("nothing of the kind") == []


@pytest.mark.parametrize("kind", list(VALUES))
def test_no_answer_of_the_api_shows_a_value(kind: str, told: Told, team: Team, alice: User, ann: User) -> None:
    api = Api(alice)
    body = {"team": "search", "name": "x", "kind": kind, **VALUES[kind]}
    made = told.keep(api("post", "credentials/", body))
    assert made.status_code == 201, made.content
    pk = made.json()["id"]
    for path in ("credentials/", f"credentials/{pk}/", "events/"):
        assert told.keep(api("get", path)).status_code == 200
    # Failures: taken, wrong parts, unknown names, values in the wrong place, strangers, not JSON.
    wrong: list[tuple[Any, int]] = [
        (body, 409),
        ({**body, "name": CANARIES["misplaced"]}, 422),
        ({**body, "kind": CANARIES["misplaced"]}, 422),
        ({**body, "team": CANARIES["misplaced"]}, 422),
        ({**body, "test_uri": CANARIES["misplaced"]}, 422),
        ({**body, "name": "y", "namespace": CANARIES["misplaced"]}, 422),
        ({**body, "name": "y", "server": "https://a/" + CANARIES["misplaced"]}, 422),
        ({**body, "name": "y", "token": [CANARIES["misplaced"]]}, 422),
        ({**body, "name": "y", "password": CANARIES["misplaced"] * 400}, 422),
    ]
    for sent, status in wrong:
        assert told.keep(api("post", "credentials/", sent)).status_code == status, sent.keys()
    assert told.keep(Api(ann)("post", "credentials/", body)).status_code == 403
    for _ in range(2):
        again = api("post", f"credentials/{pk}/rotate/", VALUES[kind], **{"idempotency-key": "once"})
        assert told.keep(again).status_code == 200
    assert told.keep(api("delete", f"credentials/{pk}/")).status_code == 204


@pytest.mark.parametrize("kind", list(VALUES))
def test_no_page_shows_a_value(kind: str, told: Told, team: Team, alice: User, bob: User) -> None:
    client = signed_in(alice)
    new = reverse("credentials-create")
    form = {"team": "search", "kind": kind, "name": "x", **VALUES[kind]}
    refused = told.keep(client.post(new, {**form, "name": "Not a name"}))
    assert refused.status_code == 422
    for _ in range(2):
        assert told.keep(client.post(new, form)).status_code == 302, "sent twice it is done once"
    assert told.keep(client.post(new, {**form, "other": "form"})).status_code == 422, "the name is taken"
    credential = Credential.objects.get()
    for path in (
        reverse("credentials"),
        new + "?team=search",
        reverse("credentials-rotate", args=[credential.pk]),
        reverse("credentials-delete", args=[credential.pk]),
        reverse("audit"),
        reverse("deployment-create"),
    ):
        assert told.keep(client.get(path)).status_code == 200, path
    rotate = reverse("credentials-rotate", args=[credential.pk])
    assert told.keep(client.post(rotate, {})).status_code == 422
    assert told.keep(client.post(rotate, VALUES[kind])).status_code == 302
    assert told.keep(signed_in(bob).post(rotate, VALUES[kind])).status_code == 404


def test_an_error_of_the_site_shows_no_value(
    told: Told, team: Team, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What breaks while a value is in hand is logged with its traceback, and answered with 500."""

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("the box is broken")

    monkeypatch.setattr(sealing.SealedBox, "encrypt", broken)
    form = {"team": "search", "kind": "hf", "name": "x", **VALUES["hf"]}
    client = Client(raise_request_exception=False)
    client.force_login(alice)
    assert told.keep(client.post(reverse("credentials-create"), form)).status_code == 500
    sent = client.post("/api/v1/credentials/", json.dumps(form), content_type="application/json")
    assert told.keep(sent).status_code == 500


def test_what_a_server_says_of_a_value_is_not_repeated(
    told: Told, team: Team, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub, a store or a registry may quote what it was sent."""
    hub = HubOfTokens(monkeypatch)
    hub.accepted.clear()

    def quoting(method: str, url: str, **given: Any) -> outbound.Answer:
        sent = str(given).encode()
        return outbound.Answer(403, {"x-error-message": str(given)}, b"<Code>Nope</Code>" + sent, url)

    monkeypatch.setattr(outbound, "request", quoting)
    for kind, fields in VALUES.items():
        value = {name: text for name, text in fields.items() if name != "server"}
        opened = sealing.Opened(value, {"server": "r.example.com"} if kind == "registry" else {})
        assert not leaks(repr(opened))
        found = credential_trials.try_out(kind, opened)
        assert found.code == "bad_token"
        assert not leaks(str(found))
    told.keep(signed_in(alice).get(reverse("credentials")))


def test_an_admin_sees_no_more_than_a_member(told: Told, team: Team, alice: User, carol: User) -> None:
    Api(alice)("post", "credentials/", {"team": "search", "name": "x", "kind": "hf", **VALUES["hf"]})
    admin = signed_in(carol)
    User.objects.filter(pk=carol.pk).update(is_staff=True)
    assert told.keep(admin.get(reverse("credentials"))).status_code == 200
    assert told.keep(Api(carol)("get", "credentials/")).status_code == 200
    for model in ("credential", "secretversion", "sealedvalue"):
        told.keep(admin.get(f"/django-admin/deployments/{model}/"))
    assert make.principal(carol).is_admin
