"""Least privilege, from the API server's own audit log: what was granted was used, and nothing else was asked for.

Runs after every other scenario of its ground; alone it can only tell what was refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from deployments.kube.logs import LogSource
from portal.demo.layout import REPOSITORY
from sandbox.lite.bootstrap import read_manifests
from sandbox.real.objects import SYSTEM, accounts
from tests.scenarios import privileges
from tests.scenarios.grounds import Ground
from tests.scenarios.privileges import Use
from tests.scenarios.stage import Stage

pytestmark = [pytest.mark.django_db, pytest.mark.real_alone]

RBAC = REPOSITORY / "k8s" / "portal" / "rbac.yaml"
PORTAL = "worker", "watcher", "live"
# Granted for what no scenario can bring about, each with its reason.
UNUSED_FOR_A_REASON: dict[str, dict[Use, str]] = {"worker": {}, "watcher": {}, "live": {}, "node": {}}


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


def test_nobody_asks_for_what_was_not_granted(ground: Ground):
    # Two scenarios take a role away or let a token expire: those two show that being refused is told.
    log = privileges.refused(ground.folder / "audit.jsonl")
    told = {account: sorted(map(str, uses)) for account, uses in log.items() if account in (*PORTAL, "node")}
    assert {account: uses for account, uses in told.items() if account != "worker"} == {}


def test_what_was_granted_was_used(ground: Ground, request: pytest.FixtureRequest):
    if not whole(request):
        pytest.skip("only a run of all scenarios tells what is not used")
    granted = privileges.granted(roles())
    used = privileges.used(ground.folder / "audit.jsonl")
    left = {
        account: sorted(str(use) for use in granted[account] - used[account] - set(UNUSED_FOR_A_REASON[account]))
        for account in (*PORTAL, "node")
    }
    assert left == {account: [] for account in left}


def test_of_secrets_the_portal_may_only_create_and_delete() -> None:
    granted = privileges.granted(read_manifests([RBAC]))
    verbs = {use.verb for account in PORTAL for use in granted[account] if use.resource.startswith("secrets")}
    assert verbs <= {"create", "delete"}


def whole(request: pytest.FixtureRequest) -> bool:
    """Whether every module of scenarios is part of this run, with all its tests."""
    modules = {item.path for item in request.session.items if item.path.parent == request.path.parent}
    return modules == set(request.path.parent.glob("test_*.py")) and not request.config.option.keyword
