"""One team's deployments on a ground: Slipway's services, its worker and its watcher, turned by the test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.db.models.functions import Now

from deployments.kube.cluster import MUTATING, Cluster
from deployments.manifests import standard
from deployments.models import AppliedObject, Deployment, Event, Principal, QuotaHold, Status, Team, User
from deployments.reconciler import passes, teams
from deployments.services import lifecycle, requests
from deployments.spec import DeploymentSpec
from deployments.watcher.drift import RIPE_SECONDS
from tests.deployments import factories as make
from tests.deployments.converging.driven import Driven
from tests.scenarios import timings
from tests.scenarios.grounds import Ground, Object

SMALL = "hf://HuggingFaceTB/SmolLM2-135M-Instruct"
SERVICE, POD = "InferenceService", "Pod"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


class Counted(Cluster):
    """The worker's door; writes down every request that it sends."""

    sent: list[tuple[str, str]]

    def _send(self, method: str, path: str, **more: Any) -> Any:
        self.__dict__.setdefault("sent", []).append((method, path))
        return super()._send(method, path, **more)


@dataclass(frozen=True)
class Says:
    """What the portal shows of a deployment."""

    state: str
    code: str = ""
    field: str = ""
    value: int | float | bool | str | None = None


def portal_says(row: Deployment) -> Says:
    """State, reason code, field and proposed value as pages and the API show them."""
    reason = row.reason or {}
    return Says(row.state, reason.get("code", ""), reason.get("field", ""), reason.get("value"))


class Heard(NamedTuple):
    """What the portal shows at one moment, the code with which the last pass ended, and what stops the team."""

    says: Says
    outcome: str
    team: str


