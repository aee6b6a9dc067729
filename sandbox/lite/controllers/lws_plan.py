"""LeaderWorkerSets 0.9, decided: leader and worker StatefulSets, what pods get on top, rolling updates, status. Pure.

One StatefulSet makes all leaders; each leader pod owns a StatefulSet of its workers, so that a leader's end is its
group's end. Exclusive placement, subgroups and volume claims are not played.
"""

from __future__ import annotations

import copy
import hashlib

from sandbox.client import Obj
from sandbox.lite.controllers.deployment_plan import template_hash
from sandbox.lite.controllers.meta import labels_of, owner_ref

PREFIX = "leaderworkerset.sigs.k8s.io/"
NAME, GROUP, WORKER = f"{PREFIX}name", f"{PREFIX}group-index", f"{PREFIX}worker-index"
GROUP_KEY, REVISION = f"{PREFIX}group-key", f"{PREFIX}template-revision-hash"
SIZE, LEADER, REPLICAS = f"{PREFIX}size", f"{PREFIX}leader-name", f"{PREFIX}replicas"
SUBDOMAIN = f"{PREFIX}subdomainPolicy"
UNIQUE = "UniquePerReplica"


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
