"""A lite cluster with Slipway's roles, and a stage on which a deployment is played against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.kube.cluster import Cluster
from deployments.models import Flavor, Team, User
from sandbox.lite.testing import RunningCluster, running_cluster
from tests.deployments.converging.stage import Stage, fresh_suffix

K8S = Path(__file__).parents[3] / "k8s" / "portal"
MANIFESTS = [K8S / name for name in ("namespace.yaml", "rbac.yaml", "storage-container.yaml")]


@pytest.fixture(scope="session")
def ground() -> Iterator[RunningCluster]:
    """One cluster for all tests: each has a namespace of its own in it."""
    with running_cluster(accounts=("worker", "watcher", "live"), manifests=MANIFESTS) as running:
        yield running


@pytest.fixture
def worker(ground: RunningCluster) -> Iterator[Cluster]:
    """The cluster as the worker's account."""
    cluster = Cluster.from_kubeconfig(ground.kubeconfig_of("worker"))
    yield cluster
    ground.faults.clear()
    cluster.close()


@pytest.fixture
def admin(ground: RunningCluster) -> Iterator[Cluster]:
    """The cluster as its administrator: hands, and whoever else works there."""
    cluster = Cluster.from_kubeconfig(ground.kubeconfig)
    yield cluster
    cluster.close()


@pytest.fixture
def own_team(team: Team) -> Team:
    """The team search, approved by policy, in a namespace that no other test has had."""
    Team.objects.filter(pk=team.pk).update(policy=Team.Policy.AUTO, namespace=f"search-{fresh_suffix()}")
    team.refresh_from_db()
    return team


@pytest.fixture
def stage(
    ground: RunningCluster, worker: Cluster, admin: Cluster, hub: list[str], own_team: Team, ann: User, h100: Flavor
) -> Stage:
    """A member of search at work: `stage.ask()` gets an approved deployment, `stage.converge()` plays a worker."""
    return Stage(ground, worker, admin, own_team, ann)
