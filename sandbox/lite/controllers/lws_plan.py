"""LeaderWorkerSets 0.9, decided: leader and worker StatefulSets, what pods get on top, rolling updates, status. Pure.

One StatefulSet makes all leaders; each leader pod owns a StatefulSet of its workers, so that a leader's end is its
group's end. Exclusive placement, subgroups and volume claims are not played.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from datetime import datetime

from sandbox.client import Obj
from sandbox.lite.controllers.deployment_plan import template_hash
from sandbox.lite.controllers.meta import int_or_percent, labels_of, owner_ref, pod_ready, stamp

PREFIX = "leaderworkerset.sigs.k8s.io/"
NAME, GROUP, WORKER = f"{PREFIX}name", f"{PREFIX}group-index", f"{PREFIX}worker-index"
GROUP_KEY, REVISION = f"{PREFIX}group-key", f"{PREFIX}template-revision-hash"
SIZE, LEADER, REPLICAS = f"{PREFIX}size", f"{PREFIX}leader-name", f"{PREFIX}replicas"
SUBDOMAIN = f"{PREFIX}subdomainPolicy"
UNIQUE = "UniquePerReplica"
_EXCLUSIVE = {("Available", "Progressing"), ("Progressing", "Available"),
              ("Available", "UpdateInProgress"), ("UpdateInProgress", "Available")}  # fmt: skip
_WORDS = {
    "Available": ("AllGroupsReady", "All replicas are ready"),
    "Progressing": ("GroupsProgressing", "Replicas are progressing"),
    "UpdateInProgress": ("GroupsUpdating", "Rolling Upgrade is in progress"),
}


@dataclass(frozen=True)
class Group:
    """How one replica is: leader and workers ready, and of the newest revision."""

    index: int
    ready: bool
    updated: bool


def size_of(group: Obj) -> int:
    """Return how many pods make one replica."""
    return int(group["spec"]["leaderWorkerTemplate"]["size"])


def shared_subdomain(group: Obj) -> bool:
    """Tell whether all pods are named below one Service."""
    return bool((group["spec"].get("networkConfig") or {}).get("subdomainPolicy", "Shared") != UNIQUE)


def revision(group: Obj, number: int) -> Obj:
    """Return the ControllerRevision of the present templates."""
    spec, meta = group["spec"], group["metadata"]
    kept = {
        "networkConfig": {**(spec.get("networkConfig") or {}), "$patch": "replace"},
        "leaderWorkerTemplate": {**spec["leaderWorkerTemplate"], "$patch": "replace"},
    }
    digest = template_hash(kept)
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{meta['name'][:220]}-{digest}-{number}",
            "namespace": meta["namespace"],
            "labels": {NAME: meta["name"], REVISION: digest},
            "ownerReferences": [owner_ref(group)],
        },
        "data": {"spec": kept},
        "revision": number,
    }


def leader_set(group: Obj, partition: int, replicas: int, revision_key: str) -> Obj:
    """Return the StatefulSet of all leaders."""
    meta, template = group["metadata"], group["spec"]["leaderWorkerTemplate"]
    wanted = int(group["spec"]["replicas"])
    own = copy.deepcopy(template.get("leaderTemplate") or template["workerTemplate"])
    about = own.setdefault("metadata", {})
    about["labels"] = {**(about.get("labels") or {}), WORKER: "0", NAME: meta["name"], REVISION: revision_key}
    about["annotations"] = {**(about.get("annotations") or {}), SIZE: str(size_of(group))}
    if not shared_subdomain(group):
        about["annotations"][SUBDOMAIN] = UNIQUE
    rollout = group["spec"]["rolloutStrategy"]
    rolling = {"partition": partition}  # maxUnavailable goes with it and is dropped by the API server, gated off
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": {NAME: meta["name"], REVISION: revision_key},
            "annotations": {REPLICAS: str(wanted)},
            "ownerReferences": [owner_ref(group)],
        },
        "spec": {
            "serviceName": meta["name"],
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {NAME: meta["name"], WORKER: "0"}},
            "updateStrategy": {"type": rollout["type"], "rollingUpdate": rolling},
            "template": own,
        },
    }


def worker_set(group: Obj, leader: Obj, template: Obj) -> Obj:
    """Return the StatefulSet of one leader's workers; `template` is that of the leader's revision."""
    meta, of = group["metadata"], labels_of(leader)
    name = leader["metadata"]["name"]
    selector = {GROUP: of[GROUP], NAME: meta["name"], GROUP_KEY: of[GROUP_KEY]}
    labels = {**selector, REVISION: of.get(REVISION, "")}
    own = copy.deepcopy(template)
    about = own.setdefault("metadata", {})
    about["labels"] = {**(about.get("labels") or {}), **labels}
    about["annotations"] = {**(about.get("annotations") or {}), SIZE: str(size_of(group)), LEADER: name}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [owner_ref(leader)],
        },
        "spec": {
            "serviceName": meta["name"] if shared_subdomain(group) else name,
            "replicas": size_of(group) - 1,
            "podManagementPolicy": "Parallel",
            "ordinals": {"start": 1},
            "selector": {"matchLabels": selector},
            "template": own,
        },
    }


def headless_service(group: Obj, owner: Obj, name: str, selector: dict[str, str]) -> Obj:
    """Return the Service that gives the pods their names."""
    meta = group["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": {NAME: meta["name"]},
            "ownerReferences": [owner_ref(owner)],
        },
        "spec": {"clusterIP": "None", "selector": selector, "publishNotReadyAddresses": True},
    }


def complete_pod(pod: Obj) -> Obj:
    """Return a pod as the webhook of LeaderWorkerSet sends it on: group labels, and where its leader is."""
    if NAME not in labels_of(pod):
        return pod
    whole: Obj = copy.deepcopy(pod)
    meta, spec = whole["metadata"], whole["spec"]
    labels, annotations = meta["labels"], meta.get("annotations") or {}
    number = meta["name"].rpartition("-")[2]
    if labels.get(WORKER) == "0":
        labels.setdefault(GROUP, number)
        if annotations.get(SUBDOMAIN) == UNIQUE:
            spec["subdomain"] = meta["name"]
        labels.setdefault(GROUP_KEY, group_key(meta["namespace"], meta["name"]))
    else:
        labels[WORKER] = number
    leader = f"{labels[NAME]}-{labels[GROUP]}.{spec.get('subdomain', '')}.{meta['namespace']}"
    told = [
        {"name": "LWS_LEADER_ADDRESS", "value": leader},
        {"name": "LWS_GROUP_SIZE", "value": annotations.get(SIZE, "")},
        {"name": "LWS_WORKER_INDEX", "value": labels[WORKER]},
    ]
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        env = container.get("env") or []
        known = {item["name"] for item in env}
        container["env"] = [*(dict(item) for item in told if item["name"] not in known), *env]
    return whole


def group_key(namespace: str, leader: str) -> str:
    """Return the label value all pods of one group share."""
    return hashlib.sha1(f"{namespace}/{leader}".encode(), usedforsecurity=False).hexdigest()


# Rolling updates --------------------------------------------------------------------------------------------


def limits(group: Obj) -> tuple[int, int]:
    """Return how many replicas may be missing, and how many more there may be, while an update runs."""
    wanted = int(group["spec"]["replicas"])
    configuration = group["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"]
    unavailable = int_or_percent(configuration["maxUnavailable"], wanted, round_up=False)
    surge = int_or_percent(configuration["maxSurge"], wanted, round_up=True)
    return unavailable, min(surge, wanted)


def rollout(group: Obj, leaders: Obj | None, groups: list[Group], *, changed: bool) -> tuple[int, int]:
    """Return partition and replicas of the leaders' StatefulSet; `changed` tells that a revision was just made."""
    wanted = int(group["spec"]["replicas"])
    least = int(group["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"].get("partition") or 0)
    partition, replicas = _rollout(group, leaders, groups, wanted, changed=changed)
    return max(partition, least), replicas