@dataclass
class Stage:
    """What a scenario needs at hand."""

    ground: Ground
    scenario: str
    worker: Counted
    driven: Driven
    team: Team
    user: User
    patch: pytest.MonkeyPatch
    _teams: list[int] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.team.namespace

    @property
    def principal(self) -> Principal:
        return make.principal(self.user)

    # Wishes

    def ask(self, name: str = "chat", **changes: Any) -> Deployment:
        """Ask for a small model on an L4; policy approves it."""
        spec = DeploymentSpec.from_json(a_spec(**changes))
        return requests.submit(principal=self.principal, team=self.team, name=name, spec=spec)

    def revise(self, row: Deployment, **changes: Any) -> Deployment:
        """Edit a deployment; policy approves the new revision."""
        spec = DeploymentSpec.from_json(a_spec(**changes))
        row.refresh_from_db()
        requests.revise(principal=self.principal, deployment=row, spec=spec, base_revision=row.latest.number)
        return self.fresh(row)

    def stop(self, row: Deployment) -> Deployment:
        lifecycle.stop(principal=self.principal, deployment=row)
        return self.fresh(row)

    def start(self, row: Deployment) -> Deployment:
        lifecycle.start(principal=self.principal, deployment=row)
        return self.fresh(row)

    def delete(self, row: Deployment) -> Deployment:
        lifecycle.delete(principal=self.principal, deployment=row)
        return self.fresh(row)

    def fresh(self, row: Deployment) -> Deployment:
        """The row as it is stored now."""
        return Deployment.objects.select_related("team", "latest", "approved", "applied").get(pk=row.pk)

    def building(self, change: Callable[[Object], None], *, runtime: bool = False) -> None:
        """Have what is built from now on changed before it is signed: a mistake of ours, or what is built later."""
        name = "_serving_runtime" if runtime else "_inference_service"
        build = getattr(standard, name)

        def changed(*words: Any) -> Object:
            made: Object = build(*words)
            change(made)
            return made

        self.patch.setattr(standard, name, changed)

    # Time

    def turn(self) -> None:
        """One turn of everything that Slipway runs: workers on what is due, then the watcher."""
        self.work()
        self.driven.watcher.step()
        self.work()

    def work(self) -> None:
        """Play the workers: a pass over every row of this team that is due."""
        teams.reconcile_team(self.team.pk, self.worker)
        for pk in Deployment.objects.filter(team=self.team).values_list("pk", flat=True):
            passes.reconcile(pk, self.worker)

    def open_namespace(self) -> None:
        """Have the team's namespace made, and nothing yet in it that was asked for."""
        deadline = time.monotonic() + 30
        while not self.team.ready:
            assert time.monotonic() < deadline, self.team.blocked_message
            teams.reconcile_team(self.team.pk, self.worker)
            self.team.refresh_from_db()

    def sweep(self, row: Deployment) -> Deployment:
        """Make a deployment and its team due now, and play the workers once."""
        Team.objects.filter(pk=self.team.pk).update(next_reconcile_at=Now())
        Deployment.objects.filter(pk=row.pk).update(next_reconcile_at=Now())
        self.work()
        return self.fresh(row)

    def pass_over(self, row: Deployment) -> Deployment:
        """One pass of a worker over a deployment alone."""
        Deployment.objects.filter(pk=row.pk).update(next_reconcile_at=Now())
        assert passes.reconcile(row.pk, self.worker)
        return self.fresh(row)

    def settle(self, seconds: float = RIPE_SECONDS + 0.5) -> None:
        """Turn until the watcher has nothing left to look at."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.turn()

    def until(self, row: Deployment, done: Callable[[], object], *, within: float = 30, what: str = "it") -> Deployment:
        """Turn until `done`; fails after `within` seconds with all that is known."""
        deadline = time.monotonic() + within
        while not done():
            assert time.monotonic() < deadline, f"{what} did not come to pass in {within:.0f} s: {self.known(row)}"
            self.turn()
        return self.fresh(row)

    def comes_to(self, row: Deployment, wanted: Says, *, within: float = 30, note: str = "") -> Deployment:
        """Turn until the portal says `wanted` of a deployment, and note under the scenario's name how long it took.

        `within` is some three times what the slower ground takes, and twelve seconds at least, for machines under load.
        """
        begun = time.monotonic()
        row = self.until(row, lambda: portal_says(self.fresh(row)) == wanted, within=within, what=str(wanted))
        timings.took(f"{self.scenario}{f': {note}' if note else ''}", self.ground.name, time.monotonic() - begun)
        return row

    def comes_to_pass(
        self, row: Deployment, done: Callable[[], object], *, within: float = 30, note: str = ""
    ) -> Deployment:
        """Turn until `done`, and note how long it took."""
        begun = time.monotonic()
        row = self.until(row, done, within=within, what=note or self.scenario)
        timings.took(f"{self.scenario}{f': {note}' if note else ''}", self.ground.name, time.monotonic() - begun)
        return row

    def hearing(self, row: Deployment, done: Callable[[], object], said: set[Heard]) -> Callable[[], object]:
        """`done`, that at each look also takes down what the portal says and how its last passes ended."""

        def look() -> object:
            now = self.fresh(row)
            said.add(Heard(portal_says(now), now.outcome.get("code", ""), now.team.blocked_message))
            return done()

        return look

    def see(self, looks: Callable[[], Object], wanted: Object, *, within: float = 30, note: str = "") -> None:
        """Look at the cluster until it looks as wanted, and note how long it took."""
        begun = time.monotonic()
        while not wanted.items() <= (found := looks()).items():
            assert time.monotonic() - begun < within, f"after {within:.0f} s {found}"
            time.sleep(0.2)
        timings.took(f"{self.scenario}{f': {note}' if note else ''}", self.ground.name, time.monotonic() - begun)

    def running(self, name: str = "chat", **changes: Any) -> Deployment:
        """A deployment that serves."""
        return self.serving(self.ask(name, **changes))

    def serving(self, row: Deployment) -> Deployment:
        """Turn until a deployment serves."""
        return self.until(row, lambda: self.fresh(row).state == "Running", within=60, what="running")

    def applied(self, name: str = "chat", **changes: Any) -> Deployment:
        """A deployment whose objects stand on the cluster, whatever becomes of its pods."""
        row = self.ask(name, **changes)
        return self.until(row, lambda: self.fresh(row).applied_id, what="applied")

    @contextmanager
    def counting(self) -> Iterator[list[tuple[str, str]]]:
        """The worker's requests within the block."""
        calls: list[tuple[str, str]] = []
        before = self.worker.__dict__.get("sent")
        self.worker.sent = calls
        yield calls
        self.worker.sent = [*(before or []), *calls]

    def use_worker(self, kubeconfig: Path) -> None:
        """Have the worker use another kubeconfig from now on."""
        self.worker.close()
        self.worker = Counted.from_kubeconfig(kubeconfig)  # type: ignore[assignment]

    # Looks

    def known(self, row: Deployment) -> dict[str, Any]:
        """Everything that may explain a failure."""
        row = self.fresh(row)
        status = Status.objects.filter(deployment=row).first()
        pods = (status.observed or {}).get("pods", []) if status else None
        return {
            "state": row.state,
            "reason": row.reason,
            "detail": row.detail,
            "outcome": row.outcome,
            "team": (row.team.ready, row.team.blocked_message),
            "broken": self.driven.watcher.broken,
            "pods": pods,
        }

    def service(self, row: Deployment) -> Object | None:
        """The InferenceService of a deployment as it is now."""
        return self.ground.read(SERVICE, row.name, self.namespace)

    def held(self, row: Deployment) -> int:
        """GPUs that the team is charged for a deployment."""
        return sum(QuotaHold.objects.filter(deployment=row).values_list("gpus", flat=True))

    def pods(self) -> list[Object]:
        """Every pod of the namespace."""
        return self.ground.list(POD, self.namespace)

    def newest_serves(self, row: Deployment, number: int) -> bool:
        """True when the portal says that this revision runs, and no pod of another is left on the cluster."""
        row = self.fresh(row)
        pods = [pod["metadata"] for pod in self.pods() if "slipway.dev/component" not in pod["metadata"]["labels"]]
        mine = {
            {**meta.get("annotations", {}), **meta["labels"]}["slipway.dev/revision"]
            for meta in pods
            if meta["labels"].get("slipway.dev/deployment") == str(row.pk)
        }
        says = (portal_says(row), row.detail.get("serving_revision"))
        return mine == {str(number)} and says == (Says("Running"), number)

    def told(self, row: Deployment, kind: str) -> list[Event]:
        """Lines of the deployment's timeline."""
        return list(Event.objects.filter(deployment=row, kind=kind).order_by("pk"))

    # Hands

    def stranger_pod(self, name: str, *, gpus: int, product: str = "", namespace: str = "") -> Object:
        """A pod of somebody else that asks for GPUs; without a product no node fits it."""
        amounts = {"nvidia.com/gpu": str(gpus), "cpu": "100m", "memory": "64Mi"}
        return self.ground.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace or self.namespace},
                "spec": {
                    "nodeSelector": {"nvidia.com/gpu.product": product or "none"},
                    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {
                            "name": "main",
                            "image": "registry.k8s.io/pause:3.10",
                            "securityContext": RESTRICTED,
                            "resources": {"requests": amounts, "limits": amounts},
                        }
                    ],
                },
            }
        )


