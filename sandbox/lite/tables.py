"""Objects as table rows, as `kubectl get` shows them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sandbox.lite import cells
from sandbox.lite.resources import Resource

Obj = dict[str, Any]
Column = tuple[str, Callable[[Obj], Any], bool]  # title, value, shown only with -o wide


def table(resource: Resource, objects: Sequence[Obj], include: str, rv: str = "") -> Obj:
    """Return a Table of objects; `include` is Metadata, Object or None."""
    columns = _columns(resource)
    definitions = [
        {
            "name": title,
            "type": "string",
            "format": "name" if title == "Name" else "",
            "description": title,
            "priority": 1 if wide else 0,
        }
        for title, _, wide in columns
    ]
    rows = []
    for obj in objects:
        row: Obj = {"cells": [value(obj) for _, value, _ in columns]}
        if include == "Object":
            row["object"] = obj
        elif include != "None":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": obj["metadata"],
            }
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": rv} if rv else {},
        "columnDefinitions": definitions,
        "rows": rows,
    }


def age(stamp: str | None) -> str:
    """Say how long ago a time was, in kubectl's short words."""
    if not stamp:
        return "<unknown>"
    then = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    seconds = int((datetime.now(UTC) - then).total_seconds())
    if seconds < 0:
        return "0s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    return f"{days // 365}y{days % 365}d" if days % 365 else f"{days // 365}y"


def _columns(resource: Resource) -> list[Column]:
    name: Column = ("Name", lambda obj: obj["metadata"]["name"], False)
    created: Column = ("Age", lambda obj: age(obj["metadata"].get("creationTimestamp")), False)
    if resource.crd is not None:
        printed = [_crd_column(column) for column in resource.columns]
        return [name, *printed] if printed else [name, created]
    if resource.storage_key == "/events":
        return [("Last Seen", lambda obj: age(obj.get("lastTimestamp") or obj.get("eventTime")), False), *_EVENT]
    if resource.storage_key in _NO_AGE:
        return [name, ("Created At", lambda obj: obj["metadata"].get("creationTimestamp", ""), False)]
    own = _COLUMNS.get(resource.storage_key, ())
    near = [column for column in own if not column[2]]
    far = [column for column in own if column[2]]
    if resource.storage_key == "/nodes":
        return [name, *near[:-1], created, near[-1], *far]
    return [name, *near, created, *far]


def _crd_column(column: Obj) -> Column:
    steps = _json_path(column["jsonPath"])
    kind = column.get("type")

    def value(obj: Obj) -> Any:
        found = _walk(obj, steps)
        if found is None:
            return None if kind != "date" else "<unknown>"
        if kind == "date":
            return age(str(found))
        if isinstance(found, bool):
            return "true" if found else "false"
        return found if isinstance(found, int | float) else str(found)

    return column["name"], value, bool(column.get("priority"))


_STEP = re.compile(r"\.([\w-]+)|\['([^']+)'\]|\[(\d+|\*)\]|\[\?\(@\.([\w.-]+)\s*==\s*['\"]([^'\"]*)['\"]\)\]")


def _json_path(path: str) -> list[tuple[str, ...]]:
    steps: list[tuple[str, ...]] = []
    for dotted, quoted, index, key, wanted in _STEP.findall(path.replace("\\.", "\x00")):
        if dotted or quoted:
            steps.append(("field", (dotted or quoted).replace("\x00", ".")))
        elif index:
            steps.append(("index", index))
        else:
            steps.append(("where", key, wanted))
    return steps


def _walk(value: Any, steps: list[tuple[str, ...]]) -> Any:
    for position, step in enumerate(steps):
        if step[0] == "field" and isinstance(value, dict):
            value = value.get(step[1])
        elif step[0] == "where" and isinstance(value, list):
            value = next((item for item in value if str(_walk(item, _json_path(f".{step[1]}"))) == step[2]), None)
        elif step[0] == "index" and isinstance(value, list) and step[1] == "*":
            found = [_walk(item, steps[position + 1 :]) for item in value]
            return ",".join(str(item) for item in found if item is not None) or None
        elif step[0] == "index" and isinstance(value, list) and int(step[1]) < len(value):
            value = value[int(step[1])]
        else:
            return None
    return value


_NO_AGE = ("rbac.authorization.k8s.io/clusterroles", "rbac.authorization.k8s.io/roles",
           "apiextensions.k8s.io/customresourcedefinitions")  # fmt: skip
_EVENT: list[Column] = [
    ("Type", lambda obj: obj.get("type", ""), False),
    ("Reason", lambda obj: obj.get("reason", ""), False),
    ("Object", lambda obj: cells.involved(obj), False),
    ("Subobject", lambda obj: (obj.get("involvedObject") or {}).get("fieldPath", ""), True),
    ("Source", lambda obj: cells.source(obj), True),
    ("Message", lambda obj: (obj.get("message") or "").strip(), False),
    ("First Seen", lambda obj: age(obj.get("firstTimestamp")), True),
    ("Count", lambda obj: obj.get("count", 1), True),
    ("Name", lambda obj: obj["metadata"]["name"], True),
]
_COLUMNS: dict[str, list[Column]] = {
    "/pods": [
        ("Ready", cells.pod_ready, False),
        ("Status", cells.pod_status, False),
        ("Restarts", lambda obj: cells.pod_restarts(obj, age), False),
        ("IP", lambda obj: (obj.get("status") or {}).get("podIP") or "<none>", True),
        ("Node", lambda obj: obj["spec"].get("nodeName") or "<none>", True),
        ("Nominated Node", lambda obj: (obj.get("status") or {}).get("nominatedNodeName") or "<none>", True),
        ("Readiness Gates", lambda obj: "<none>", True),
    ],
    "/nodes": [
        ("Status", cells.node_status, False),
        ("Roles", cells.node_roles, False),
        ("Version", lambda obj: cells.node_info(obj, "kubeletVersion"), False),
        ("Internal-IP", lambda obj: cells.node_address(obj, "InternalIP"), True),
        ("OS-Image", lambda obj: cells.node_info(obj, "osImage"), True),
        ("Kernel-Version", lambda obj: cells.node_info(obj, "kernelVersion"), True),
        ("Container-Runtime", lambda obj: cells.node_info(obj, "containerRuntimeVersion"), True),
    ],
    "/namespaces": [("Status", lambda obj: (obj.get("status") or {}).get("phase", ""), False)],
    "/services": [
        ("Type", lambda obj: obj["spec"].get("type", ""), False),
        ("Cluster-IP", lambda obj: obj["spec"].get("clusterIP") or "<none>", False),
        ("External-IP", cells.external_address, False),
        ("Port(s)", cells.service_ports, False),
        ("Selector", lambda obj: cells.pairs(obj["spec"].get("selector")), True),
    ],
    "/configmaps": [("Data", lambda obj: len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), False)],
    "/secrets": [
        ("Type", lambda obj: obj.get("type", ""), False),
        ("Data", lambda obj: len(obj.get("data") or {}), False),
    ],
    "/resourcequotas": [
        ("Request", lambda obj: cells.quota(obj, limits=False), False),
        ("Limit", lambda obj: cells.quota(obj, limits=True), False),
    ],
    "/persistentvolumeclaims": [
        ("Status", lambda obj: (obj.get("status") or {}).get("phase", ""), False),
        ("Volume", lambda obj: obj["spec"].get("volumeName", ""), False),
        ("Capacity", lambda obj: ((obj.get("status") or {}).get("capacity") or {}).get("storage", ""), False),
        ("StorageClass", lambda obj: obj["spec"].get("storageClassName", ""), False),
    ],
    "apps/deployments": [
        ("Ready", lambda obj: cells.ratio(obj, "readyReplicas"), False),
        ("Up-to-date", lambda obj: (obj.get("status") or {}).get("updatedReplicas", 0), False),
        ("Available", lambda obj: (obj.get("status") or {}).get("availableReplicas", 0), False),
        ("Containers", lambda obj: cells.containers(obj, "name"), True),
        ("Images", lambda obj: cells.containers(obj, "image"), True),
        ("Selector", lambda obj: cells.pairs((obj["spec"].get("selector") or {}).get("matchLabels")), True),
    ],
    "apps/replicasets": [
        ("Desired", lambda obj: obj["spec"].get("replicas", 0), False),
        ("Current", lambda obj: (obj.get("status") or {}).get("replicas", 0), False),
        ("Ready", lambda obj: (obj.get("status") or {}).get("readyReplicas", 0), False),
        ("Containers", lambda obj: cells.containers(obj, "name"), True),
        ("Images", lambda obj: cells.containers(obj, "image"), True),
        ("Selector", lambda obj: cells.pairs((obj["spec"].get("selector") or {}).get("matchLabels")), True),
    ],
    "apps/statefulsets": [("Ready", lambda obj: cells.ratio(obj, "readyReplicas"), False)],
    "autoscaling/horizontalpodautoscalers": [
        ("Reference", lambda obj: "{kind}/{name}".format(**obj["spec"]["scaleTargetRef"]), False),
        ("Targets", cells.scaling_targets, False),
        ("MinPods", lambda obj: obj["spec"].get("minReplicas", "<unset>"), False),
        ("MaxPods", lambda obj: obj["spec"]["maxReplicas"], False),
        ("Replicas", lambda obj: (obj.get("status") or {}).get("currentReplicas", 0), False),
    ],
    "policy/poddisruptionbudgets": [
        ("Min Available", lambda obj: obj["spec"].get("minAvailable", "N/A"), False),
        ("Max Unavailable", lambda obj: obj["spec"].get("maxUnavailable", "N/A"), False),
        ("Allowed Disruptions", lambda obj: (obj.get("status") or {}).get("disruptionsAllowed", 0), False),
    ],
    "networking.k8s.io/networkpolicies": [
        ("Pod-Selector", lambda obj: cells.pairs((obj["spec"].get("podSelector") or {}).get("matchLabels")), False)
    ],
    "networking.k8s.io/ingresses": [
        ("Class", lambda obj: obj["spec"].get("ingressClassName") or "<none>", False),
        ("Hosts", lambda obj: ",".join(r.get("host", "*") for r in obj["spec"].get("rules") or ()) or "*", False),
    ],
    "rbac.authorization.k8s.io/rolebindings": [("Role", cells.role, False)],
    "rbac.authorization.k8s.io/clusterrolebindings": [("Role", cells.role, False)],
    "coordination.k8s.io/leases": [("Holder", lambda obj: (obj.get("spec") or {}).get("holderIdentity", ""), False)],
}
