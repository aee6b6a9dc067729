"""Least privilege, from the API server's own audit log: what was granted was used, and nothing else was asked for.

Runs after every other scenario of its ground; alone it can only tell what was refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from deployments.kube.logs import LogSource
from deployments.models import Flavor
from portal.demo.layout import REPOSITORY
from sandbox.lite.bootstrap import read_manifests
from sandbox.real.objects import SYSTEM, accounts
from tests.deployments import factories as make
from tests.scenarios import privileges
from tests.scenarios.grounds import Ground
from tests.scenarios.privileges import Use
from tests.scenarios.stage import Stage

pytestmark = pytest.mark.django_db

RBAC = REPOSITORY / "k8s" / "portal" / "rbac.yaml"
PORTAL = "worker", "watcher", "live"
ACCOUNTS = *PORTAL, "node"
# Granted and not in the log, each with its reason.
UNUSED_FOR_A_REASON: dict[str, dict[Use, str]] = {
    "worker": {
        Use("rbac.authorization.k8s.io", "clusterroles", "bind"): "asked by the API server itself, at each RoleBinding",
    },
    "watcher": {},
    "live": {},
    "node": {
        Use("", "nodes", "get"): "an agent that is started again looks for its Node",
        Use("", "nodes", "patch"): "and takes it over",
        Use("", "configmaps", "get"): "a kubelet reads what a container's environment names; ours name none yet",
        Use("", "secrets", "get"): "the same",
    },
}


def roles() -> Iterator[dict[str, Any]]:
    """Roles and bindings as an administrator installs them, those of the sandbox, and those in a team's namespace."""
    yield from read_manifests([RBAC])
    yield from accounts(())
    for account in ("worker", "live"):
        subject = {"kind": "ServiceAccount", "name": account, "namespace": SYSTEM}
        yield {
            "kind": "RoleBinding",
            "metadata": {"name": account},
            "roleRef": {"kind": "ClusterRole", "name": f"slipway-team-{account}"},
            "subjects": [subject],
        }


def test_live_reads_logs_with_an_account_of_its_own(stage: Stage):
    row = stage.running()
    [pod] = stage.pods()

    async def read() -> str:
        source = LogSource(stage.ground.kubeconfig_of("live"))
        try:
            name = pod["metadata"]["name"]
            return await source.tail(row.team.namespace, name, "kserve-container", previous=False, lines=50)
        finally:
            await source.close()

    assert "vLLM" in asyncio.run(read())


def test_the_worker_keeps_a_teams_guards(stage: Stage):
    row = stage.applied()
    make.make_grant(stage.team, Flavor.objects.get(slug="l4-24gb"), 3)
    stage.ground.edit("LimitRange", "slipway", stage.namespace, {"spec": {"limits": []}})
    stage.ground.edit("RoleBinding", "slipway-live", stage.namespace, {"subjects": None})

    def kept() -> bool:
        stage.sweep(row)
        quota = stage.ground.read("ResourceQuota", "slipway", stage.namespace)
        limits = stage.ground.read("LimitRange", "slipway", stage.namespace)
        binding = stage.ground.read("RoleBinding", "slipway-live", stage.namespace)
        return bool(
            quota["spec"]["hard"]["requests.nvidia.com/gpu"] == "19"
            and limits["spec"]["limits"]
            and binding.get("subjects")
        )

    stage.comes_to_pass(row, kept, note="a team's guards are put back")


def test_nobody_asks_for_what_was_not_granted(ground: Ground):
    """A scenario takes a role away and an API server that starts refuses everybody: both was granted and used, too."""
    log = ground.folder / "audit.jsonl"
    refused, used = privileges.refused(log), privileges.used(log)
    left = {account: sorted(map(str, refused.get(account, set()) - used.get(account, set()))) for account in ACCOUNTS}
    assert left == {account: [] for account in ACCOUNTS}


def test_what_was_granted_was_used(ground: Ground, request: pytest.FixtureRequest):
    if not whole(request):
        pytest.skip("only a run of all scenarios tells what is not used")
    granted = privileges.granted(roles())
    used = privileges.used(ground.folder / "audit.jsonl")
    left = {
        account: sorted(str(use) for use in granted[account] - used[account] - set(UNUSED_FOR_A_REASON[account]))
        for account in ACCOUNTS
    }
    assert left == {account: [] for account in ACCOUNTS}


def test_of_secrets_the_portal_may_only_create_and_delete() -> None:
    granted = privileges.granted(read_manifests([RBAC]))
    verbs = {use.verb for account in PORTAL for use in granted[account] if use.resource.startswith("secrets")}
    assert verbs <= {"create", "delete"}


def whole(request: pytest.FixtureRequest) -> bool:
    """Whether every module of scenarios is part of this run, with all its tests."""
    modules = {item.path for item in request.session.items if item.path.parent == request.path.parent}
    return modules == set(request.path.parent.glob("test_*.py")) and not request.config.option.keyword