def _rollout(group: Obj, leaders: Obj | None, groups: list[Group], wanted: int, *, changed: bool) -> tuple[int, int]:
    if leaders is None:
        return 0, wanted
    there = int(leaders["spec"]["replicas"])
    unavailable, surge = limits(group)
    if changed:
        partition = min(wanted, there)
        return partition, wanted if there < wanted else _replicas(wanted, surge, unavailable, wanted)
    partition = int(leaders["spec"]["updateStrategy"]["rollingUpdate"].get("partition") or 0)
    if partition == 0 and there == wanted:
        return 0, wanted
    if there < wanted:
        return partition, wanted
    by_index = {item.index: item for item in groups}
    states = [by_index.get(index, Group(index, ready=False, updated=False)) for index in range(there)]
    behind = sum(1 for item in states[:wanted] if not (item.ready and item.updated))
    replicas = _replicas(wanted, surge, unavailable, behind)
    if int((leaders["metadata"].get("annotations") or {}).get(REPLICAS, wanted)) != wanted:
        return min(partition, wanted + surge), replicas
    step = unavailable + surge - (wanted + surge - there)
    return _next_partition(states, there, step, partition), replicas


def _replicas(wanted: int, surge: int, unavailable: int, behind: int) -> int:
    """Extra replicas are given back as soon as what is still behind may be missing."""
    return wanted + (max(0, behind - unavailable) if behind <= surge else surge)


