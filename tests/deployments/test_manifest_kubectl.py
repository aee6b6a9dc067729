"""The files that people take away, in the hands of the real kubectl: the printed commands work as they stand."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from deployments.manifests import TeamWish, build_team
from deployments.manifests.kubectl import commands
from deployments.manifests.text import all_as_yaml
from sandbox.lite.testing import RunningCluster, running_cluster
from tests.deployments import manifest_cases as cases
from tests.sandbox.conftest import kubectl

REFERENCES = sorted((Path(settings.BASE_DIR) / "k8s" / "llm-serving" / "wishes").glob("*.yaml"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with running_cluster(tls=True, controllers=False) as running:
        yield running


def run(cluster: RunningCluster, command: str) -> list[str]:
    name, *words = shlex.split(command)
    assert name == "kubectl"
    return kubectl(cluster, *words).splitlines()


def test_the_printed_commands_work_as_they_stand(cluster: RunningCluster, tmp_path: Path):
    wish = cases.WISHES["one-gpu"]
    objects = cases.case("one-gpu")
    around, file = tmp_path / "team.yaml", tmp_path / "chat.yaml"
    around.write_text(all_as_yaml(build_team(TeamWish("install", wish.team, wish.namespace))))
    file.write_text(all_as_yaml(objects))
    printed = commands(objects, namespace=wish.namespace, deployment_id=wish.deployment_id, file=str(file))
    run(cluster, f"kubectl apply --server-side -f {around}")

    assert any(line.startswith("+") and "kind: InferenceService" in line for line in run(cluster, printed.diff))
    applied = run(cluster, printed.apply)
    assert applied == [f"{line_of(obj)} serverside-applied" for obj in objects]
    assert run(cluster, printed.diff) == []
    found = {line.split()[0] for line in run(cluster, printed.get) if line.strip() and not line.startswith("NAME")}
    assert found == {line_of(obj) for obj in objects}


@pytest.mark.parametrize("wish", REFERENCES, ids=lambda path: path.stem)
def test_a_reference_is_applied_in_one_go(cluster: RunningCluster, wish: Path):
    kubectl(cluster, "create", "namespace", "gpu-operator")
    said = run(cluster, f"kubectl apply --server-side --force-conflicts -f {wish.parent.parent / wish.name}")
    assert [line for line in said if not line.endswith("serverside-applied")] == []


def line_of(obj: dict) -> str:  # type: ignore[type-arg]
    """An object as kubectl names it."""
    group = obj["apiVersion"].rpartition("/")[0]
    kind = obj["kind"].lower()
    return f"{kind}{f'.{group}' if group else ''}/{obj['metadata']['name']}"
