"""Where weights come from: never from inside, whoever resolves the name, and from nowhere unseen by policy alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.commandline import check_document
from deployments.engine.facts import ModelFacts
from deployments.models import Deployment, Flavor, Team, User
from deployments.preflight import CredentialFacts
from deployments.preflight.sources import unseen_server
from deployments.services import asks, model_checks, requests, source_checks
from deployments.services.errors import RefusedError
from deployments.sources import SourceCheck, SourceCode, parse
from deployments.spec import DeploymentSpec
from portal.lib import outbound
from tests.deployments import factories as make
from tests.deployments.preflighting import codes, said, the
from tests.deployments.wishes import facts_of, spec_json

AWAY = SourceCheck(SourceCode.UNREACHABLE, "files.example.com could not be asked (it has no address).", "Later.")
FILE = {"uri": "https://files.example.com/m.tar.gz"}
HOSTS = (
    *("kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "kubernetes.default", "minio", "localhost"),
    *("store.search-x7k2q", "x.internal", "x.local", "x.home.arpa", "x.test", "x.invalid"),
    *("127.0.0.1", "10.0.0.8", "169.254.169.254", "2130706433", "0x7f000001", "0177.0.0.1", "127.1"),
)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("asked", [None, AWAY])
def test_a_download_from_inside_is_refused_at_its_field(host: str, asked: SourceCheck | None):
    found = said(facts_of(source_check=asked), source={"uri": f"https://{host}/m.gguf"})
    finding = the("source_inside", found)
    assert (finding.field, finding.is_error) == ("source_uri", True)
    assert "DOWNLOAD_SERVERS" in finding.remedy


@pytest.mark.parametrize("uri", ["http://files.example.com/m.gguf", "https://files.example.com:8443/m.gguf"])
def test_a_download_is_https_on_its_own_port(uri: str):
    assert "443" in the("source_inside", said(source={"uri": uri})).message


def test_what_an_entry_of_a_registry_stands_for_is_held_to_the_same():
    leads = SourceCheck(SourceCode.FOUND, "It is there.", "", None, "https://minio.storage.svc/m.gguf")
    found = said(facts_of(source_check=leads), source={"uri": "models:/chat/3"})
    assert the("source_inside", found).message == "Names that end in “.svc” are never public."


def test_a_server_that_an_operator_configured_may_be_inside():
    facts = facts_of(origins=("http://files.storage.svc:9000",))
    assert "source_inside" not in codes(said(facts, source={"uri": "http://files.storage.svc:9000/m.gguf"}))
    assert "source_inside" in codes(said(facts, source={"uri": "http://files.storage.svc:9001/m.gguf"}))
    assert "source_inside" in codes(said(facts, source={"uri": "https://files.storage.svc/m.gguf"}))


def test_a_site_without_a_database_is_held_to_the_same():
    document = {"name": "chat", "team": "search", "spec": spec_json(source={"uri": "https://minio.svc/m.gguf"})}
    assert "source_inside" in {item["code"] for item in check_document(document)["findings"]}
    known = {"origins": ["https://minio.svc"]}
    assert "source_inside" not in {item["code"] for item in check_document(document, known)["findings"]}


def test_one_fault_is_told_once():
    refused = SourceCheck(SourceCode.UNUSABLE, "Nothing is downloaded from there.", "Use a public address.")
    found = said(facts_of(source_check=refused), source={"uri": "https://minio.svc/m.gguf"})
    assert {"source_inside", "source_unusable"} & codes(found) == {"source_unusable"}


def test_keys_that_were_stored_for_a_server_inside_are_refused():
    keys = CredentialFacts(kind="s3", endpoint="https://10.0.0.1")
    source = {"uri": "s3://bucket/m", "credential": "store"}
    finding = the("credential_inside", said(facts_of(credentials={"store": keys}), source=source))
    assert (finding.field, finding.is_error) == ("credential", True)
    known = facts_of(credentials={"store": keys}, origins=("https://10.0.0.1",))
    assert "credential_inside" not in codes(said(known, source=source))
    public = facts_of(credentials={"store": dataclasses.replace(keys, endpoint="https://s3.example.com")})
    assert "credential_inside" not in codes(said(public, source=source))


def test_a_name_inside_is_never_resolved(monkeypatch: pytest.MonkeyPatch):
    def resolve(*_: object) -> list[str]:
        raise AssertionError("asked")

    monkeypatch.setattr(outbound, "resolve", resolve)
    reply = source_checks.door()("https://kubernetes.default.svc/m.gguf")
    assert (reply.status, reply.forbidden) == (0, True)


@pytest.mark.parametrize(
    ("asked", "model", "told"),
    [
        (AWAY, None, True),
        (dataclasses.replace(AWAY, model=ModelFacts(id="m")), ModelFacts(id="m"), False),  # it was seen before
        (SourceCheck(SourceCode.FOUND, "There."), None, False),
    ],
)
def test_a_download_that_was_never_seen_is_told_of(asked: SourceCheck, model: ModelFacts | None, told: bool):
    found = said(facts_of(source_check=asked, model=model), source=FILE)
    assert ("source_unseen" in codes(found)) is told
    assert "source_inside" not in codes(found)


@pytest.mark.parametrize("asked", [None, AWAY])
def test_a_server_that_an_admin_configured_needs_not_be_reached(asked: SourceCheck | None):
    spec = DeploymentSpec.from_json(spec_json(source=FILE))
    theirs = facts_of(source_check=asked)
    own = dataclasses.replace(theirs, origins=("https://files.example.com/",))
    source = parse(FILE["uri"])
    assert unseen_server(source, spec, theirs) == "https://files.example.com"
    assert unseen_server(source, spec, own) == ""
    assert "source_unseen" not in codes(said(own, source=FILE))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (CredentialFacts(kind="s3", endpoint="https://s3.example.com", answered=False), True),
        (CredentialFacts(kind="s3", endpoint="https://s3.example.com", answered=True), False),
        (CredentialFacts(kind="s3", endpoint="https://minio.storage", answered=False), False),  # configured by an admin
        (CredentialFacts(kind="s3", answered=False), False),  # Amazon's own
    ],
)
def test_keys_of_a_server_that_never_answered_are_told_of(keys: CredentialFacts, told: bool):
    facts = facts_of(credentials={"store": keys}, origins=("https://minio.storage",))
    source = {"uri": "s3://bucket/m", "credential": "store"}
    found = [item for item in said(facts, source=source) if item.code == "source_unseen"]
    assert [(item.field, item.is_error) for item in found] == ([("credential", False)] if told else [])
    spec = DeploymentSpec.from_json(spec_json(source=source))
    assert unseen_server(parse("s3://bucket/m"), spec, facts) == (keys.endpoint if told else "")


def test_what_an_entry_of_a_registry_stands_for_is_told_of_too():
    leads = SourceCheck(SourceCode.UNREACHABLE, "Not reached.", "", None, "https://files.example.com/m.gguf")
    assert "source_unseen" in codes(said(facts_of(source_check=leads), source={"uri": "models:/chat/3"}))
    keys = CredentialFacts(kind="s3", endpoint="https://s3.example.com", answered=False)
    leads = SourceCheck(SourceCode.FOUND, "There.", "", None, "s3://bucket/m")
    facts = facts_of(source_check=leads, credentials={"store": keys})
    source = {"uri": "models:/chat/3", "credential": "store"}
    assert "source_unseen" in codes(said(facts, source=source))


@pytest.mark.parametrize(
    "uri",
    ["hf://a/b", "s3://bucket/m", "gs://bucket/m", "pvc://claim/m", f"oci://registry.example.com/m@sha256:{'c' * 64}"],
)
def test_servers_that_nobody_typed_need_no_admin(uri: str):
    """The hub, Amazon's and Google's buckets, volumes and listed registries: an admin chose them, or they are fixed."""
    away = SourceCheck(SourceCode.UNREACHABLE, "Not reached.")
    assert "source_unseen" not in codes(said(facts_of(source_check=away), source={"uri": uri}))
    spec = DeploymentSpec.from_json(spec_json(source={"uri": uri}))
    assert unseen_server(parse(uri), spec, facts_of(source_check=away)) == ""


def submitted(user: User, team: Team, source: dict[str, Any]) -> Deployment:
    spec = DeploymentSpec.from_json(make.a_spec(source=source))
    return requests.submit(principal=make.principal(user), team=team, name="chat", spec=spec)


@pytest.mark.django_db
@pytest.mark.usefixtures("hub")
def test_policy_alone_sends_the_cluster_nowhere_unseen(ann: User, team: Team, h100: Flavor, monkeypatch: Any):
    Team.objects.update(policy=Team.Policy.AUTO)
    monkeypatch.setattr(model_checks.source_checks, "check", lambda *_, **__: AWAY)
    deployment = submitted(ann, team, FILE)
    revision = deployment.latest
    assert revision is not None
    assert (deployment.state, revision.guarded) == (Deployment.State.AWAITING_APPROVAL, [asks.UNSEEN])
    assert not revision.approvals.exists()
    team.refresh_from_db()
    (ask,) = asks.reasons(team, gpus=1, guarded=revision.guarded, within=True)
    assert (ask.code, ask.who) == ("source_unseen", asks.ADMIN)
    assert asks.in_words([ask]).startswith("An admin approves: Slipway has never reached")


@pytest.mark.django_db
@pytest.mark.usefixtures("hub")
def test_policy_approves_a_download_that_was_seen(ann: User, team: Team, h100: Flavor, monkeypatch: Any):
    Team.objects.update(policy=Team.Policy.AUTO)
    seen = SourceCheck(SourceCode.FOUND, "There.", "", ModelFacts(id="m"))
    monkeypatch.setattr(model_checks.source_checks, "check", lambda *_, **__: seen)
    deployment = submitted(ann, team, FILE)
    assert deployment.approved == deployment.latest


@pytest.mark.django_db
@pytest.mark.usefixtures("hub")
def test_a_request_for_a_name_inside_stores_nothing(ann: User, team: Team, h100: Flavor):
    with pytest.raises(RefusedError) as error:
        submitted(ann, team, {"uri": "https://kubernetes.default.svc/x.gguf"})
    assert error.value.field == "source_uri"
    assert not Deployment.objects.exists()
