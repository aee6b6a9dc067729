"""The part of kube-state-metrics that Slipway's charts and rules read; names and labels are the real ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from sandbox.metrics.exposition import Family, label_name, object_label, quantity, render, unit

Obj = Mapping[str, Any]

PHASES = "Pending", "Succeeded", "Failed", "Unknown", "Running"
CONDITION_STATES = "true", "false", "unknown"
# kube-state-metrics exports an object's labels only where it was told to (--metric-labels-allowlist).
LABEL_PREFIXES = "slipway.dev/", "serving.kserve.io/", "app.kubernetes.io/"
LABELS = "app", "isvc.generation", "component"
NODE_LABEL_PREFIXES = (
    *LABEL_PREFIXES,
    "nvidia.com/",
    "kubernetes.io/",
    "topology.kubernetes.io/",
    "node.kubernetes.io/",
)


def page(*, pods: Iterable[Obj], nodes: Iterable[Obj], deployments: Iterable[Obj], quotas: Iterable[Obj]) -> str:
    """Return the /metrics page for these objects."""
    families = [*_pods(list(pods)), *_nodes(list(nodes)), *_deployments(list(deployments)), *_quotas(list(quotas))]
    return render(families)


def _pods(pods: list[Obj]) -> list[Family]:
    info = Family("kube_pod_info", "[STABLE] Information about pod.")
    labels = Family("kube_pod_labels", "[STABLE] Kubernetes labels converted to Prometheus labels.")
    phase = Family("kube_pod_status_phase", "[STABLE] The pods current phase.")
    ready = Family("kube_pod_status_ready", "[STABLE] Describes whether the pod is ready to serve requests.")
    scheduled = Family(
        "kube_pod_status_scheduled", "[STABLE] Describes the status of the scheduling process for the pod."
    )
    created = Family("kube_pod_created", "[STABLE] Unix creation timestamp")
    for pod in pods:
        who = _identity(pod)
        spec, status = pod.get("spec", {}), pod.get("status", {})
        owner: Obj = next(iter(pod["metadata"].get("ownerReferences", ())), {})
        info.add(
            {
                **who,
                "host_ip": status.get("hostIP", ""),
                "pod_ip": status.get("podIP", ""),
                "node": spec.get("nodeName", ""),
                "created_by_kind": owner.get("kind", ""),
                "created_by_name": owner.get("name", ""),
                "priority_class": spec.get("priorityClassName", ""),
                "host_network": str(bool(spec.get("hostNetwork"))).lower(),
            },
            1,
        )
        labels.add({**who, **_exported_labels(pod, LABEL_PREFIXES)}, 1)
        for name in PHASES:
            phase.add({**who, "phase": name}, status.get("phase", "Pending") == name)
        for family, condition in ((ready, "Ready"), (scheduled, "PodScheduled")):
            state = _condition(status, condition)
            if state:
                for name in CONDITION_STATES:
                    family.add({**who, "condition": name}, state == name)
        created.add(who, _timestamp(pod["metadata"].get("creationTimestamp")))
    return [info, labels, phase, ready, scheduled, created, *_resources(pods), *_statuses(pods)]


def _resources(pods: list[Obj]) -> list[Family]:
    help_text = (
        "The number of {} resource by a container. It is recommended to use the {} metric exposed by kube-scheduler."
    )
    requests = Family(
        "kube_pod_container_resource_requests", help_text.format("requested request", "kube_pod_resource_requests")
    )
    limits = Family(
        "kube_pod_container_resource_limits", help_text.format("requested limit", "kube_pod_resource_limits")
    )
    for pod in pods:
        who, node = _identity(pod), pod.get("spec", {}).get("nodeName", "")
        for container in pod.get("spec", {}).get("containers", ()):
            where = {**who, "container": container["name"], "node": node}
            for family, kind in ((requests, "requests"), (limits, "limits")):
                for name, amount in (container.get("resources", {}).get(kind) or {}).items():
                    family.add({**where, "resource": label_name(name), "unit": unit(name)}, quantity(amount))
    return [requests, limits]


def _statuses(pods: list[Obj]) -> list[Family]:
    """Families of container statuses, for main and for init containers."""
    return [
        family
        for prefix, key in (
            ("kube_pod_container", "containerStatuses"),
            ("kube_pod_init_container", "initContainerStatuses"),
        )
        for family in _container_statuses(pods, prefix, key)
    ]


def _container_statuses(pods: list[Obj], prefix: str, key: str) -> list[Family]:
    what = "init container" if "init" in prefix else "container"
    restarts = Family(
        f"{prefix}_status_restarts_total", f"[STABLE] The number of {what} restarts per container.", "counter"
    )
    ready = Family(f"{prefix}_status_ready", f"[STABLE] Describes whether the {what}s readiness check succeeded.")
    running = Family(
        f"{prefix}_status_running", f"[STABLE] Describes whether the {what} is currently in running state."
    )
    waiting = Family(
        f"{prefix}_status_waiting_reason", f"[STABLE] Describes the reason the {what} is currently in waiting state."
    )
    ended = Family(
        f"{prefix}_status_terminated_reason", f"Describes the reason the {what} is currently in terminated state."
    )
    last = Family(
        f"{prefix}_status_last_terminated_reason", f"Describes the last reason the {what} was in terminated state."
    )
    for pod in pods:
        for status in pod.get("status", {}).get(key) or ():
            where = {**_identity(pod), "container": status["name"]}
            state, before = status.get("state") or {}, status.get("lastState") or {}
            restarts.add(where, status.get("restartCount", 0))
            ready.add(where, bool(status.get("ready")))
            running.add(where, "running" in state)
            for family, cause in (
                (waiting, state.get("waiting")),
                (ended, state.get("terminated")),
                (last, before.get("terminated")),
            ):
                if cause and cause.get("reason"):
                    family.add({**where, "reason": cause["reason"]}, 1)
    return [restarts, ready, running, waiting, ended, last]


def _nodes(nodes: list[Obj]) -> list[Family]:
    info = Family("kube_node_info", "[STABLE] Information about a cluster node.")
    labels = Family("kube_node_labels", "[STABLE] Kubernetes labels converted to Prometheus labels.")
    unschedulable = Family("kube_node_spec_unschedulable", "[STABLE] Whether a node can schedule new pods.")
    conditions = Family("kube_node_status_condition", "[STABLE] The condition of a cluster node.")
    allocatable = Family(
        "kube_node_status_allocatable",
        "[STABLE] The amount of resources allocatable for pods (after reserving some for system daemons).",
    )
    capacity = Family("kube_node_status_capacity", "[STABLE] The total amount of resources available for a node.")
    for node in nodes:
        who = {"node": node["metadata"]["name"]}
        status, system = node.get("status", {}), node.get("status", {}).get("nodeInfo", {})
        versions = {"kernel_version": "kernelVersion", "os_image": "osImage", "kubelet_version": "kubeletVersion",
                    "container_runtime_version": "containerRuntimeVersion"}  # fmt: skip
        info.add(
            {
                **who,
                **{label: system.get(key, "") for label, key in versions.items()},
                "internal_ip": internal_ip(node),
            },
            1,
        )
        labels.add({**who, **_exported_labels(node, NODE_LABEL_PREFIXES)}, 1)
        unschedulable.add(who, bool(node.get("spec", {}).get("unschedulable")))
        for condition in status.get("conditions") or ():
            for name in CONDITION_STATES:
                match = condition["status"].lower() == name
                conditions.add({**who, "condition": condition["type"], "status": name}, match)
        for family, key in ((allocatable, "allocatable"), (capacity, "capacity")):
            for name, amount in (status.get(key) or {}).items():
                family.add({**who, "resource": label_name(name), "unit": unit(name)}, quantity(amount))
    return [info, labels, unschedulable, conditions, allocatable, capacity]


# Family, field of the status, help
DEPLOYMENT_STATUS = (
    ("status_replicas", "replicas", "The number of replicas per deployment."),
    ("status_replicas_ready", "readyReplicas", "The number of ready replicas per deployment."),
    ("status_replicas_available", "availableReplicas", "The number of available replicas per deployment."),
    ("status_replicas_unavailable", "unavailableReplicas", "The number of unavailable replicas per deployment."),
    ("status_replicas_updated", "updatedReplicas", "The number of updated replicas per deployment."),
    ("status_observed_generation", "observedGeneration", "The generation observed by the deployment controller."),
)


def _deployments(deployments: list[Obj]) -> list[Family]:
    labels = Family("kube_deployment_labels", "[STABLE] Kubernetes labels converted to Prometheus labels.")
    desired = Family("kube_deployment_spec_replicas", "[STABLE] Number of desired pods for a deployment.")
    counts = [(Family(f"kube_deployment_{name}", f"[STABLE] {text}"), key) for name, key, text in DEPLOYMENT_STATUS]
    for deployment in deployments:
        meta, status = deployment["metadata"], deployment.get("status", {})
        who = {"namespace": meta["namespace"], "deployment": meta["name"]}
        labels.add({**who, **_exported_labels(deployment, LABEL_PREFIXES)}, 1)
        desired.add(who, deployment["spec"].get("replicas", 1))
        for family, key in counts:
            family.add(who, status.get(key) or 0)
    return [labels, desired, *(family for family, _ in counts)]


def _quotas(quotas: list[Obj]) -> list[Family]:
    family = Family("kube_resourcequota", "[STABLE] Information about resource quota.")
    for quota in quotas:
        meta = quota["metadata"]
        who = {"resourcequota": meta["name"], "namespace": meta["namespace"]}
        for kind in ("hard", "used"):
            for name, amount in (quota.get("status", {}).get(kind) or {}).items():
                family.add({**who, "resource": name, "type": kind}, quantity(amount))
    return [family]


def internal_ip(node: Obj) -> str:
    """Return the address at which the cluster reaches a node; empty when it told none."""
    addresses = node.get("status", {}).get("addresses") or ()
    return next((str(entry["address"]) for entry in addresses if entry["type"] == "InternalIP"), "")


def _identity(pod: Obj) -> dict[str, str]:
    meta = pod["metadata"]
    return {"namespace": meta["namespace"], "pod": meta["name"], "uid": meta["uid"]}


def _exported_labels(obj: Obj, prefixes: Collection[str]) -> dict[str, str]:
    labels = obj["metadata"].get("labels") or {}
    return {
        object_label(key): value for key, value in labels.items() if key in LABELS or key.startswith(tuple(prefixes))
    }


def _condition(status: Obj, kind: str) -> str:
    return next((str(c["status"]).lower() for c in status.get("conditions") or () if c["type"] == kind), "")


def _timestamp(text: str | None) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0.0