def a_spec(**changes: Any) -> dict[str, Any]:
    """A small model on one L4; keyword arguments replace whole top-level entries, and roles take replicas' place."""
    spec = {
        "source": {"uri": SMALL},
        "strategy": "standard",
        "flavor": "l4-24gb",
        "replicas": {"min": 1, "max": 1},
        "engine": {"profile": "vllm-0.32.0", "args": {"max-model-len": 2048}},
        **changes,
    }
    return {name: value for name, value in spec.items() if name != "replicas" or "prefill" not in spec}


def writes(calls: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the calls that change something."""
    return [call for call in calls if call[0] in MUTATING]


def versions(stage: Stage, row: Deployment) -> dict[str, str]:
    """The spec's version of each object of a deployment: its generation, or without one its resource version."""
    found = {}
    for record in AppliedObject.objects.filter(deployment=row):
        meta = (stage.ground.read(record.kind, record.name, record.namespace) or {})["metadata"]
        found[record.kind] = str(meta.get("generation", meta["resourceVersion"]))
    return found


def engine(profile: str = "vllm-0.32.0", **args: Any) -> Mapping[str, Any]:
    """The engine part of a spec; underscores stand for the hyphens of vLLM's flags."""
    return {"profile": profile, "args": {name.replace("_", "-"): value for name, value in args.items()}}
