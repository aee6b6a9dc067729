"""LeaderWorkerSets 0.9, moving: how a rolling update goes on, and what the status says. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sandbox.client import Obj
from sandbox.lite.controllers.lws_plan import GROUP, NAME, REPLICAS, REVISION, WORKER, size_of
from sandbox.lite.controllers.meta import int_or_percent, labels_of, pod_ready, stamp

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
