"""Names that look public and lead inside: refused at their field, with the door's own look at where they lead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from deployments.models import Credential, Deployment, Flavor, SecretVersion, Team, User
from deployments.services import asks, credential_trials, credentials, requests, source_checks
from deployments.services.errors import InvalidError, NotAllowedError, RefusedError
from deployments.services.sealing import Opened
from deployments.sources import SourceCode, parse
from deployments.spec import DeploymentSpec
from portal.lib import outbound
from tests.deployments import factories as make
from tests.deployments.sealing_keys import use_keys

STORE = "https://store.example.com"
KEYS = {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "s3cr3tcanary"}
INSIDE = ["10.0.0.8", "127.0.0.1", "169.254.169.254", "fe80::1%2", "fd00::1", "::ffff:10.0.0.8"]
PUBLIC_IP = "93.184.215.14"


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[dict[str, list[str]]]:
    """What names resolve to; others have no address."""
    use_keys(settings)
    table: dict[str, list[str]] = {}

    def resolve(host: str, port: int, deadline: float) -> list[str]:
        if host not in table:
            raise OSError("unknown")
        return table[host]

    monkeypatch.setattr(outbound, "resolve", resolve)
    source_checks._why_inside.cache_clear()
    yield table
    source_checks._why_inside.cache_clear()


def enter(user: User, team: Team, **fields: str) -> Credential:
    return credentials.create(
        principal=make.principal(user), team=team, name="store", kind="s3", fields={**KEYS, "endpoint": STORE, **fields}
    )


def wish() -> DeploymentSpec:
    return DeploymentSpec.from_json(make.a_spec(source={"uri": "s3://weights/m", "credential": "store"}))


@pytest.mark.parametrize("address", INSIDE)
def test_the_door_tells_where_a_name_leads(names: dict[str, list[str]], address: str):
    names["store.example.com"] = [address]
    assert "not a public address" in outbound.why_forbidden(STORE)
    names["store.example.com"] = [PUBLIC_IP, address]
    assert outbound.why_forbidden(STORE), "each address may be the one that is called"
    assert outbound.why_forbidden(STORE, operator_origins=[STORE]) == ""
    names["store.example.com"] = [PUBLIC_IP]
    assert outbound.why_forbidden(STORE) == ""


def test_a_name_that_is_not_known_now_is_not_refused(names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch):
    assert outbound.why_forbidden(STORE) == ""

    def late(*_: object) -> list[str]:
        raise TimeoutError

    monkeypatch.setattr(outbound, "resolve", late)
    assert outbound.why_forbidden(STORE) == ""


@pytest.mark.django_db
@pytest.mark.parametrize("address", INSIDE)
def test_keys_for_a_name_inside_are_refused_at_its_field(
    names: dict[str, list[str]], address: str, team: Team, alice: User
):
    names["store.example.com"] = [address]
    with pytest.raises(InvalidError) as caught:
        enter(alice, team)
    assert (caught.value.field, caught.value.pointer) == ("endpoint", "/endpoint")
    assert "OBJECT_STORES" in str(caught.value)
    assert not Credential.objects.exists()


@pytest.mark.django_db
def test_form_and_api_name_the_field(names: dict[str, list[str]], team: Team, alice: User, client: Client):
    names["store.example.com"] = ["10.0.0.8"]
    client.force_login(alice)
    fields = {**KEYS, "endpoint": STORE, "team": team.slug, "kind": "s3", "name": "x"}
    page = client.post(reverse("credentials-create"), fields)
    assert page.status_code == 422
    assert "leads to an address that is not public" in page.content.decode()
    answer = client.post("/api/v1/credentials/", fields, content_type="application/json")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/endpoint")


@pytest.mark.django_db
def test_entered_again_it_is_held_to_the_same(names: dict[str, list[str]], team: Team, alice: User):
    names["store.example.com"], names["other.example.com"] = [PUBLIC_IP], ["10.0.0.8"]
    made = enter(alice, team)
    with pytest.raises(InvalidError) as caught:
        credentials.rotate(
            principal=make.principal(alice),
            credential_id=made.pk,
            fields={**KEYS, "endpoint": "https://other.example.com"},
        )
    assert caught.value.field == "endpoint"
    assert SecretVersion.objects.count() == 1


@pytest.mark.django_db
def test_an_operators_store_and_a_name_that_nobody_knows_are_taken(
    names: dict[str, list[str]], team: Team, alice: User, settings: Any
):
    assert enter(alice, team).pk
    names["minio.example.com"] = ["10.0.0.8"]
    settings.OBJECT_STORES = ["https://minio.example.com"]
    made = credentials.create(
        principal=make.principal(alice),
        team=team,
        name="own",
        kind="s3",
        fields={**KEYS, "endpoint": "https://minio.example.com"},
    )
    assert made.pk


@pytest.mark.django_db
def test_nobody_has_names_resolved_who_may_not_add_keys(monkeypatch: pytest.MonkeyPatch, team: Team, ann: User):
    def resolve(*_: object) -> list[str]:
        raise AssertionError("asked")

    monkeypatch.setattr(outbound, "resolve", resolve)
    with pytest.raises(NotAllowedError):
        enter(ann, team)


def test_a_worker_takes_keys_to_nobody_inside(names: dict[str, list[str]]):
    names["store.example.com"] = ["10.0.0.8"]
    found = credential_trials.try_out("s3", Opened(KEYS, {"endpoint": STORE}))
    assert found.code is SourceCode.BAD_TOKEN, "it is not stored"
    assert "not a public address" in found.message
    assert "OBJECT_STORES" in found.remedy
    names.clear()
    assert credential_trials.try_out("s3", Opened(KEYS, {"endpoint": STORE})).code is SourceCode.UNREACHABLE


@pytest.mark.django_db
@pytest.mark.usefixtures("hub")
def test_keys_whose_server_moved_inside_open_nothing_any_more(
    names: dict[str, list[str]], team: Team, alice: User, settings: Any
):
    names["store.example.com"] = [PUBLIC_IP]
    enter(alice, team)
    principal = make.principal(alice)

    def inside() -> list[tuple[str, bool]]:
        source_checks._why_inside.cache_clear()
        found = requests.preflight(principal=principal, team=team, name="chat", spec=wish()).findings
        return [(item.field, item.is_error) for item in found if item.code == "credential_inside"]

    assert inside() == []
    names["store.example.com"] = ["169.254.169.254"]
    assert inside() == [("credential", True)]
    with pytest.raises(RefusedError):
        requests.submit(principal=principal, team=team, name="chat", spec=wish())
    assert not Deployment.objects.exists()
    names.clear()
    assert inside() == [], "whether it is inside nobody knows"
    settings.OBJECT_STORES, names["store.example.com"] = [STORE], ["10.0.0.8"]
    assert inside() == []


@pytest.mark.django_db
@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("tested", "unseen"),
    [("", True), ("unreachable", True), ("found", False), ("gated", False), ("not_found", False), ("unusable", False)],
)
def test_policy_alone_takes_no_keys_to_a_server_that_never_answered(
    tested: str, unseen: bool, team: Team, alice: User, h100: Flavor
):
    Team.objects.update(policy=Team.Policy.AUTO)
    enter(alice, team)
    version = SecretVersion.objects.get()
    Credential.objects.update(current=version, test_code=tested)
    row = requests.submit(principal=make.principal(alice), team=team, name="chat", spec=wish())
    revision = row.latest
    assert revision is not None
    assert (asks.UNSEEN in revision.guarded, row.approved is None) == (unseen, unseen)


def test_a_download_whose_name_leads_inside_is_refused_and_one_that_has_none_is_not(names: dict[str, list[str]]):
    source = parse("https://files.example.com/m.gguf")
    names["files.example.com"] = ["10.0.0.8"]
    found = source_checks.check(source)
    assert found is not None
    assert (found.code, "DOWNLOAD_SERVERS" in found.remedy) == (SourceCode.UNUSABLE, True)
    names.clear()
    found = source_checks.check(source)
    assert found is not None
    assert found.code is SourceCode.UNREACHABLE


def test_what_an_entry_of_a_registry_names_is_held_to_the_same(
    names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, settings: Any
):
    settings.MLFLOW_URL = "http://mlflow.storage:5000"
    names["files.example.com"] = ["10.0.0.8"]
    leads = source_checks.SourceCheck(SourceCode.FOUND, "There.", loads="https://files.example.com/m.gguf")
    monkeypatch.setattr(source_checks.mlflow, "resolve", lambda *_: leads)
    found = source_checks.check(parse("models:/chat/3"))
    assert found is not None
    assert found.code is SourceCode.UNUSABLE
