"""A worker may die before or after any call; whoever comes next ends where an undisturbed run would have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deployments.kube.cluster import Cluster
from deployments.kube.kinds import KINDS
from deployments.models import AppliedObject, Deployment, Intent, QuotaHold
from deployments.reconciler import passes
from deployments.services import convergence, lifecycle
from tests.deployments import factories as make
from tests.deployments.converging.stage import Stage

pytestmark = pytest.mark.django_db

CALLS = ("create", "apply", "rewrite_ownership", "delete")
OURS = [
    kind
    for kind in KINDS
    if kind.kind
    in {
        "ServiceAccount",
        "NetworkPolicy",
        "ServingRuntime",
        "PodDisruptionBudget",
        "PodMonitor",
        "InferenceService",
        "HTTPRoute",
    }
]


class Killed(BaseException):
    """What no handler catches, as kill -9 would not be."""


class Mortal:
    """A cluster whose worker dies at the n-th mutating call, before it is sent or after it was answered."""

    def __init__(self, cluster: Cluster, *, at: int, after: bool) -> None:
        self.calls = 0
        self._cluster = cluster
        self._at = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)
        if name not in CALLS:
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self._at and not self._after:
                raise Killed(name)
            result = method(*args, **kwargs)
            if self.calls == self._at:
                raise Killed(name)
            return result

        return call


def inventory(row: Deployment) -> dict[str, str]:
    """The uid of each object by its kind, as recorded."""
    return dict(AppliedObject.objects.filter(deployment=row).values_list("kind", "uid"))


def on_cluster(stage: Stage, row: Deployment) -> dict[str, str]:
    """The uid of each object of a deployment by its kind, as it is; a doubled kind fails."""
    found: dict[str, str] = {}
    for kind in OURS:
        selector = f"slipway.dev/deployment={row.pk}"
        for item in stage.admin.list_all(kind, namespace=stage.team.namespace, selector=selector):
            if item["metadata"].get("ownerReferences") or item["metadata"].get("deletionTimestamp"):
                continue
            assert kind.kind not in found, f"two of {kind.kind}"
            found[kind.kind] = item["metadata"]["uid"]
    return found


def crash_everywhere(
    stage: Stage, prepare: Callable[[str], Deployment], check: Callable[[Deployment], None], *, every: int = 1
) -> int:
    """Kill a worker before and after each (or every n-th) mutating call of a pass; let another finish, and `check`."""
    runs = 0
    for after in (False, True):
        at = 0
        while True:
            at += every
            row = prepare(f"m{'a' if after else 'b'}{at}")
            mortal = Mortal(stage.worker, at=at, after=after)
            Deployment.objects.filter(pk=row.pk).update(next_reconcile_at=convergence.Now())
            try:
                passes.reconcile(row.pk, mortal)  # type: ignore[arg-type]
            except Killed:
                runs += 1
                check(row)
                continue
            break
    return runs


def test_killed_at_any_call_of_the_first_apply(stage: Stage, h100):
    make.make_grant(stage.team, h100, 100)
    stage.converge_team()

    def check(row: Deployment) -> None:
        stage.converge(row, passes_made=2)
        row.refresh_from_db()
        assert row.outcome["phase"] == "applied", row.outcome
        assert on_cluster(stage, row) == inventory(row)
        assert len(inventory(row)) == len(OURS)
        assert not Intent.objects.filter(deployment=row, closed_at=None).exists()

    assert crash_everywhere(stage, stage.ask, check) == 2 * len(OURS)


def test_killed_at_any_call_of_a_new_revision(stage: Stage, h100):
    make.make_grant(stage.team, h100, 100)

    def prepare(name: str) -> Deployment:
        changed = {"profile": "vllm-0.32.0", "args": {"max-model-len": 8192}}
        return stage.revise(stage.running(name), engine=changed)

    def check(row: Deployment) -> None:
        stage.converge(row, passes_made=2)
        row.refresh_from_db()
        assert (row.outcome["phase"], row.applied.number) == ("applied", 2)
        assert on_cluster(stage, row) == inventory(row)
        assert "--max-model-len=8192" in stage.service(row)["spec"]["predictor"]["model"]["args"]

    # Each object costs two calls here, so odd steps meet both.
    assert crash_everywhere(stage, prepare, check, every=5) >= 4


def test_killed_at_any_call_of_a_deletion(stage: Stage, h100):
    make.make_grant(stage.team, h100, 100)

    def prepare(name: str) -> Deployment:
        row = stage.running(name)
        lifecycle.delete(principal=stage.principal, deployment=row)
        return stage.fresh(row)

    def check(row: Deployment) -> None:
        stage.converge_until(row, lambda: stage.fresh(row).deleted_at is not None)
        assert on_cluster(stage, row) == {}
        assert inventory(row) == {}
        assert not QuotaHold.objects.filter(deployment=row, gpus__gt=0).exists()

    # The first pass deletes the service and waits for it: one call, before and after.
    assert crash_everywhere(stage, prepare, check) >= 2


def test_a_worker_that_wakes_up_late_leaves_nothing_behind(stage: Stage):
    """Paused before its first POST, it sends it after the deployment was deleted by others."""
    stage.converge_team()
    row = stage.ask()

    class Paused:
        """A cluster before whose first create the world goes on without this worker."""

        slept = False

        def __getattr__(self, name: str) -> Any:
            return getattr(stage.worker, name)

        def create(self, obj: Any, **kwargs: Any) -> Any:
            if not self.slept:
                self.slept = True
                Deployment.objects.filter(pk=row.pk).update(lease_until=None)
                lifecycle.delete(principal=stage.principal, deployment=row)
                stage.converge_until(row, lambda: stage.fresh(row).deleted_at is not None)
            return stage.worker.create(obj, **kwargs)

    Deployment.objects.filter(pk=row.pk).update(next_reconcile_at=convergence.Now())
    passes.reconcile(row.pk, Paused())  # type: ignore[arg-type]

    assert on_cluster(stage, row) != {}, "the late write did happen"
    late = stage.fresh(row)
    assert late.deleted_at is not None
    assert late.next_reconcile_at is not None, "somebody has to look"
    stage.converge_until(row, lambda: on_cluster(stage, row) == {})
    assert inventory(row) == {}


def test_a_late_apply_cannot_overwrite_what_came_after_it(stage: Stage):
    row = stage.running()
    row = stage.revise(row, engine={"profile": "vllm-0.32.0", "args": {"max-model-len": 8192}})

    class Paused:
        """A cluster before whose apply a newer revision is applied by another worker."""

        slept = False

        def __getattr__(self, name: str) -> Any:
            return getattr(stage.worker, name)

        def apply(self, obj: Any, uid: str, **kwargs: Any) -> Any:
            if not self.slept and obj["kind"] == "InferenceService":
                self.slept = True
                Deployment.objects.filter(pk=row.pk).update(lease_until=None)
                stage.revise(row, engine={"profile": "vllm-0.32.0", "args": {"max-model-len": 4096}})
                stage.converge(row, passes_made=2)
            return stage.worker.apply(obj, uid, **kwargs)

    Deployment.objects.filter(pk=row.pk).update(next_reconcile_at=convergence.Now())
    passes.reconcile(row.pk, Paused())  # type: ignore[arg-type]

    row = stage.converge(row)
    assert "--max-model-len=4096" in stage.service(row)["spec"]["predictor"]["model"]["args"]
    assert row.applied.number == 3
