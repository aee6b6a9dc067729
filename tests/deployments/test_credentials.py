"""Credentials as people add, enter again and delete them: sealed on the way, by leads, never in the clear."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from nacl.public import PrivateKey, SealedBox

from deployments.models import Credential, Event, SealedValue, SecretVersion, Team, User
from deployments.services import credentials, sealing, teams
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError
from tests.deployments import factories as make
from tests.deployments.sealing_keys import GATED, PUBLIC, TOKEN, add, naming, opened, told, use_keys

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def keys(settings: Any) -> None:
    use_keys(settings)
    settings.SLIPWAY_OCI_REGISTRIES = ["r.example.com"]


SERVICE_ACCOUNT = {
    "type": "service_account",
    "client_email": "reader@example.iam.gserviceaccount.com",
    "private_key": "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\n",
    "token_uri": "https://oauth2.googleapis.com/token",
}


def test_a_value_is_sealed_for_a_worker_and_a_team_is_due(team: Team, alice: User, no_broker: list[Any]) -> None:
    made = add(make.principal(alice), team, test_uri="meta-llama/Llama-3.1-8B-Instruct")
    assert told(made).state == Credential.State.PENDING
    sealed = SealedValue.objects.get()
    assert opened(made).value == {"token": TOKEN}
    assert sealed.test_uri == GATED
    assert TOKEN.encode() not in bytes(sealed.ciphertext)
    assert timedelta(minutes=9) < sealed.expires_at - timezone.now() <= timedelta(minutes=10)
    assert SecretVersion.objects.get().namespace == team.namespace


def test_web_cannot_open_what_it_sealed(team: Team, alice: User, settings: Any) -> None:
    made = add(make.principal(alice), team)
    settings.SEAL_PRIVATE_KEYS = []
    with pytest.raises(sealing.NoKeyError):
        opened(made)
    for wrong in (sealing.new_pair()[1], "c2hvcnQ="):
        settings.SEAL_PRIVATE_KEYS = [wrong]
        with pytest.raises(sealing.NoKeyError):
            opened(made)


def test_a_retired_key_still_opens_what_was_sealed_to_it(team: Team, alice: User, settings: Any) -> None:
    made = add(make.principal(alice), team)
    public, private = sealing.new_pair()
    settings.SEAL_PUBLIC_KEY, settings.SEAL_PRIVATE_KEYS = public, [private, *settings.SEAL_PRIVATE_KEYS]
    assert opened(made).value == {"token": TOKEN}
    assert opened(add(make.principal(alice), team, "other")).value == {"token": TOKEN}


def test_what_was_sealed_for_one_row_opens_no_other(team: Team, alice: User, carol: User) -> None:
    """Whoever can write rows and not read keys could otherwise move a value into a namespace of theirs."""
    mine = add(make.principal(alice), team)
    labs = make.make_team("labs")
    theirs = add(make.principal(carol), labs, token="hf_another_token_of_labs")
    stolen = SealedValue.objects.get(version__credential=mine).ciphertext
    SealedValue.objects.filter(version__credential=theirs).update(ciphertext=stolen)
    with pytest.raises(sealing.UnfitError) as caught:
        opened(theirs)
    assert TOKEN not in str(caught.value)
    # Nor does one that anybody with the public key could have made.
    text = json.dumps({"value": {"token": "hf_planted"}, "settings": {}, "expires": "2999-01-01T00:00:00+00:00"})
    SealedValue.objects.filter(version__credential=mine).update(
        ciphertext=SealedBox(sealing._public_key()).encrypt(text.encode())
    )
    with pytest.raises(sealing.UnfitError):
        opened(mine)


def test_a_value_that_is_too_old_is_not_opened(team: Team, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LIVES", timedelta(seconds=-1))
    with pytest.raises(sealing.TooLateError):
        opened(add(make.principal(alice), team))


def test_a_private_key_tells_its_public_one() -> None:
    public, private = sealing.new_pair()
    assert sealing.public_of(private) == public != PUBLIC
    with pytest.raises(ValueError, match="32 bytes") as caught:
        sealing.public_of("c2hvcnQ=")
    assert "c2hvcnQ" not in str(caught.value)
    assert len(bytes(PrivateKey(sealing._bytes(private)))) == 32


@pytest.mark.parametrize("change", ["create", "rotate", "delete"])
def test_leads_and_admins_change_credentials_members_see_them_strangers_do_not(
    change: str, team: Team, alice: User, ann: User, bob: User, carol: User
) -> None:
    made = add(make.principal(alice), team)

    def do(user: User) -> None:
        principal = make.principal(user)
        if change == "create":
            add(principal, team, f"of-{user.username}")
        elif change == "rotate":
            credentials.rotate(principal=principal, credential_id=made.pk, fields={"token": "hf_fresh_token"})
        else:
            credentials.delete(principal=principal, credential_id=made.pk)

    with pytest.raises(NotAllowedError):
        do(ann)
    with pytest.raises(MissingError):
        do(bob)
    assert Credential.objects.visible_to(make.principal(ann)).get() == made
    assert not Credential.objects.visible_to(make.principal(bob)).exists()
    do(carol)


def test_a_token_that_only_reads_adds_nothing(team: Team, alice: User) -> None:
    with pytest.raises(NotAllowedError):
        add(make.principal(alice, "read"), team)


def test_a_name_is_used_once_and_free_again_after_deletion(team: Team, alice: User) -> None:
    first = add(make.principal(alice), team)
    with pytest.raises(ConflictError):
        add(make.principal(alice), team)
    credentials.delete(principal=make.principal(alice), credential_id=first.pk)
    assert not SealedValue.objects.exists()
    assert SecretVersion.objects.get().retired_at is not None
    assert add(make.principal(alice), team).pk != first.pk


def test_entering_again_drops_what_waited(team: Team, alice: User) -> None:
    made = add(make.principal(alice), team)
    credentials.rotate(principal=make.principal(alice), credential_id=made.pk, fields={"token": "hf_fresh_token"})
    assert opened(made).value == {"token": "hf_fresh_token"}
    old, new = SecretVersion.objects.order_by("number")
    assert (old.retired_at is None, new.retired_at is None) == (False, True)
    assert old.name != new.name
    event = Event.objects.get(kind="credential_rotated")
    assert event.data["before"]["fingerprint"] != event.data["after"]["fingerprint"]


def test_equal_values_have_equal_fingerprints_that_depend_on_the_installation(settings: Any) -> None:
    one = sealing.fingerprint({"token": TOKEN})
    assert one == sealing.fingerprint({"token": TOKEN}) != sealing.fingerprint({"token": TOKEN + "x"})
    settings.SECRET_KEY = "another installation"
    assert sealing.fingerprint({"token": TOKEN}) != one


def test_without_a_public_key_nothing_is_stored(team: Team, alice: User, settings: Any) -> None:
    for none in ("", "c2hvcnQ=", "no base64"):
        settings.SEAL_PUBLIC_KEY = none
        with pytest.raises(ConflictError, match="SLIPWAY_SEAL_PUBLIC_KEY"):
            add(make.principal(alice), team)
    assert not Credential.objects.exists()


def test_a_credential_that_a_deployment_names_is_kept(team: Team, alice: User, h100: Any) -> None:
    made = add(make.principal(alice), team)
    naming(team, alice)
    assert [row.name for row in credentials.users_of(made)] == ["chat"]
    assert Credential.objects.with_users().get().users == ["chat"]
    with pytest.raises(ConflictError, match="chat uses it"):
        credentials.delete(principal=make.principal(alice), credential_id=made.pk)
    other = make.make_team("other")
    make.make_deployment(other, make.make_user("dan", team=other))
    assert Credential.objects.with_users().get().users == ["chat"]


def test_a_value_that_no_worker_took_is_forgotten_after_ten_minutes(team: Team, alice: User) -> None:
    made = add(make.principal(alice), team)
    assert credentials.expire() == 0
    SealedValue.objects.update(expires_at=timezone.now())
    assert credentials.expire() == 1
    row = told(made)
    assert (row.state, row.problem) == (Credential.State.ENTER_AGAIN, "expired")
    assert not SealedValue.objects.exists()
    assert Event.objects.get(kind="credential_expired").level == "warning"
    assert credentials.expire() == 0


def test_archiving_a_team_ends_its_credentials(team: Team, alice: User, carol: User) -> None:
    add(make.principal(alice), team)
    teams.archive(principal=make.principal(carol), team=team)
    assert not Credential.objects.kept().exists()
    assert not SealedValue.objects.exists()
    assert Event.objects.get(kind="team_archived").data["ended"]["credentials"] == 1


KINDS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("hf", {"token": TOKEN}, {}),
    (
        "s3",
        {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "s3cr3tcanary", "endpoint": "https://S3.example.com/"},
        {"endpoint": "https://s3.example.com"},
    ),
    ("gs", {"service_account": json.dumps(SERVICE_ACCOUNT)}, {}),
    ("registry", {"server": "https://R.example.com/", "username": "bot", "password": "p w?".replace(" ", "")},
     {"server": "r.example.com"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields", "shown"), KINDS, ids=[kind for kind, *_ in KINDS])
def test_each_kind_takes_its_parts(
    kind: str, fields: dict[str, Any], shown: dict[str, str], team: Team, alice: User
) -> None:
    made = credentials.create(principal=make.principal(alice), team=team, name="x", kind=kind, fields=fields)
    version = SecretVersion.objects.get()
    assert version.settings == shown
    assert set(opened(made).value) == set(fields) - set(shown)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("hf", {}, "token"),
    ("hf", {"token": "short"}, "token"),
    ("hf", {"token": "hf_with space in it"}, "token"),
    ("hf", {"token": "hf_" + "x" * 400}, "token"),
    ("hf", {"token": 17}, "token"),
    ("hf", {"token": TOKEN, "password": "x"}, "password"),
    ("s3", {"access_key_id": "A", "secret_access_key": "b", "endpoint": "http://s3.example.com"}, "endpoint"),
    ("s3", {"access_key_id": "A", "secret_access_key": "b", "endpoint": "https://u:p@s3.example.com"}, "endpoint"),
    ("s3", {"access_key_id": "A", "secret_access_key": "b", "endpoint": "https://s3.example.com:9000"}, "endpoint"),
    ("s3", {"access_key_id": "A", "secret_access_key": "b", "endpoint": "https://[::1"}, "endpoint"),
    ("s3", {"access_key_id": "A", "secret_access_key": "b", "region": "EU Central"}, "region"),
    ("gs", {"service_account": "not json"}, "service_account"),
    ("gs", {"service_account": json.dumps({**SERVICE_ACCOUNT, "type": "external_account"})}, "service_account"),
    ("gs", {"service_account": json.dumps({**SERVICE_ACCOUNT, "token_uri": "https://e.vil/"})}, "service_account"),
    ("registry", {"server": "r.example.com/team", "username": "a", "password": "b"}, "server"),
    ("registry", {"server": "r.example.com", "username": "a:b", "password": "b"}, "username"),
]


@pytest.mark.parametrize(("kind", "fields", "field"), WRONG)
def test_a_wrong_part_is_named_and_its_value_is_not(
    kind: str, fields: dict[str, Any], field: str, team: Team, alice: User
) -> None:
    with pytest.raises(InvalidError) as caught:
        credentials.create(principal=make.principal(alice), team=team, name="x", kind=kind, fields=fields)
    assert (caught.value.field, caught.value.pointer) == (field, f"/{field}")
    for value in fields.values():
        assert not isinstance(value, str) or len(value) < 6 or value not in str(caught.value)
    assert not Credential.objects.exists()


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "224.0.0.1", "0.0.0.0", "2130706433", "0x7f000001",
     "0177.0.0.1", "127.1", "10.0.0.1.", "localhost", "minio", "minio.storage.svc", "minio.storage.svc.cluster.local",
     "x.internal", "[::1]", "[::ffff:10.0.0.1]", "minio.search-x7k2q"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["s3", "registry"])
def test_a_place_that_cannot_be_public_is_refused_at_its_field(kind: str, host: str, team: Team, alice: User) -> None:
    s3 = {"access_key_id": "A", "secret_access_key": "b", "endpoint": f"https://{host}"}
    fields = s3 if kind == "s3" else {"server": host, "username": "bot", "password": "p"}
    field = "endpoint" if kind == "s3" else "server"
    with pytest.raises(InvalidError) as caught:
        credentials.create(principal=make.principal(alice), team=team, name="x", kind=kind, fields=fields)
    assert (caught.value.field, caught.value.pointer) == (field, f"/{field}")
    assert not Credential.objects.exists()


def test_form_and_api_name_the_field_of_a_private_place(team: Team, alice: User, client: Client) -> None:
    fields = {"access_key_id": "A", "secret_access_key": "b", "endpoint": "https://10.0.0.1"}
    client.force_login(alice)
    page = client.post(reverse("credentials-create"), {"team": team.slug, "kind": "s3", "name": "x", **fields})
    assert page.status_code == 422
    assert "Nothing public can be there" in page.content.decode()
    login = {"kind": "registry", "server": "169.254.169.254", "username": "a", "password": "b"}
    body = {"team": team.slug, "name": "x", **login}
    answer = client.post("/api/v1/credentials/", body, content_type="application/json")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/server")
    assert not Credential.objects.exists()


def test_a_registry_that_an_operator_listed_may_be_private(team: Team, alice: User, settings: Any) -> None:
    settings.OCI_REGISTRIES = ["http://10.0.0.5:5000"]
    settings.SLIPWAY_OCI_REGISTRIES = ["harbor.internal/models"]
    for name, server in (("one", "10.0.0.5:5000"), ("two", "Harbor.internal")):
        fields = {"server": server, "username": "bot", "password": "p"}
        credentials.create(principal=make.principal(alice), team=team, name=name, kind="registry", fields=fields)
    assert [version.settings["server"] for version in SecretVersion.objects.order_by("pk")] == [
        "10.0.0.5:5000",
        "harbor.internal",
    ]


REGISTRIES = ["registry.example.com/models", "registry.example.com:5000", "docker.io/acme"]
LISTED = [
    ("registry.example.com", "registry.example.com"),
    ("https://Registry.Example.COM/", "registry.example.com"),
    ("registry.example.com:443", "registry.example.com"),  # where https is anyway
    ("registry.example.com:5000", "registry.example.com:5000"),
    ("index.docker.io", "index.docker.io"),
]


@pytest.mark.parametrize(("server", "stored"), LISTED)
def test_a_login_is_for_a_registry_of_the_list(
    server: str, stored: str, team: Team, alice: User, settings: Any
) -> None:
    settings.SLIPWAY_OCI_REGISTRIES = REGISTRIES
    fields = {"server": server, "username": "bot", "password": "p"}
    credentials.create(principal=make.principal(alice), team=team, name="x", kind="registry", fields=fields)
    assert SecretVersion.objects.get().settings == {"server": stored}


@pytest.mark.parametrize(
    "server",
    ["registry.example.com:8443", "registry.example.com:80", "registry.example.com:50000", "ghcr.io", "r.example.com",
     "http://registry.example.com", "registry.example.com.evil.example", "acme", "xregistry.example.com:5000"],
)  # fmt: skip
@pytest.mark.parametrize("listed", [REGISTRIES, []])
def test_a_login_for_another_host_or_port_is_refused_with_those_that_are_listed(
    server: str, listed: list[str], team: Team, alice: User, settings: Any
) -> None:
    settings.SLIPWAY_OCI_REGISTRIES = listed
    fields = {"server": server, "username": "bot", "password": "p"}
    with pytest.raises(InvalidError) as caught:
        credentials.create(principal=make.principal(alice), team=team, name="x", kind="registry", fields=fields)
    assert caught.value.field == "server"
    if "://" not in server:
        assert "SLIPWAY_OCI_REGISTRIES" in str(caught.value)
        assert ("registry.example.com:5000, docker.io" in str(caught.value)) is bool(listed)
    assert not Credential.objects.exists()


def test_an_operators_store_may_be_private(team: Team, alice: User, settings: Any) -> None:
    settings.OBJECT_STORES = ["http://minio.storage:9000"]
    fields = {"access_key_id": "A", "secret_access_key": "b", "endpoint": "http://minio.storage:9000"}
    credentials.create(principal=make.principal(alice), team=team, name="x", kind="s3", fields=fields)
    assert SecretVersion.objects.get().settings == {"endpoint": "http://minio.storage:9000"}


def test_a_part_of_another_kind_is_told_with_the_kind(team: Team, alice: User) -> None:
    fields = {"access_key_id": "A", "secret_access_key": "b", "token": TOKEN}
    with pytest.raises(InvalidError) as caught:
        credentials.create(principal=make.principal(alice), team=team, name="x", kind="s3", fields=fields)
    assert str(caught.value) == "A credential of the kind “S3 keys” has no such part."


@pytest.mark.parametrize("name", ["", "Hub", "a b", "-a", "a" * 41, "ä"])
def test_a_name_is_what_a_spec_can_name(name: str, team: Team, alice: User) -> None:
    with pytest.raises(InvalidError) as caught:
        add(make.principal(alice), team, name)
    assert caught.value.field == "name"


@pytest.mark.parametrize("uri", ["s3://bucket/model", "hf://", "https://e.vil/", "hf://a/b $(x)"])
def test_only_models_of_the_hub_are_tested_with_a_token(uri: str, team: Team, alice: User) -> None:
    with pytest.raises(InvalidError) as caught:
        add(make.principal(alice), team, test_uri=uri)
    assert caught.value.field == "test_uri"


def test_a_login_is_tested_with_an_image_of_its_own_registry(team: Team, alice: User, settings: Any) -> None:
    settings.SLIPWAY_OCI_REGISTRIES = ["ghcr.io", "registry.example.com:5000"]
    principal, fields = make.principal(alice), {"server": "ghcr.io", "username": "bot", "password": "p"}
    with pytest.raises(InvalidError, match=r"name one of ghcr\.io") as caught:
        credentials.create(
            principal=principal,
            team=team,
            name="x",
            kind="registry",
            fields=fields,
            test_uri="oci://e.vil.example/x:1",
        )
    assert (caught.value.field, Credential.objects.exists()) == ("test_uri", False)

    row = credentials.create(
        principal=principal, team=team, name="x", kind="registry", fields=fields, test_uri="oci://ghcr.io/acme/x:1"
    )
    Credential.objects.filter(pk=row.pk).update(test_uri="oci://ghcr.io/acme/x:1")  # As a worker has tested it.
    with pytest.raises(InvalidError, match=r"name one of ghcr\.io"):
        credentials.rotate(principal=principal, credential_id=row.pk, fields=fields, test_uri="oci://docker.io/x/y:1")
    # Entered for another registry, it is not tested with an image of the first one again.
    moved = {**fields, "server": "registry.example.com:5000"}
    credentials.rotate(principal=principal, credential_id=row.pk, fields=moved)
    assert SealedValue.objects.order_by("-pk").values_list("test_uri", flat=True)[0] == ""
    credentials.rotate(principal=principal, credential_id=row.pk, fields=fields)
    assert SealedValue.objects.order_by("-pk").values_list("test_uri", flat=True)[0] == "oci://ghcr.io/acme/x:1"


def test_a_team_has_no_end_of_credentials(team: Team, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "PER_TEAM", 1)
    add(make.principal(alice), team)
    with pytest.raises(InvalidError, match="At most 1"):
        add(make.principal(alice), team, "second")