def _next_partition(states: list[Group], there: int, step: int, partition: int) -> int:
    tail = 0
    for item in reversed(states):
        if not (item.ready and item.updated):
            break
        tail += 1
    floor = max(0, there - tail - step)
    found = floor + sum(1 for item in states[:floor] if not item.ready)
    for index in range(min(found, there - 1), floor - 1, -1):
        if not states[index].ready or states[index].updated:
            found = index
        else:
            break
    return min(found, partition)


# Status -----------------------------------------------------------------------------------------------------


def groups_of(group: Obj, leaders: list[Obj], worker_sets: dict[str, Obj], revision_key: str) -> list[Group]:
    """Return the state of each replica whose leader is there; one without its workers' set does not count."""
    alone, found = size_of(group) == 1, []
    for pod in leaders:
        workers = worker_sets.get(pod["metadata"]["name"])
        if workers is None and not alone:
            continue
        ready = (alone or _set_ready(workers)) and pod_ready(pod) and pod.get("status", {}).get("phase") == "Running"
        of_workers = alone or labels_of(workers or {"metadata": {}}).get(REVISION) == revision_key
        updated = of_workers and labels_of(pod).get(REVISION) == revision_key
        found.append(Group(int(labels_of(pod)[GROUP]), ready, updated))
    return found


def _set_ready(workers: Obj | None) -> bool:
    status = (workers or {}).get("status") or {}
    wanted = ((workers or {}).get("spec") or {}).get("replicas")
    return wanted == status.get("availableReplicas", 0) and status.get("currentRevision") == status.get(
        "updateRevision"
    )


def status_of(group: Obj, leaders: Obj | None, groups: list[Group], moment: datetime) -> tuple[Obj, str | None]:
    """Return the status, and the condition that is new in it, for an event."""
    wanted = int(group["spec"]["replicas"])
    least = int(group["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"].get("partition") or 0)
    inside = [item for item in groups if item.index < wanted]
    moved = [item for item in inside if item.index >= least]
    behind = sum(item.updated for item in moved) < len(moved)
    done = sum(item.ready and item.updated for item in moved) == len(moved)
    if behind:
        kinds = ["UpdateInProgress", "Progressing"]
    elif sum(item.ready for item in inside) == wanted and done:
        kinds = ["Available"]
    else:
        kinds = ["Progressing"]
    generation = group["metadata"]["generation"]
    before = (group.get("status") or {}).get("conditions") or []
    conditions, fresh = [dict(item) for item in before], None
    for kind in kinds:
        if _set(conditions, kind, generation, moment):
            fresh = fresh or kinds[0]
    for item in conditions:
        item["observedGeneration"] = generation
    status: Obj = {
        "conditions": conditions,
        "hpaPodSelector": f"{NAME}={group['metadata']['name']},{WORKER}=0",
        "observedGeneration": generation,
    }
    for name, number in (
        ("replicas", int(((leaders or {}).get("status") or {}).get("replicas") or 0)),
        ("readyReplicas", sum(item.ready for item in groups)),
        ("updatedReplicas", sum(item.updated for item in groups)),
    ):
        if number:
            status[name] = number
    return status, fresh


def words_of(kind: str) -> tuple[str, str]:
    """Return reason and message of a condition."""
    return _WORDS[kind]


def _set(conditions: list[Obj], kind: str, generation: int, moment: datetime) -> bool:
    reason, message = _WORDS[kind]
    fresh = {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": stamp(moment),
    }
    changed, found = False, False
    for index, item in enumerate(conditions):
        if item["type"] == kind:
            found = True
            if item["status"] != "True" or item.get("observedGeneration") != generation:
                conditions[index], changed = fresh, True
        elif (item["type"], kind) in _EXCLUSIVE and item["status"] == "True":
            conditions[index] = {**item, "status": "False", "lastTransitionTime": stamp(moment)}
            changed = True
    if not found:
        conditions.append(fresh)
    return changed or not found
