"""Entries of registries: what those of MLflow are resolved to, why they cannot be, and what is made of either kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest

from deployments.services import model_checks, source_checks
from deployments.sources import Reply, SourceCheck, SourceCode, kubeflow, mlflow, parse

REGISTRY, MLFLOW = "http://registry.example:8080", "http://mlflow.example:5000"


class Answering:
    """Answers by path and query, in place of a server."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, url: str, *, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        parts = urlsplit(url)
        key = f"{parts.path}?{parts.query}" if parts.query else parts.path
        self.asked.append(key)
        found = self.answers.get(key)
        if isinstance(found, Reply):
            return found
        return Reply(404, {"code": "", "message": "not found"}) if found is None else Reply(200, found)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, SourceCode.UNUSABLE),
        (403, SourceCode.UNUSABLE),
        (500, SourceCode.UNREACHABLE),
        (0, SourceCode.UNREACHABLE),
    ],
)
def test_each_refusal_of_mlflow_is_told_apart(status: int, code: SourceCode):
    refuses = Reply(status)

    class Refusing(Answering):
        def __call__(self, url: str, **_: Any) -> Reply:
            return refuses

    assert mlflow.resolve("models:/chat/3", Refusing({}), MLFLOW).code is code


@pytest.mark.parametrize(
    ("artifact", "says"),
    [
        ("mlflow-artifacts:/1/models/m-1/artifacts", "MLflow's own server"),
        ("dbfs:/databricks/m", "dbfs"),
        ("runs:/0a1b/model", "runs"),
        ("/home/ann/mlruns/1", "a disk"),
        ("file:///mlruns/1", "a disk"),
        ("", "no artifact"),
        (7, "no artifact"),
        ("s3://" + "x" * 600, "no artifact"),
    ],
)
def test_an_artifact_that_the_cluster_cannot_reach_says_where_it_is(artifact: Any, says: str):
    answers = {"/api/2.0/mlflow/model-versions/get-download-uri?name=chat&version=3": {"artifact_uri": artifact}}
    found = mlflow.resolve("models:/chat/3", Answering(answers), MLFLOW)
    assert found.code is SourceCode.UNUSABLE
    assert says in found.message


class Registries:
    """Registries whose entries are `leads`, and buckets that hold nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: Any, leads: Mapping[str, str]) -> None:
        settings.MLFLOW_URL, settings.MODEL_REGISTRY_URL = MLFLOW, REGISTRY
        self.asked: list[str] = []

        def resolve(uri: str, ask: Any, server: str) -> SourceCheck:
            self.asked.append(uri)
            return SourceCheck(SourceCode.FOUND, "", loads=leads[uri])

        monkeypatch.setattr(mlflow, "resolve", resolve)
        monkeypatch.setattr(kubeflow, "resolve", resolve)
        monkeypatch.setattr(
            source_checks.s3,
            "check",
            lambda *words: SourceCheck(SourceCode.FOUND, "There.", loads=f"s3://{words[0]}/m/"),
        )


def test_an_entry_counts_as_what_it_leads_to(monkeypatch: pytest.MonkeyPatch, settings: Any):
    Registries(
        monkeypatch, settings, {"models:/chat/3": "model-registry://chat/v3", "model-registry://chat/v3": "s3://bkt/m"}
    )
    found = source_checks.check(parse("models:/chat/3"))
    assert found is not None
    assert (found.code, found.loads) == (SourceCode.FOUND, "s3://bkt/m/")
    Registries(monkeypatch, settings, {"models:/chat/3": "pvc://claim/m"})
    claim = source_checks.check(parse("models:/chat/3"))
    assert claim is not None
    assert (claim.code, claim.loads) == (SourceCode.FOUND, "pvc://claim/m")


def test_what_takes_a_teams_own_keys_is_only_resolved(monkeypatch: pytest.MonkeyPatch, settings: Any):
    Registries(monkeypatch, settings, {"models:/chat/3": "s3://bkt/m"})
    monkeypatch.setattr(source_checks.s3, "check", lambda *words: pytest.fail("nobody asks as anybody"))
    found = source_checks.check(parse("models:/chat/3"), follow=False)
    assert found is not None
    assert (found.code, found.loads) == (SourceCode.FOUND, "s3://bkt/m")


@pytest.mark.django_db
def test_an_artifact_that_is_away_leaves_its_address(monkeypatch: pytest.MonkeyPatch, settings: Any):
    Registries(monkeypatch, settings, {"models:/chat/3": "s3://bkt/m"})
    away = SourceCheck(SourceCode.UNREACHABLE, "The S3 server could not be asked.", "Later.")
    monkeypatch.setattr(source_checks.s3, "check", lambda *words: away)
    found = model_checks.look_up("models:/chat/3")
    assert found is not None
    assert (found.code, found.loads) == (SourceCode.UNREACHABLE, "s3://bkt/m")
    assert model_checks.address_of("models:/chat/3", None, found) == "s3://bkt/m/"
    alone = model_checks.look_up("models:/chat/3", credential=True)
    assert alone is not None
    assert alone.code is SourceCode.FOUND
    assert model_checks.look_up("s3://bkt/m", credential=True) is None


def test_an_alias_that_leads_round_in_a_circle_is_refused(monkeypatch: pytest.MonkeyPatch, settings: Any):
    leads = {"models:/a@b": "models:/c@d", "models:/c@d": "models:/a@b"}
    registries = Registries(monkeypatch, settings, leads)
    found = source_checks.check(parse("models:/a@b"))
    assert found is not None
    assert (found.code, "circle" in found.message) == (SourceCode.UNUSABLE, True)
    assert registries.asked == ["models:/a@b", "models:/c@d"]
    longer = {f"models:/m@a{i}": f"models:/m@a{i + 1}" for i in range(9)}
    Registries(monkeypatch, settings, longer)
    far = source_checks.check(parse("models:/m@a0"))
    assert far is not None
    assert far.code is SourceCode.UNUSABLE


def test_an_artifact_of_another_kind_says_what_it_is(monkeypatch: pytest.MonkeyPatch, settings: Any):
    Registries(monkeypatch, settings, {"models:/chat/3": "wasbs://container@account/m"})
    found = source_checks.check(parse("models:/chat/3"))
    assert found is not None
    assert found.code is SourceCode.UNUSABLE
    assert "wasbs" in found.message


def test_without_a_registry_that_is_said(settings: Any):
    settings.MLFLOW_URL = settings.MODEL_REGISTRY_URL = ""
    for uri in ("models:/chat/3", "model-registry://chat/v3"):
        found = source_checks.check(parse(uri))
        assert found is not None
        assert (found.code, "knows of no" in found.message) == (SourceCode.UNUSABLE, True)
