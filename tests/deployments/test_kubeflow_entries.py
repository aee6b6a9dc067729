"""Entries of a Kubeflow Model Registry: what they stand for by the answers of the real server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from deployments.services import source_checks
from deployments.sources import Reply, SourceCheck, SourceCode, SourceError, kubeflow, parse
from tests.model_registry import Recording

REGISTRY = "http://registry.example:8080/"
QUOTED = "Qwen%2FQwen2.5%207B%20%E2%80%9C%C3%A9%E2%80%9D/1.0%2Bcu12%3A%20beta%20%26%20more%3F"
FOUND = {
    "smol/v1": "s3://weights/smol",
    "granite/replaced": "s3://models/granite/2",
    "granite/hub": "hf://ibm-granite/granite-3.1-8b-instruct",
    "granite/claim": "pvc://models/granite",
    "granite/image": "oci://registry.example.com/models/granite:1.0",
    "granite/client": "s3://models/granite",
    "granite/hub-file": "hf://ibm-granite/granite-3.1-2b-instruct",
    "granite/hub-commit": "hf://ibm-granite/granite-3.1-2b-instruct:0a1b2c3",
    "granite/hub-gguf": "https://huggingface.co/ibm-granite/granite-gguf/resolve/main/granite-q4.gguf",
    "granite/described": "s3://models/granite/1",
    "granite/long": "s3://models/granite/1",
    "granite/coming": "s3://models/granite/1",
    "granite/retired": "s3://models/granite/0",
    "granite-2/v1": "s3://models/granite-2",
    QUOTED: "s3://models/qwen",
}
REFUSED = {
    "granite/bare": (SourceCode.UNUSABLE, "names no model artifact"),
    "granite/papers": (SourceCode.UNUSABLE, "names no model artifact"),
    "granite/gone": (SourceCode.UNUSABLE, "the newest is ABANDONED"),
    "granite/stored": (SourceCode.UNUSABLE, "no address"),
    "none/v1": (SourceCode.NOT_FOUND, "no model “none”."),
    "granite/v99": (SourceCode.NOT_FOUND, "no version “v99” of granite."),
    "GRANITE/hub": (SourceCode.NOT_FOUND, "no model “GRANITE”, but “granite”."),
    "granite/HUB": (SourceCode.NOT_FOUND, "no version “HUB” of granite, but “hub”."),
}
# Recorded, and never asked for by the portal.
WRONG = {
    f"{kubeflow.API}/registered_model": (400, "Bad Request"),
    f"{kubeflow.API}/model_version?name=v1": (400, "Bad Request"),
    f"{kubeflow.API}/model_versions/-/artifacts": (400, "Bad Request"),
    f"{kubeflow.API}/model_versions/999/artifacts": (200, None),
    "/api/model_registry/v0/registered_model?name=smol": (404, None),
}


def resolved(entry: str, ask: Any) -> SourceCheck:
    """What the registry's entry stands for."""
    return kubeflow.resolve(f"model-registry://{entry}", ask, REGISTRY)


