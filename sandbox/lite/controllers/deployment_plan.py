"""Deployments, decided: which ReplicaSet is the current one, and how many pods each may have right now.

Pure. `rollout` returns the scale of every ReplicaSet after one step; the loop in `deployment.py` applies it and
is woken by the ReplicaSets' own status for the next step. Rules are those of kube-controller-manager: never more
than `replicas + maxSurge` pods, never fewer available than `replicas - maxUnavailable`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sandbox.client import Obj
from sandbox.lite.controllers.meta import age_order, annotations_of, int_or_percent, owner_ref

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
}
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # without vowels and look-alikes, so that no hash is a word


@dataclass(frozen=True)
class Scale:
    """One ReplicaSet and the number of pods it is to have."""

    replica_set: Obj
    replicas: int


def template_hash(template: Obj, collisions: int = 0) -> str:
    """Return the hash that names the ReplicaSet of a pod template (FNV-1a over its canonical JSON)."""
    value = 2166136261
    text = json.dumps(template, sort_keys=True, separators=(",", ":")) + (f"#{collisions}" if collisions else "")
    for byte in text.encode():
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(value))


def bounds(deployment: Obj) -> tuple[int, int]:
    """Return (maxSurge, maxUnavailable) in pods; both zero for Recreate."""
    spec = deployment["spec"]
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    replicas = spec["replicas"]
    surge = int_or_percent(rolling.get("maxSurge", "25%"), replicas, round_up=True)
    unavailable = int_or_percent(rolling.get("maxUnavailable", "25%"), replicas, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1  # otherwise nothing could ever move
    return surge, unavailable


def may_be_missing(deployment: Obj) -> int:
    """Return how many pods may be unavailable while the deployment still counts as available."""
    replicas: int = deployment["spec"]["replicas"]
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate" or replicas == 0:
        return 0
    return min(bounds(deployment)[1], replicas)


def current(deployment: Obj, replica_sets: list[Obj]) -> Obj | None:
    """Return the ReplicaSet of the deployment's present template, the oldest if there are several."""
    wanted = deployment["spec"]["template"]
    same = [item for item in replica_sets if _template(item) == _without_hash(wanted)]
    return min(same, key=age_order, default=None)


def _template(replica_set: Obj) -> Obj:
    return _without_hash(replica_set["spec"]["template"])


def _without_hash(template: Obj) -> Obj:
    meta = dict(template.get("metadata") or {})
    meta["labels"] = {name: value for name, value in (meta.get("labels") or {}).items() if name != HASH_LABEL}
    meta.pop("creationTimestamp", None)
    return {**template, "metadata": meta}


def revision_of(obj: Obj) -> int:
    """Return the revision a ReplicaSet or deployment carries, 0 when none."""
    text = annotations_of(obj).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def new_replica_set(deployment: Obj, old: list[Obj], collisions: int = 0) -> Obj:
    """Return the ReplicaSet to create for the present template."""
    template: dict[str, Any] = json.loads(json.dumps(deployment["spec"]["template"]))
    digest = template_hash(template, collisions)
    meta = template.setdefault("metadata", {})
    meta["labels"] = {**(meta.get("labels") or {}), HASH_LABEL: digest}
    selector = json.loads(json.dumps(deployment["spec"]["selector"]))
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}
    spec: Obj = {
        "replicas": first_size(deployment, old),
        "selector": selector,
        "template": template,
    }
    if deployment["spec"].get("minReadySeconds"):
        spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{deployment['metadata']['name']}-{digest}",
            "namespace": deployment["metadata"]["namespace"],
            "labels": meta["labels"],
            "annotations": annotations_for(deployment, next_revision(old)),
            "ownerReferences": [owner_ref(deployment)],
        },
        "spec": spec,
    }


def next_revision(old: list[Obj]) -> int:
    """Return the revision after all of `old`."""
    return max((revision_of(item) for item in old), default=0) + 1


def annotations_for(deployment: Obj, revision: int) -> dict[str, str]:
    """Return what a ReplicaSet is annotated with: the deployment's own, its revision, and the sizes it was made for."""
    copied = {name: text for name, text in annotations_of(deployment).items() if name not in _NOT_COPIED}
    return {**copied, **size_annotations(deployment), REVISION: str(revision)}


def size_annotations(deployment: Obj) -> dict[str, str]:
    """Return the annotations that tell a scaling of the deployment from a step of its rollout."""
    replicas: int = deployment["spec"]["replicas"]
    return {DESIRED: str(replicas), MAXIMUM: str(replicas + bounds(deployment)[0] if replicas else 0)}


