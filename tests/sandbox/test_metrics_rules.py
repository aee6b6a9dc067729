"""Rule files against a Prometheus that is given bad ones, and that goes away."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.metrics.rules import RuleFolder, file_name, render
from tests.conftest import PrometheusServer


def rule(name: str, expr: Any = "1", namespace: str = "team-a") -> dict[str, Any]:
    group = {"name": name, "partial_response_strategy": "abort", "rules": [{"record": f"slipway:{name}", "expr": expr}]}
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {"groups": [group]}}


def loaded(prometheus: PrometheusServer) -> set[str]:
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/rules", timeout=10) as answer:
        groups = json.load(answer)["data"]["groups"]
    return {entry["name"] for group in groups for entry in group["rules"]}


@pytest.fixture
def folder(prometheus: PrometheusServer) -> RuleFolder:
    async def reload() -> str | None:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(f"{prometheus.url}/-/reload")
        return None if answer.is_success else answer.text

    return RuleFolder(prometheus.rules, reload)


def test_rules_are_loaded_changed_and_taken_out(folder: RuleFolder, prometheus: PrometheusServer) -> None:
    assert asyncio.run(folder.sync([rule("one"), rule("two", 5)]))
    assert loaded(prometheus) == {"slipway:one", "slipway:two"}
    assert not asyncio.run(folder.sync([rule("one"), rule("two", 5)]))
    assert asyncio.run(folder.sync([rule("two", "vector(3)")]))
    assert loaded(prometheus) == {"slipway:two"}
    asyncio.run(folder.sync([]))
    assert loaded(prometheus) == set()


def test_a_rule_that_prometheus_refuses_costs_only_itself(folder: RuleFolder, prometheus: PrometheusServer) -> None:
    asyncio.run(folder.sync([rule("good"), rule("bad", "sum by (")]))
    assert loaded(prometheus) == {"slipway:good"}
    assert "failed to reload config" in folder.refused["team-a_bad.yml"]
    assert not asyncio.run(folder.sync([rule("good"), rule("bad", "sum by (")]))
    asyncio.run(folder.sync([rule("good"), rule("bad", "sum(up)")]))
    assert loaded(prometheus) == {"slipway:good", "slipway:bad"}
    assert not folder.refused
    asyncio.run(folder.sync([]))


def test_while_prometheus_is_away_no_unseen_file_lies_in_its_way(tmp_path: Path) -> None:
    answers: list[Exception | None] = [httpx.ConnectError("away"), None]

    async def reload() -> str | None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return None

    folder = RuleFolder(tmp_path, reload)
    with pytest.raises(httpx.ConnectError):
        asyncio.run(folder.sync([rule("one")]))
    assert not list(tmp_path.iterdir())
    assert asyncio.run(folder.sync([rule("one")]))
    assert (tmp_path / "team-a_one.yml").exists()


def test_names_and_contents() -> None:
    assert file_name(rule("b", namespace="a-1")) == "a-1_b.yml"
    group = json.loads(render(rule("one", 1)))["groups"][0]
    assert group == {"name": "one", "rules": [{"record": "slipway:one", "expr": "1"}]}
