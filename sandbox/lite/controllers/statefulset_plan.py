"""StatefulSets, decided: which numbered pods to make and which to remove, and what the status says. Pure.

Pods keep their names. Under OrderedReady each waits for all before it; under Parallel none waits. An update replaces
pods from the highest number down to the partition, `maxUnavailable` at a time, never one while another is not ready.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.client import Obj
from sandbox.lite.controllers.deployment_plan import template_hash
from sandbox.lite.controllers.meta import (
    condition,
    deleting,
    int_or_percent,
    labels_of,
    owner_ref,
    parse_stamp,
    pod_ready,
)

REVISION = "controller-revision-hash"
POD_NAME, POD_INDEX = "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"


@dataclass(frozen=True)
class Steps:
    """What to do now: ordinals to create, pods to delete, and why each pod goes."""

    create: list[int]
    delete: list[tuple[Obj, str]]  # (pod, "" or the event's sentence that goes with it)


def ordinal_of(stateful_set: Obj, pod: Obj) -> int:
    """Return a pod's number, -1 for a pod whose name is not one of the set's."""
    base, _, number = pod["metadata"]["name"].rpartition("-")
    return int(number) if base == stateful_set["metadata"]["name"] and number.isdigit() else -1


def wanted_ordinals(stateful_set: Obj) -> list[int]:
    """Return the numbers of all pods there shall be."""
    spec = stateful_set["spec"]
    start = int((spec.get("ordinals") or {}).get("start", 0))
    replicas = spec.get("replicas")
    return list(range(start, start + (1 if replicas is None else int(replicas))))


def revision(stateful_set: Obj, number: int) -> Obj:
    """Return the ControllerRevision of the present template."""
    template = stateful_set["spec"]["template"]
    digest, meta = template_hash(template), stateful_set["metadata"]
    name = f"{meta['name'][:223]}-{digest}"
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": {
                **((template.get("metadata") or {}).get("labels") or {}),
                "controller.kubernetes.io/hash": digest,
            },
            "ownerReferences": [owner_ref(stateful_set)],
        },
        "data": {"spec": {"template": {**template, "$patch": "replace"}}},
        "revision": number,
    }


def template_of(revision_object: Obj) -> Obj:
    """Return the pod template a ControllerRevision keeps."""
    template: Obj = copy.deepcopy(revision_object["data"]["spec"]["template"])
    template.pop("$patch", None)
    return template


def pod(stateful_set: Obj, ordinal: int, template: Obj, revision_name: str) -> Obj:
    """Return the pod of one number."""
    meta, spec = stateful_set["metadata"], stateful_set["spec"]
    name, own = f"{meta['name']}-{ordinal}", copy.deepcopy(template)
    about = own.get("metadata") or {}
    body = own["spec"]
    body["hostname"] = name
    if spec.get("serviceName"):
        body["subdomain"] = spec["serviceName"]
    volumes = {item["name"]: item for item in body.get("volumes") or []}
    for claim in claims(stateful_set, ordinal):
        short = claim["metadata"]["name"].removesuffix(f"-{name}")
        source = {"claimName": claim["metadata"]["name"]}
        volumes[short] = {"name": short, "persistentVolumeClaim": source}
    if volumes:
        body["volumes"] = list(volumes.values())
    bookkeeping = {REVISION: revision_name, POD_NAME: name, POD_INDEX: str(ordinal)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": {**(about.get("labels") or {}), **bookkeeping},
            "annotations": about.get("annotations") or {},
            "ownerReferences": [owner_ref(stateful_set)],
        },
        "spec": body,
    }


def claims(stateful_set: Obj, ordinal: int) -> list[Obj]:
    """Return the PersistentVolumeClaims of one number; they outlive pod and set."""
    meta = stateful_set["metadata"]
    made = []
    for template in stateful_set["spec"].get("volumeClaimTemplates") or []:
        claim = copy.deepcopy(template)
        about = claim.get("metadata") or {}
        claim["apiVersion"], claim["kind"] = "v1", "PersistentVolumeClaim"
        claim["metadata"] = {
            "name": f"{about['name']}-{meta['name']}-{ordinal}",
            "namespace": meta["namespace"],
            "labels": {**(about.get("labels") or {}), **(stateful_set["spec"]["selector"].get("matchLabels") or {})},
        }
        claim.pop("status", None)
        made.append(claim)
    return made


def revision_for(stateful_set: Obj, ordinal: int, current: str, update: str) -> str:
    """Return which revision a pod made now gets: below the partition it stays the old one."""
    return current if ordinal < _partition(stateful_set) + min(wanted_ordinals(stateful_set), default=0) else update


def steps(stateful_set: Obj, pods: list[Obj], update: str) -> Steps:
    """Return what brings the pods nearer to what is wanted."""
    numbers = wanted_ordinals(stateful_set)
    ordered = stateful_set["spec"].get("podManagementPolicy") != "Parallel"
    there = {ordinal_of(stateful_set, item): item for item in pods}
    create: list[int] = []
    for number in numbers:
        known = there.get(number)
        if known is None:
            create.append(number)
        elif not deleting(known) and (known.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
            name, meta = known["metadata"]["name"], stateful_set["metadata"]
            word = "Failed" if known["status"]["phase"] == "Failed" else "Succeeded"
            told = f"StatefulSet {meta['namespace']}/{meta['name']} is recreating {word} Pod {name}"
            return Steps(create, [(known, told)])
        elif ordered and (deleting(known) or not pod_ready(known)):
            return Steps(create[:1] if create else [], [])
        if ordered and create:
            return Steps(create, [])
    if create:
        return Steps(create, [])
    surplus = sorted((n for n in there if n not in numbers and not deleting(there[n])), reverse=True)
    if surplus:
        return Steps([], [(there[number], "") for number in (surplus[:1] if ordered else surplus)])
    return Steps([], [(item, "") for item in _outdated(stateful_set, there, numbers, update)])


def _outdated(stateful_set: Obj, there: dict[int, Obj], numbers: list[int], update: str) -> list[Obj]:
    strategy = stateful_set["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate" or not numbers:
        return []
    rolling = strategy.get("rollingUpdate") or {}
    most = max(1, int_or_percent(rolling.get("maxUnavailable", 1), len(numbers), round_up=False))
    lowest = numbers[0] + _partition(stateful_set)
    unready = [n for n in numbers if deleting(there[n]) or not pod_ready(there[n])]
    chosen: list[Obj] = []
    for number in sorted((n for n in numbers if n >= lowest), reverse=True):
        item = there[number]
        if labels_of(item).get(REVISION) == update:
            continue
        if deleting(item):
            continue
        gone = len(unready) + sum(1 for other in chosen if ordinal_of(stateful_set, other) not in unready)
        if number not in unready and gone >= most:
            break
        chosen.append(item)
        if len(chosen) >= most:
            break
    return chosen


def _partition(stateful_set: Obj) -> int:
    strategy = stateful_set["spec"].get("updateStrategy") or {}
    return int((strategy.get("rollingUpdate") or {}).get("partition") or 0)


def status_of(stateful_set: Obj, pods: list[Obj], current: str, update: str, moment: datetime) -> Obj:
    """Return the status; `current` becomes `update` when every pod has it and is ready."""
    before = stateful_set.get("status") or {}
    living = [item for item in pods if not deleting(item)]
    ready = [item for item in living if pod_ready(item) and item.get("status", {}).get("phase") == "Running"]
    available = [item for item in ready if not until_available(stateful_set, [item], moment)]
    updated = [item for item in living if labels_of(item).get(REVISION) == update]
    wanted = len(wanted_ordinals(stateful_set))
    rolling = (stateful_set["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
    if rolling and len(updated) == len(pods) == wanted and len(ready) == wanted:
        current = update
    status: Obj = {
        "observedGeneration": stateful_set["metadata"]["generation"],
        "replicas": len(pods),
        "availableReplicas": len(available),
        "collisionCount": int(before.get("collisionCount") or 0),
        "currentRevision": current,
        "updateRevision": update,
    }
    counts = (
        ("readyReplicas", len(ready)),
        ("currentReplicas", sum(1 for item in living if labels_of(item).get(REVISION) == current)),
        ("updatedReplicas", len(updated)),
    )
    return {**status, **{name: number for name, number in counts if number}}


def until_available(stateful_set: Obj, pods: list[Obj], moment: datetime) -> float | None:
    """Return the seconds until the next ready pod has been ready for minReadySeconds, or None."""
    least = stateful_set["spec"].get("minReadySeconds", 0)
    waits = []
    for item in pods:
        found = condition((item.get("status") or {}).get("conditions"), "Ready")
        if least and found is not None and found["status"] == "True":
            since = parse_stamp(found.get("lastTransitionTime") or item["metadata"]["creationTimestamp"])
            waits.append((since + timedelta(seconds=least) - moment).total_seconds())
    late = [seconds for seconds in waits if seconds > 0]
    return max(0.1, min(late)) if late else None