def first_size(deployment: Obj, old: list[Obj]) -> int:
    """Return how many pods a ReplicaSet may have at the moment it is created."""
    replicas: int = deployment["spec"]["replicas"]
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        return replicas
    taken = sum(int(item["spec"]["replicas"]) for item in old)
    return max(0, min(replicas + bounds(deployment)[0] - taken, replicas))


def rollout(deployment: Obj, new: Obj | None, old: list[Obj]) -> list[Scale]:
    """Return the ReplicaSets to scale now; empty when there is nothing to do before something else changes."""
    if deployment["spec"].get("paused"):
        return _settle(deployment, new, old)
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        return _recreate(deployment, new, old)
    grown = _grow(deployment, new, old)
    return grown or _shrink(deployment, new, old)


def recreate_must_wait(deployment: Obj, old_pods: list[Obj]) -> bool:
    """Tell whether Recreate still has to see old pods go before it starts the new ones."""
    recreate = (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"
    return recreate and any(pod.get("status", {}).get("phase") not in ("Failed", "Succeeded") for pod in old_pods)


def _recreate(deployment: Obj, new: Obj | None, old: list[Obj]) -> list[Scale]:
    down = [Scale(item, 0) for item in old if item["spec"]["replicas"]]
    replicas: int = deployment["spec"]["replicas"]
    if not down and new is not None and new["spec"]["replicas"] != replicas:
        return [Scale(new, replicas)]
    return down


def _settle(deployment: Obj, new: Obj | None, old: list[Obj]) -> list[Scale]:
    """A paused deployment still follows its size, on the one ReplicaSet that has pods."""
    active = [item for item in [*old, *([new] if new else [])] if item["spec"]["replicas"]]
    target = active[0] if len(active) == 1 else new if not active else None
    replicas: int = deployment["spec"]["replicas"]
    if target is not None and target["spec"]["replicas"] != replicas:
        return [Scale(target, replicas)]
    return []


def _grow(deployment: Obj, new: Obj | None, old: list[Obj]) -> list[Scale]:
    if new is None:
        return []
    replicas: int = deployment["spec"]["replicas"]
    have: int = new["spec"]["replicas"]
    if have == replicas:
        return []
    if have > replicas:
        return [Scale(new, replicas)]
    room = replicas + bounds(deployment)[0] - have - sum(item["spec"]["replicas"] for item in old)
    more = min(room, replicas - have)
    return [Scale(new, have + more)] if more > 0 else []


def _shrink(deployment: Obj, new: Obj | None, old: list[Obj]) -> list[Scale]:
    """Take pods from the old ReplicaSets: first those that never became available, then as many as may be missing."""
    active = sorted((item for item in old if item["spec"]["replicas"]), key=age_order)
    if not active or new is None:
        return []
    least = deployment["spec"]["replicas"] - may_be_missing(deployment)
    every = [*active, new]
    new_missing = new["spec"]["replicas"] - _available(new)
    budget = sum(item["spec"]["replicas"] for item in every) - least - new_missing
    if budget <= 0:
        return []
    sizes = {item["metadata"]["name"]: item["spec"]["replicas"] for item in active}
    for item in active:
        name = item["metadata"]["name"]
        unhealthy = min(budget, max(0, sizes[name] - _available(item)))
        sizes[name] -= unhealthy
        budget -= unhealthy
    spare = sum(_available(item) for item in every) - least
    for item in active:
        name = item["metadata"]["name"]
        taken = min(max(spare, 0), sizes[name])
        sizes[name] -= taken
        spare -= taken
    return [
        Scale(item, sizes[item["metadata"]["name"]])
        for item in active
        if sizes[item["metadata"]["name"]] != item["spec"]["replicas"]
    ]


def _available(replica_set: Obj) -> int:
    return int(replica_set.get("status", {}).get("availableReplicas", 0))


def surplus_history(deployment: Obj, old: list[Obj]) -> list[Obj]:
    """Return the empty old ReplicaSets beyond revisionHistoryLimit, oldest revision first."""
    limit: int = deployment["spec"].get("revisionHistoryLimit", 10)
    empty = [
        item
        for item in old
        if not item["spec"]["replicas"]
        and not item.get("status", {}).get("replicas")
        and not item["metadata"].get("deletionTimestamp")
    ]
    empty.sort(key=lambda item: (revision_of(item), age_order(item)))
    return empty[: max(0, len(empty) - limit)]
