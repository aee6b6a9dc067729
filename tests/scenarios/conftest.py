"""Every scenario runs on every ground: one cluster at a time, each scenario in a team's namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from deployments.kube.cluster import Cluster
from deployments.models import Team
from tests.deployments import factories as make
from tests.deployments.converging.driven import Driven
from tests.scenarios import differences, grounds, recording, timings
from tests.scenarios.grounds import Ground
from tests.scenarios.stage import Counted, Stage


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "ground" not in metafunc.fixturenames:
        return
    name = metafunc.definition.name
    params = [pytest.param("real", marks=pytest.mark.cluster, id="real")]
    if name in differences.LITE_FAILS:
        known = pytest.mark.xfail(reason=differences.LITE_FAILS[name], strict=True)
        params.insert(0, pytest.param("lite", marks=known, id="lite"))
    elif name not in differences.REAL_ALONE:
        marks = [pytest.mark.cluster] if name in differences.COMPARED else []
        params.insert(0, pytest.param("lite", marks=marks, id="lite"))
    metafunc.parametrize("ground", params, indirect=True, scope="session")


@pytest.fixture(scope="session")
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """A running cluster; skipped, with the reason, where it cannot run."""
    name = request.param
    if why := grounds.why_not(name):
        timings.absent(name, why)
        pytest.skip(why)
    with grounds.started(name) as running:
        timings.started(name, running.start_seconds)
        yield running


@pytest.fixture(autouse=True)
def played(request: pytest.FixtureRequest) -> None:
    """Note on a cluster which scenarios it has seen."""
    if "ground" in request.fixturenames:
        ground = request.getfixturevalue("ground")
        ground.played.add(request.path)
        timings.played(ground.name)


@pytest.fixture(autouse=True)
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hint reaches a broker: the stage's workers look at what is due by themselves."""
    monkeypatch.setattr("portal.lib.hints._send", lambda task, pk: None)


@pytest.fixture
def team(db: None) -> Team:
    """The team search, approved by policy, with GPUs of every kind, in a namespace that no scenario has had."""
    team = make.make_team("search", policy=Team.Policy.AUTO)
    Team.objects.filter(pk=team.pk).update(namespace=f"search-{uuid4().hex[:5]}")
    team.refresh_from_db()
    for slug, gpus in (("l4-24gb", 8), ("l40s-48gb", 4), ("h100-80gb", 4)):
        make.make_grant(team, make.make_flavor(slug), gpus)
    return team


@pytest.fixture(autouse=True)
def recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With SLIPWAY_RECORD, take down what Slipway sends."""
    if not recording.folder() or "stage" not in request.fixturenames:
        yield
        return
    with recording.taken_down(monkeypatch, request.getfixturevalue("team").namespace) as taken:
        yield
    recording.keep(taken, request.node.originalname.removeprefix("test_"))


@pytest.fixture
def stage(
    request: pytest.FixtureRequest,
    ground: Ground,
    team: Team,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Stage]:
    """A member of search at work, with a worker and a watcher on the ground."""
    settings.HUB_URL = ground.environment["HUB_URL"]
    settings.SLIPWAY_OCI_REGISTRIES = ["ghcr.io/slipway-models"]
    make.make_profile()
    make.make_cluster()
    ann = make.make_user("ann", team=team)
    worker = Counted.from_kubeconfig(ground.kubeconfig_of("worker"))
    eyes = Cluster.from_kubeconfig(ground.kubeconfig_of("watcher"))
    driven = Driven(eyes)
    scenario = request.node.originalname.removeprefix("test_").replace("_", " ")
    stage = Stage(ground, scenario, worker, driven, team, ann, monkeypatch)  # type: ignore[arg-type]
    driven.until_ready()
    try:
        yield stage
    finally:
        driven.watcher.end()
        stage.worker.close()
        eyes.close()
        for kind in ("InferenceService", "LLMInferenceService"):
            for row in ground.list(kind, team.namespace):
                ground.remove(kind, row["metadata"]["name"], team.namespace)
        ground.remove("Namespace", team.namespace)
