"""Live reads: the objects of the inventory as they are now, and the pods that are not yet gone. Never from a cache."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from deployments.kube.cluster import CALL_SECONDS, Cluster
from deployments.kube.errors import ClusterError
from deployments.kube.kinds import Kind, Ref, kind_of
from deployments.kube.observe import PodView, is_stopped, pod_view, service_of, workload_view
from deployments.kube.ownership import is_split, last_editor, managed_hash
from deployments.labels import LABEL_DEPLOYMENT
from deployments.models import AppliedObject, Deployment
from deployments.reconciler.desired import Marks
from deployments.reconciler.plan import JOB, WORKLOADS, Desired, Held, Live, Observed
from deployments.services.convergence import Lease, database_now

POD = kind_of("v1", "Pod")
# Deployments before ReplicaSets before pods: what is made while we read is seen in a later list.
MAKERS = (kind_of("apps/v1", "Deployment"), kind_of("apps/v1", "ReplicaSet"))
# Of replicas that span nodes; a cluster without such deployments may not know the first.
GROUPS = (kind_of("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"), kind_of("apps/v1", "StatefulSet"))


@dataclass(frozen=True)
class Pods:
    """A complete live list of a deployment's pods that are pending, running or terminating, and what makes them."""

    listed_at: datetime
    pods: tuple[PodView, ...]
    makers: tuple[int | None, ...]  # the revision of each workload that still wants pods

    @property
    def gpus(self) -> int:
        """GPUs that these pods hold."""
        return sum(pod.gpus for pod in self.pods)

    def gpus_of_others(self, revision: int) -> int:
        """GPUs of pods of other revisions; at least one while a workload of another revision still makes some."""
        others = sum(pod.gpus for pod in self.pods if pod.revision != revision)
        return others or int(any(maker != revision for maker in self.makers))

    def beside(self, seen: Observed, revision: int | None) -> Observed:
        """The objects, with what these pods add; `revision` is the wanted one."""
        known = {*(pod.revision for pod in self.pods), *self.makers}
        older = any(number not in (None, revision) for number in known)
        return replace(seen, pods=len(self.pods), makers=len(self.makers), older=older)


def observe(cluster: Cluster, held: Lease, rows: Iterable[AppliedObject], marks: Marks) -> Observed:
    """Read every object of the inventory."""
    found: list[Held] = []
    missing: set[str] = set()
    for row in rows:
        held.keep()
        ref = ref_of(row)
        # Without its namespace it is gone too, and we may not even ask for it any more.
        live = None if ref.namespace in missing else _read(cluster, ref)
        if live is None and ref.kind == "Namespace":
            missing.add(ref.name)
        found.append(Held(ref, row.uid, row.digest, row.managed, view(live, marks) if live else None))
    return Observed(tuple(found))


def _read(cluster: Cluster, ref: Ref) -> dict[str, Any] | None:
    try:
        return cluster.read(ref)
    except ClusterError as error:
        if error.code == "permission" and ref.kind == "RoleBinding":
            # We may read our own binding only while it is there.
            return None
        raise


def view(live: Mapping[str, Any], marks: Marks) -> Live:
    """An object of the API as the plan needs it."""
    metadata = live["metadata"]
    return Live(
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        ours=marks.on(live),
        deleting=bool(metadata.get("deletionTimestamp")),
        managed=managed_hash(live),
        split=is_split(live),
        editor=last_editor(live),
        stopped=_is_stopped(live),
        **_end_of(live),
    )


def _end_of(live: Mapping[str, Any]) -> dict[str, str]:
    """How a Job ended, and why if it failed."""
    if live.get("kind") != JOB:
        return {}
    for item in (live.get("status") or {}).get("conditions") or []:
        if item.get("type") in {"Complete", "Failed"} and item.get("status") == "True":
            return {"ended": str(item["type"]), "why": str(item.get("message") or "")}
    return {}


def list_pods(cluster: Cluster, held: Lease, row: Deployment) -> Pods:
    """List what a deployment has in its namespace, whatever labels a hand edit left on it."""
    # The clock before the first list: whatever was wished or reserved later is not covered by it.
    listed_at = database_now()
    kinds = (*GROUPS, *MAKERS) if _spans_nodes(row) else MAKERS
    makers = tuple(
        work.revision for kind in kinds for work in map(workload_view, _list(cluster, held, row, kind)) if work.desired
    )
    found = _list(cluster, held, row, POD)
    pods = tuple(pod for pod in map(pod_view, found) if pod.holds_gpus)
    return Pods(listed_at, pods, makers)


def ref_of(row: AppliedObject) -> Ref:
    """Where the object of an inventory row is."""
    return Ref(row.api_version, row.kind, row.namespace, row.name)


def needs_pods(desired: Desired, rows: Collection[AppliedObject]) -> bool:
    """True when pods may be there that decide about the next step."""
    return any(row.kind in WORKLOADS or row.kind == JOB for row in rows) or bool(desired.pods_gone and rows)


def _list(cluster: Cluster, held: Lease, row: Deployment, kind: Kind) -> list[Mapping[str, Any]]:
    held.keep()
    items = cluster.list_all(kind, namespace=row.team.namespace, timeout=CALL_SECONDS, between=held.keep)
    return [item for item in items if _belongs(row, item)]


def _belongs(row: Deployment, item: Mapping[str, Any]) -> bool:
    metadata = item["metadata"]
    labels = metadata.get("labels") or {}
    if LABEL_DEPLOYMENT in labels:
        return bool(labels[LABEL_DEPLOYMENT] == str(row.pk))
    named = str(metadata["name"]).startswith((f"{row.name}-predictor-", f"{row.name}-kserve-"))
    return service_of(labels) == row.name or named


def _spans_nodes(row: Deployment) -> bool:
    """True where a revision that is, or may still be, on the cluster has replicas that span nodes."""
    revisions = (row.approved, row.applied)
    return any(revision is not None and revision.spec.get("nodes", 1) > 1 for revision in revisions)


def _is_stopped(live: Mapping[str, Any]) -> bool:
    conditions = (live.get("status") or {}).get("conditions") or []
    return is_stopped({str(item.get("type")): (item.get("status", ""), item.get("reason", "")) for item in conditions})
