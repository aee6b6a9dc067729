"""One deployment against a cluster: asking, playing the worker, and the hands that interfere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from django.db.models.functions import Now

from deployments.kube.cluster import Cluster
from deployments.kube.kinds import Ref, kind_of
from deployments.models import AppliedObject, Deployment, Intent, Principal, Team, User
from deployments.reconciler import passes, teams
from deployments.services import requests
from deployments.spec import DeploymentSpec
from sandbox.lite.faults import Fault
from sandbox.lite.requests import Request
from sandbox.lite.testing import RunningCluster
from tests.deployments import factories as make

MUTATING = {"POST", "PATCH", "PUT", "DELETE"}
POD = kind_of("v1", "Pod")


@dataclass
class Stage:
    """What a test needs at hand."""

    ground: RunningCluster
    worker: Cluster
    admin: Cluster
    team: Team
    user: User

    @property
    def principal(self) -> Principal:
        return make.principal(self.user)

    def ask(self, name: str = "chat", **changes: Any) -> Deployment:
        """Ask for a model; policy approves it."""
        spec = DeploymentSpec.from_json(make.a_spec(**changes))
        return requests.submit(principal=self.principal, team=self.team, name=name, spec=spec)

    def revise(self, row: Deployment, **changes: Any) -> Deployment:
        """Edit a deployment; policy approves the new revision."""
        spec = DeploymentSpec.from_json(make.a_spec(**changes))
        row.refresh_from_db()
        requests.revise(principal=self.principal, deployment=row, spec=spec, base_revision=row.latest.number)
        return self.fresh(row)

    def converge_team(self) -> Team:
        """Play a worker on the team's namespace."""
        Team.objects.filter(pk=self.team.pk).update(next_reconcile_at=Now(), lease_until=None)
        teams.reconcile_team(self.team.pk, self.worker)
        self.team.refresh_from_db()
        return self.team

    def converge(self, row: Deployment, *, passes_made: int = 1) -> Deployment:
        """Play a worker on a deployment that is due, its team first."""
        if not self.team.ready:
            self.converge_team()
        for _ in range(passes_made):
            Deployment.objects.filter(pk=row.pk).update(next_reconcile_at=Now())
            passes.reconcile(row.pk, self.worker)
        return self.fresh(row)

    def converge_until(self, row: Deployment, done: Callable[[], bool], *, seconds: float = 15) -> Deployment:
        """Play a worker again and again until the cluster and the rows have come to rest as wanted."""
        deadline = time.monotonic() + seconds
        while True:
            row = self.converge(row)
            if done():
                return self.fresh(row)
            assert time.monotonic() < deadline, row.outcome
            time.sleep(0.05)

    def drop_pod(self, pod: dict[str, Any]) -> None:
        """Let go of a pod: its finalizer goes, and it too."""
        ref = Ref.of({"apiVersion": "v1", "kind": "Pod", **pod})
        if self.admin.read(ref) is None:
            return
        self.edit(ref, {"metadata": {"finalizers": None}}, manager="kubelet")
        live = self.admin.read(ref)
        if live is not None and "deletionTimestamp" not in live["metadata"]:
            self.admin.delete(ref, live["metadata"]["uid"], propagation="Background")

    def running(self, name: str = "chat", **changes: Any) -> Deployment:
        """A deployment whose objects are applied."""
        row = self.converge(self.ask(name, **changes))
        assert row.outcome["phase"] == "applied", row.outcome
        return row

    def fresh(self, row: Deployment) -> Deployment:
        """The row as it is stored now."""
        return Deployment.objects.select_related("team", "latest", "approved", "applied").get(pk=row.pk)

    def ref(self, kind: str, name: str) -> Ref:
        """Where an object of the team's namespace is."""
        api_version = next(row.api_version for row in AppliedObject.objects.filter(kind=kind))
        return Ref(api_version, kind, self.team.namespace, name)

    def service(self, row: Deployment) -> dict[str, Any] | None:
        """The InferenceService of a deployment as it is now."""
        return self.admin.read(self.service_ref(row))

    def service_ref(self, row: Deployment) -> Ref:
        return Ref("serving.kserve.io/v1beta1", "InferenceService", self.team.namespace, row.name)

    def pods(self) -> list[dict[str, Any]]:
        """Every pod of the namespace."""
        return self.admin.list_all(POD, namespace=self.team.namespace)

    def make_pod(
        self, row: Deployment, name: str, *, gpus: int = 1, finalizer: str = "", node: str = ""
    ) -> dict[str, Any]:
        """A pod of a deployment, as KServe would have it made; with a finalizer it stays terminating."""
        labels = {
            "serving.kserve.io/inferenceservice": row.name,
            "slipway.dev/deployment": str(row.pk),
            "slipway.dev/revision": str(row.approved.number if row.approved else 1),
        }
        restricted = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        return self.admin.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": self.team.namespace,
                    "labels": labels,
                    **({"finalizers": [finalizer]} if finalizer else {}),
                },
                "spec": {
                    **({"nodeName": node} if node else {}),
                    "containers": [
                        {
                            "name": "kserve-container",
                            "image": "vllm/vllm-openai",
                            "securityContext": restricted,
                            "resources": {
                                "requests": {"nvidia.com/gpu": str(gpus)},
                                "limits": {"nvidia.com/gpu": str(gpus)},
                            },
                        }
                    ],
                },
            }
        )

    def remove(self, ref: Ref, propagation: str = "Background") -> None:
        """Delete an object by hand."""
        live = self.admin.read(ref)
        assert live is not None
        self.admin.delete(ref, live["metadata"]["uid"], propagation=propagation)

    def edit(self, ref: Ref, patch: dict[str, Any], *, manager: str = "kubectl-edit") -> dict[str, Any]:
        """Change an object by hand, as `kubectl edit` would."""
        return self.admin._json(
            "PATCH",
            ref.path,
            params={"fieldManager": manager},
            body=patch,
            kind="application/merge-patch+json",
            timeout=10,
        )

    def patch_status(self, kind: str, api_version: str, namespace: str, name: str, status: dict[str, Any]) -> None:
        """Write a status, as the object's controller would."""
        path = Ref(api_version, kind, namespace, name).path + "/status"
        self.admin._json(
            "PATCH",
            path,
            params={"fieldManager": "kubelet"},
            body={"status": status},
            kind="application/merge-patch+json",
            timeout=10,
        )

    def is_workers(self, request: Request) -> bool:
        """True for a request of Slipway's worker, not of the controllers or of hands."""
        return request.headers.get("authorization") == self.worker._headers("")["Authorization"]

    def open_intents(self) -> int:
        return Intent.objects.filter(closed_at=None).count()


class Recorder:
    """Writes down the requests of the worker's account while it is in place."""

    def __init__(self, stage: Stage) -> None:
        self.calls: list[tuple[str, str]] = []
        self._stage = stage

    def __enter__(self) -> Recorder:
        self._stage.ground.faults.before_hook = self._note
        return self

    def __exit__(self, *_: object) -> None:
        self._stage.ground.faults.clear()
        assert self.calls, "nothing was asked at all, so nothing is proven"

    @property
    def mutating(self) -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] in MUTATING]

    def _note(self, request: Request) -> Fault | None:
        if self._stage.is_workers(request):
            self.calls.append((request.method, request.path))
        return None


def fresh_suffix() -> str:
    """A namespace suffix that no test had before, on a cluster that outlives them all."""
    return uuid4().hex[:5]
