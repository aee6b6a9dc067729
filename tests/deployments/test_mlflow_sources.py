"""Entries of a real MLflow registry: versions, aliases, stages, and what the cluster can do with their artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deployments.services import source_checks
from deployments.sources import SourceCode, mlflow
from tests import servers

ARTIFACTS = {"1": "s3://weights/chat/1", "2": "gs://weights/chat/2", "3": "dbfs:/models/chat/3"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.mlflow(tmp_path_factory.mktemp("mlflow")) as url:
        _post(url, "registered-models/create", name="chat")
        for number, source in ARTIFACTS.items():
            made = _post(url, "model-versions/create", name="chat", source=source)
            assert made["model_version"]["version"] == number
        _post(url, "registered-models/alias", name="chat", alias="production", version="2")
        _post(url, "model-versions/transition-stage", name="chat", version="1", stage="Staging")
        _post(url, "registered-models/create", name="empty")
        yield url


def _post(url: str, path: str, **body: Any) -> Any:
    answer = httpx.post(f"{url}/api/2.0/mlflow/{path}", json=body, trust_env=False, timeout=20)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("uri", "artifact"),
    [
        ("models:/chat/1", ARTIFACTS["1"]),
        ("models:/chat/2", ARTIFACTS["2"]),
        ("models:/chat@production", ARTIFACTS["2"]),
        ("models:/chat/Staging", ARTIFACTS["1"]),
    ],
)
def test_an_entry_is_its_artifact(server: str, uri: str, artifact: str):
    found = mlflow.resolve(uri, source_checks.door([server]), server)
    assert (found.code, found.loads) == (SourceCode.FOUND, artifact)


def test_the_latest_is_the_highest_number_and_may_lie_where_nobody_reaches_it(server: str):
    found = mlflow.resolve("models:/chat/latest", source_checks.door([server]), server)
    assert found.code is SourceCode.UNUSABLE
    assert "is on dbfs" in found.message


@pytest.mark.parametrize(
    "uri",
    ["models:/chat/9", "models:/chat@nobody", "models:/nothing/1", "models:/nothing@x", "models:/empty/latest",
     "models:/m-0a1b2c3d"],
)  # fmt: skip
def test_what_is_not_there_is_not_found(server: str, uri: str):
    assert mlflow.resolve(uri, source_checks.door([server]), server).code is SourceCode.NOT_FOUND


def test_a_registry_that_is_away_is_unreachable():
    away = "http://127.0.0.1:9"
    assert mlflow.resolve("models:/chat/1", source_checks.door([away]), away).code is SourceCode.UNREACHABLE
