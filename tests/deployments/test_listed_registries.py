"""Images with weights come from registries that an admin listed, however an address is dressed up."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from deployments.findings import Finding
from deployments.models import Deployment, Team, User
from deployments.preflight import CredentialFacts, check
from deployments.services import requests, source_checks
from deployments.services.errors import RefusedError
from deployments.sources import SourceCheck, SourceCode, SourceError, parse
from deployments.sources.oci import is_listed, parse_image
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make
from tests.deployments.preflighting import said, with_cluster
from tests.deployments.wishes import roles_json

DIGEST = "sha256:" + "c" * 64
LISTED = ("registry.example.com/models", "registry.example.com:5000", "docker.io/acme")
NAME = "registry.example.com/models/granite"
URI = f"oci://{NAME}@{DIGEST}"


def refused(uri: str, listed: tuple[str, ...] | None = LISTED, version: str = "v1.36.3", **more: Any) -> list[Finding]:
    facts = dataclasses.replace(with_cluster(version=version), registries=listed)
    found = said(facts, **{"strategy": "oci-volume", "source": {"uri": uri}, **more})
    return [item for item in found if item.code == "registry_not_listed"]


@pytest.mark.parametrize(
    "uri",
    [
        URI,
        f"oci://Registry.Example.COM/models/granite@{DIGEST}",
        f"oci://registry.example.com/models@{DIGEST}",
        f"oci://registry.example.com:5000/anything/at/all@{DIGEST}",
        f"oci://acme/granite@{DIGEST}",
        f"oci://index.docker.io/acme/granite@{DIGEST}",
    ],
)
def test_an_image_of_a_listed_registry_is_taken(uri: str):
    assert refused(uri) == []


@pytest.mark.parametrize(
    "name",
    [
        "registry.example.com/other/granite",
        "registry.example.com/models-of-others/granite",
        "registry.example.com/mod/els",
        "registry.example.com.evil.example/models/granite",
        "registry.example/models/granite",
        "evil.example/registry.example.com/models/granite",
        "xregistry.example.com/models/granite",
        "registry.example.com:443/models/granite",
        "registry.example.com:50000/models/granite",
        "registry-example.com/models/granite",
        "10.0.0.5:5000/models/granite",
        "localhost/models/granite",
        # Without a host the first part is an owner of the hub, and without an owner the hub's own.
        "registry/models/granite",
        "granite",
        "acme",
        "docker.io/acme",
        "docker.io/library/acme",
        "docker.io.evil.example/acme/granite",
        "registry-1.docker.io/acme/granite",
    ],
)
def test_an_image_of_another_one_is_refused_with_those_that_are_listed(name: str):
    (finding,) = refused(f"oci://{name}@{DIGEST}")

    assert (finding.field, finding.is_error) == ("source_uri", True)
    image = parse_image(f"oci://{name}@{DIGEST}")
    assert image.name in finding.message
    assert "registry.example.com/models, registry.example.com:5000, docker.io/acme" in finding.remedy
    assert f"list {image.registry}." in finding.remedy


@pytest.mark.parametrize(
    "name",
    [
        "registry.example.com@evil.example/models/granite",
        "user:secret@registry.example.com/models/granite",
        "registry.example.com/models/../../evil/granite",
        "registry.example.com/models/%2e%2e/evil",
        "registry.example.com//models/granite",
        "registry.example.com/Models/granite",
        "REGISTRY/models/granite",
        "registry.example.com./models/granite",
        "registry.example.com\\models\\granite",
        "registry.example.com/models/granite#",
        "registry.example.com/models/granite?x=1",
        "registrу.example.com/models/granite",  # a Cyrillic letter
        "[::1]:5000/models/granite",
    ],
)
def test_what_no_runtime_would_read_that_way_is_no_address_at_all(name: str):
    with pytest.raises(SourceError):
        parse(f"oci://{name}@{DIGEST}")


def test_every_way_of_an_image_into_pods_is_held_against_the_list():
    elsewhere = f"oci://other.example.com/m@{DIGEST}"

    assert refused(elsewhere, version="v1.36.3")  # mounted by the cluster
    assert refused(elsewhere, version="v1.34.1")  # its own shell hands the weights over
    facts = dataclasses.replace(with_cluster(version="v1.36.3"), registries=LISTED)
    roles = check(DeploymentSpec.from_json(roles_json(source={"uri": elsewhere})), "chat", "search", facts)
    assert "registry_not_listed" in {item.code for item in roles}


@pytest.mark.parametrize("uri", ["models:/chat/3", "model-registry://chat/v3"])
def test_what_an_entry_stands_for_is_held_against_it_too(uri: str):
    def found(loads: str) -> list[Finding]:
        facts = dataclasses.replace(
            with_cluster(version="v1.36.3"),
            registries=LISTED,
            source_check=SourceCheck(SourceCode.FOUND, "", loads=loads),
        )
        return [item for item in said(facts, source={"uri": uri}) if item.code == "registry_not_listed"]

    assert found(URI) == []
    (finding,) = found(f"oci://registry.example.com.evil.example/m@{DIGEST}")
    assert finding.message.startswith(f"{uri} is an image that lies in registry.example.com.evil.example/m")


def test_without_a_list_no_image_is_taken():
    (finding,) = refused(URI, ())

    assert "has listed no registry" in finding.message
    assert finding.remedy == "Ask an admin to list registry.example.com, or name the model at another source."


def test_sources_of_other_kinds_have_no_registry():
    assert refused("hf://Qwen/Qwen2.5-7B-Instruct", (), strategy="standard") == []


def test_adapters_come_from_no_registry():
    adapters = [{"name": "tuned", "uri": URI}]
    facts = dataclasses.replace(with_cluster(version="v1.36.3"), registries=LISTED)

    assert "adapter_source" in {item.code for item in said(facts, adapters=adapters)}


def test_a_host_alone_lists_all_of_it_and_nothing_beside():
    image = parse_image(URI)
    assert is_listed(image, ["registry.example.com"])
    assert is_listed(image, [NAME])
    assert not is_listed(image, ["example.com", "registry.example.com/models/granite/7b", "registry.example.com:443"])
    assert is_listed(parse_image("oci://granite"), ["docker.io/library"])
    assert not is_listed(parse_image("oci://granite"), ["docker.io/granite"])


@pytest.mark.parametrize(
    ("server", "name", "refused_there"),
    [
        ("registry.example.com", NAME, False),
        ("Registry.example.com", NAME, False),
        ("registry.example.com:5000", "registry.example.com:5000/m", False),
        ("docker.io", "acme/granite", False),
        ("index.docker.io", "docker.io/acme/granite", False),
        ("registry.example.com:5000", NAME, True),
        ("registry.example.com", "registry.example.com:5000/m", True),
        ("docker.io", NAME, True),
    ],
)
def test_a_login_opens_its_own_registry_alone_port_included(server: str, name: str, refused_there: bool):
    facts = dataclasses.replace(
        with_cluster(version="v1.36.3"),
        registries=LISTED,
        credentials={"login": CredentialFacts(kind="registry", server=server)},
    )
    source = {"uri": f"oci://{name}@{DIGEST}", "credential": "login"}
    found = said(facts, strategy="oci-volume", source=source)
    elsewhere = [item for item in found if item.code == "credential_elsewhere"]
    assert [(item.field, item.is_error) for item in elsewhere] == ([("credential", True)] if refused_there else [])
    assert "registry_not_listed" not in {item.code for item in found}


def test_registries_that_are_asked_about_tags_are_listed_by_that(settings: Any):
    settings.SLIPWAY_OCI_REGISTRIES = ["ghcr.io/acme"]
    settings.OCI_REGISTRIES = ["registry.example.com", "http://10.0.0.5:5000"]

    assert source_checks.listed_registries() == ("ghcr.io/acme", "registry.example.com", "10.0.0.5:5000")


@pytest.mark.django_db
@pytest.mark.usefixtures("hub")
def test_a_site_that_lists_none_takes_none(settings: Any, ann: User, team: Team):
    spec = DeploymentSpec.from_json(make.a_spec(strategy="oci-volume", source={"uri": URI}))

    def ask() -> Deployment:
        return requests.submit(principal=make.principal(ann), team=team, name="chat", spec=spec)

    for listed in [], ["other.example.com"]:
        settings.SLIPWAY_OCI_REGISTRIES = listed
        with pytest.raises(RefusedError) as failure:
            ask()
        assert "registry_not_listed" in {item.code for item in failure.value.findings}
        assert not Deployment.objects.exists()
    settings.SLIPWAY_OCI_REGISTRIES = ["registry.example.com/models"]
    assert ask().latest is not None


def test_the_command_line_knows_the_list_of_the_environment(settings: Any, tmp_path: Path, capsys: Any):
    wish = tmp_path / "wish.json"
    wish.write_text(json.dumps(make.a_spec(strategy="oci-volume", source={"uri": URI})))

    def said_by_command() -> set[str]:
        with contextlib.suppress(CommandError):  # what is printed says why
            call_command("spec", "check", str(wish))
        return {item["code"] for item in json.loads(capsys.readouterr().out)["findings"]}

    assert "registry_not_listed" not in said_by_command()  # nobody said
    settings.SLIPWAY_OCI_REGISTRIES = ["other.example.com"]
    assert "registry_not_listed" in said_by_command()
    settings.SLIPWAY_OCI_REGISTRIES = ["registry.example.com"]
    assert "registry_not_listed" not in said_by_command()