class Altered(Recording):
    """The recorded server, but for answers to paths that hold a text."""

    def __init__(self, part: str, reply: Reply) -> None:
        super().__init__()
        self.part, self.reply = part, reply

    def __call__(self, url: str, *, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        return self.reply if self.part in url else super().__call__(url, headers=headers, method=method)


@pytest.mark.parametrize(("entry", "loads"), FOUND.items())
def test_an_entry_is_its_newest_model_artifact(entry: str, loads: str):
    found = resolved(entry, Recording())
    assert (found.code, found.loads) == (SourceCode.FOUND, loads)
    assert parse(found.loads).uri == loads
    assert f"{entry} is {loads}" in found.message


@pytest.mark.parametrize(("entry", "code", "says"), [(entry, *told) for entry, told in REFUSED.items()])
def test_what_stands_for_nothing_says_why(entry: str, code: SourceCode, says: str):
    found = resolved(entry, Recording())
    assert (found.code, found.loads, bool(found.remedy)) == (code, "", True)
    assert says in found.message


def test_the_portal_sends_what_was_recorded():
    recording = Recording()
    for entry in (*FOUND, *REFUSED):
        resolved(entry, recording)
    assert {*recording.asked, *WRONG} == set(recording.rows)
    assert {
        path: (recording.rows[path]["status"], recording.rows[path].get("json", {}).get("code")) for path in WRONG
    } == WRONG


def test_documents_of_a_version_are_read_past_page_by_page():
    recording = Recording()
    resolved("granite/long", recording)
    *_, first, second = recording.asked
    token = recording.rows[first]["json"]["nextPageToken"]
    assert {item["artifactType"] for item in recording.rows[first]["json"]["items"]} == {"doc-artifact"}
    assert parse_qs(urlsplit(second).query)["nextPageToken"] == [token]
    endless = Altered("/artifacts", Reply(200, {"items": [], "nextPageToken": "more"}))
    assert resolved("smol/v1", endless).code is SourceCode.UNUSABLE


def test_an_address_of_the_registrys_own_client_says_which_server_it_is_kept_at():
    found = resolved("granite/client", Recording())
    assert "kept at https://minio.example.com: its credential names that endpoint" in found.message


def test_what_is_archived_is_found_and_said_to_be(monkeypatch: pytest.MonkeyPatch, settings: Any):
    assert "archived this version" in resolved("granite/retired", Recording()).message
    assert "archived this model" in resolved("granite-2/v1", Recording()).message
    settings.MODEL_REGISTRY_URL = REGISTRY
    monkeypatch.setattr(source_checks, "door", lambda *origins: Recording())
    there = SourceCheck(SourceCode.FOUND, "30 layers.", loads="s3://models/granite/0/")
    monkeypatch.setattr(source_checks.s3, "check", lambda *words: there)
    found = source_checks.check(parse("model-registry://granite/retired"))
    assert found is not None
    assert (found.code, found.loads) == (SourceCode.FOUND, "s3://models/granite/0/")
    assert "archived this version" in found.message
    assert found.message.endswith("30 layers.")


def test_a_registry_that_cannot_answer_says_what_it_said():
    """Release 0.2.22 on PostgreSQL finds models and versions, and fails at the artifacts of each."""
    for entry in FOUND:
        found = resolved(entry, Recording("postgresql"))
        assert found.code is SourceCode.UNREACHABLE
        assert 'status 500: error listing artifacts: ERROR: relation "attribution" does not exist' in found.message
    for entry in ("none/v1", "granite/v99", "GRANITE/hub", "granite/HUB"):
        assert resolved(entry, Recording("postgresql")).code is SourceCode.NOT_FOUND
    starting = resolved("smol/v1", Recording("starting"))
    assert (starting.code, "status 503" in starting.message) == (SourceCode.UNREACHABLE, True)
    alone = resolved("smol/v1", Recording("without-database"))
    assert (alone.code, "status 500: error listing models" in alone.message) == (SourceCode.UNREACHABLE, True)


def test_another_server_in_its_place_is_not_taken_for_a_registry():
    """What the real one answers where it has no such path is a plain page, as any web server's."""
    nowhere = Recording()(f"{REGISTRY.rstrip('/')}/api/model_registry/v0/registered_model?name=smol")
    assert (nowhere.status, nowhere.json) == (404, None)
    found = resolved("smol/v1", Altered("registered_model", nowhere))
    assert (found.code, "MODEL_REGISTRY_URL" in found.remedy) == (SourceCode.UNREACHABLE, True)


@pytest.mark.parametrize("path", ["registered_model", "model_version?", "/artifacts"])
@pytest.mark.parametrize("nonsense", [None, [], "x", {}, {"id": None}, {"id": "../x"}, {"items": None}, {"items": 7}])
def test_nonsense_is_no_answer_of_a_registry(path: str, nonsense: Any):
    found = resolved("smol/v1", Altered(path, Reply(200, nonsense)))
    assert (found.code, "as one does" in found.message) == (SourceCode.UNREACHABLE, True)


MODEL = {"artifactType": "model-artifact"}


@pytest.mark.parametrize(
    "item", [7, {"uri": "s3://b/m"}, {**MODEL, "uri": 5}, MODEL, {**MODEL, "uri": "s3://b/" + "x" * 600}]
)
def test_a_nonsense_artifact_is_none(item: Any):
    found = resolved("smol/v1", Altered("/artifacts", Reply(200, {"items": [item]})))
    assert (found.code, found.loads) == (SourceCode.UNUSABLE, "")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://models/granite?versionId=3",
        "s3://models/granite?endpoint=https://minio.example.com&x=1",
        "s3://models/granite?defaultRegion=us-east-1",
        "https://huggingface.co/owner/model/resolve/main/4bit/model.safetensors",
        "https://huggingface.co/owner/model/resolve/main/model.safetensors?download=true",
    ],
)
def test_an_address_that_says_more_than_can_be_kept_is_not_cut_short(uri: str):
    found = resolved("smol/v1", Altered("/artifacts", Reply(200, {"items": [{**MODEL, "uri": uri}]})))
    assert found.loads == uri
    with pytest.raises(SourceError):
        parse(uri)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, SourceCode.UNREACHABLE),
        (401, SourceCode.UNUSABLE),
        (403, SourceCode.UNUSABLE),
        (500, SourceCode.UNREACHABLE),
        (0, SourceCode.UNREACHABLE),
    ],
)
def test_each_refusal_is_told_apart(status: int, code: SourceCode):
    for path in ("registered_model", "model_version?", "/artifacts"):
        assert resolved("smol/v1", Altered(path, Reply(status))).code is code


@pytest.mark.parametrize(
    "entry",
    [
        "granite",
        "Qwen/Qwen2.5/v1",
        "host:8080/granite",
        "granite/%FF",
        "granite/%0A",
        "%20/v1",
        "granite/%E2%80%AE",
        f"{'x' * 256}/v1",
    ],
)
def test_what_is_no_entry_is_refused_in_words(entry: str):
    with pytest.raises(SourceError) as refused:
        parse(f"model-registry://{entry}")
    assert refused.value.finding.code == "source_form"
    assert "codec" not in json.dumps(refused.value.finding.message)


def test_a_name_with_a_slash_says_how_it_is_written():
    with pytest.raises(SourceError, match="%2F"):
        parse("model-registry://Qwen/Qwen2.5/v1")
    source = parse("model-registry://Qwen%2FQwen2.5/v1")
    assert (source.container, source.path) == ("Qwen%2FQwen2.5", "v1")
