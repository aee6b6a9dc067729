"""What single cells of `kubectl get` say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Obj = dict[str, Any]

_ROLE = "node-role.kubernetes.io/"


def _status(obj: Obj) -> Obj:
    return obj.get("status") or {}


def pod_ready(obj: Obj) -> str:
    """Containers ready, of all: `1/1`."""
    ready = sum(bool(status.get("ready")) for status in _status(obj).get("containerStatuses") or ())
    return f"{ready}/{len(obj['spec'].get('containers') or ())}"


def pod_status(obj: Obj) -> str:
    """The one word for a pod's state: its phase, or what holds one of its containers up."""
    status = _status(obj)
    reason = str(status.get("reason") or status.get("phase") or "Unknown")
    waiting_init = _init_reason(obj)
    if waiting_init:
        reason = waiting_init
    else:
        running = False
        for container in reversed(status.get("containerStatuses") or ()):
            state = container.get("state") or {}
            if (state.get("waiting") or {}).get("reason"):
                reason = state["waiting"]["reason"]
            elif "terminated" in state:
                reason = _terminated(state["terminated"])
            elif container.get("ready") and "running" in state:
                running = True
        if reason == "Completed" and running:
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
            reason = "Running" if ready else "NotReady"
    if obj["metadata"].get("deletionTimestamp"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return reason


def pod_restarts(obj: Obj, age: Callable[[str | None], str]) -> str:
    """How often containers were started again, and when last."""
    statuses = _status(obj).get("containerStatuses") or ()
    count = sum(status.get("restartCount", 0) for status in statuses)
    ends = [((s.get("lastState") or {}).get("terminated") or {}).get("finishedAt") for s in statuses]
    last = max(filter(None, ends), default=None)
    return f"{count} ({age(last)} ago)" if count and last else str(count)


def _init_reason(obj: Obj) -> str:
    statuses = _status(obj).get("initContainerStatuses") or ()
    total = len(obj["spec"].get("initContainers") or ())
    for index, container in enumerate(statuses):
        state = container.get("state") or {}
        ended = state.get("terminated")
        if ended is not None and ended.get("exitCode") == 0:
            continue
        if ended is not None:
            return f"Init:{_terminated(ended)}"
        waiting = (state.get("waiting") or {}).get("reason", "")
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{index}/{total}"
    return ""


def _terminated(state: Obj) -> str:
    if state.get("reason"):
        return str(state["reason"])
    return f"Signal:{state['signal']}" if state.get("signal") else f"ExitCode:{state.get('exitCode', 0)}"


def node_status(obj: Obj) -> str:
    """Ready or not, and whether pods may come."""
    ready = next((c for c in _status(obj).get("conditions") or () if c["type"] == "Ready"), None)
    words = ["Unknown" if ready is None else "Ready" if ready["status"] == "True" else "NotReady"]
    if obj.get("spec", {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def node_roles(obj: Obj) -> str:
    """The roles in a node's labels."""
    labels = obj["metadata"].get("labels") or {}
    return ",".join(sorted(k.removeprefix(_ROLE) for k in labels if k.startswith(_ROLE))) or "<none>"


def node_info(obj: Obj, name: str) -> str:
    """One entry of nodeInfo."""
    return str((_status(obj).get("nodeInfo") or {}).get(name) or "<unknown>")


def node_address(obj: Obj, kind: str) -> str:
    """One address of a node."""
    found = (a["address"] for a in _status(obj).get("addresses") or () if a["type"] == kind)
    return next(found, "<none>")


def external_address(obj: Obj) -> str:
    """Where a Service is reached from outside."""
    spec = obj["spec"]
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName"))
    points = (_status(obj).get("loadBalancer") or {}).get("ingress") or ()
    addresses = [point.get("ip") or point.get("hostname") for point in points] + (spec.get("externalIPs") or [])
    if addresses:
        return ",".join(addresses)
    return "<pending>" if spec.get("type") == "LoadBalancer" else "<none>"


def service_ports(obj: Obj) -> str:
    """Ports as `80/TCP` or `80:30080/TCP`."""
    ports = obj["spec"].get("ports") or ()
    words = [
        f"{p['port']}:{p['nodePort']}/{p['protocol']}" if p.get("nodePort") else f"{p['port']}/{p['protocol']}"
        for p in ports
    ]
    return ",".join(words) or "<none>"


def pairs(labels: Obj | None) -> str:
    """Labels as `a=b,c=d`."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def ratio(obj: Obj, field: str) -> str:
    """Replicas as `1/2`."""
    return f"{_status(obj).get(field, 0)}/{obj['spec'].get('replicas', 1)}"


def containers(obj: Obj, field: str) -> str:
    """One field of every container in a template."""
    spec = (obj["spec"].get("template") or {}).get("spec") or {}
    return ",".join(str(container.get(field, "")) for container in spec.get("containers") or ())


def quota(obj: Obj, *, limits: bool) -> str:
    """Used and hard amounts as `requests.cpu: 1/4`."""
    status = _status(obj)
    hard, used = status.get("hard") or {}, status.get("used") or {}
    names = sorted(name for name in hard if name.startswith("limits.") == limits)
    return ", ".join(f"{name}: {used.get(name, '0')}/{hard[name]}" for name in names)


def scaling_targets(obj: Obj) -> str:
    """What an autoscaler measures and aims at, of two metrics at most: `12/5 (avg), cpu: <unknown>/80%`."""
    shown = _status(obj).get("currentMetrics") or []
    specs = obj["spec"].get("metrics") or []
    parts = [_scaling_target(spec, shown[i] if i < len(shown) else {}) for i, spec in enumerate(specs)]
    more = f" + {len(parts) - 2} more..." if len(parts) > 2 else ""
    return ", ".join(parts[:2]) + more if parts else "<none>"


def _scaling_target(spec: Obj, status: Obj) -> str:
    kind = spec["type"][:1].lower() + spec["type"][1:]
    source, current = spec[kind], (status.get(kind) or {}).get("current") or {}
    name = next((name for name in ("averageValue", "averageUtilization", "value") if name in source["target"]), "value")
    unit = "%" if name == "averageUtilization" else ""
    measured = f"{current[name]}{unit}" if name in current else "<unknown>"
    prefix = f"{source['name']}: " if "esource" in kind else ""
    average = " (avg)" if name == "averageValue" and kind in ("external", "object") else ""
    return f"{prefix}{measured}/{source['target'].get(name)}{unit}{average}"


def involved(obj: Obj) -> str:
    """What an event is about, as `pod/name`."""
    about = obj.get("involvedObject") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def source(obj: Obj) -> str:
    """Who reported an event."""
    found = obj.get("source") or {}
    return ", ".join(filter(None, (found.get("component") or obj.get("reportingComponent"), found.get("host"))))


def role(obj: Obj) -> str:
    """What a binding grants, as `ClusterRole/view`."""
    return f"{obj['roleRef']['kind']}/{obj['roleRef']['name']}"
