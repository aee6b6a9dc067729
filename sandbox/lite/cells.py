"""What single cells of `kubectl get` say."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any

Obj = dict[str, Any]

_ROLE = "node-role.kubernetes.io/"


def _status(obj: Obj) -> Obj:
    return obj.get("status") or {}


def pod_ready(obj: Obj) -> str:
    """Containers ready, of all: `1/1`. Init containers that go on beside the others count once they have started."""
    begun = [status for status in _inits_passed(obj) if _goes_on(obj, status)]
    own = (_status(obj).get("containerStatuses") or ()) if _past_inits(obj) else ()
    ready = sum(bool(status.get("ready")) for status in begun)
    ready += sum(bool(status.get("ready")) and "running" in (status.get("state") or {}) for status in own)
    return f"{ready}/{len(obj['spec'].get('containers') or ()) + len(_going_on(obj))}"


def pod_status(obj: Obj) -> str:
    """The one word for a pod's state: its phase, or what holds one of its containers up."""
    status = _status(obj)
    phase = str(status.get("phase") or "")
    reason = _init_reason(obj) or ("SchedulingGated" if _is_gated(obj) else str(status.get("reason") or phase))
    if _past_inits(obj):
        reason = _container_reason(status, reason)
    if obj["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        return reason if phase in {"Failed", "Succeeded"} else "Terminating"
    return reason


def pod_restarts(obj: Obj, age: Callable[[str | None], str]) -> str:
    """How often containers were started again, and when last; of init containers those that go on, once past them."""
    if _past_inits(obj):
        inits = [status for status in _inits_seen(obj) if status.get("name") in _going_on(obj)]
        statuses = [*inits, *(_status(obj).get("containerStatuses") or ())]
    else:
        statuses = _inits_seen(obj)
    count = sum(status.get("restartCount", 0) for status in statuses)
    ends = [((s.get("lastState") or {}).get("terminated") or {}).get("finishedAt") for s in statuses]
    last = max(filter(None, ends), default=None)
    return f"{count} ({age(last)} ago)" if count and last else str(count)


# As printPod of Kubernetes does it (pkg/printers/internalversion): init containers are gone through in their order, up
# to the first that holds the pod up.


def _going_on(obj: Obj) -> set[str]:
    """The names of init containers that go on beside the others (sidecars)."""
    inits = obj["spec"].get("initContainers") or ()
    return {container["name"] for container in inits if container.get("restartPolicy") == "Always"}


def _goes_on(obj: Obj, status: Obj) -> bool:
    return status.get("name") in _going_on(obj) and status.get("started") is True


def _ended_well(status: Obj) -> bool:
    return ((status.get("state") or {}).get("terminated") or {}).get("exitCode") == 0


def _inits_passed(obj: Obj) -> list[Obj]:
    """Init containers before the one that holds the pod up."""
    statuses = _status(obj).get("initContainerStatuses") or ()
    return list(takewhile(lambda status: _ended_well(status) or _goes_on(obj, status), statuses))


def _inits_seen(obj: Obj) -> list[Obj]:
    """Init containers up to the one that holds the pod up, that one too."""
    statuses = _status(obj).get("initContainerStatuses") or ()
    return list(statuses[: len(_inits_passed(obj)) + 1])


def _past_inits(obj: Obj) -> bool:
    """True when no init container holds the pod up, or the pod has been past them before."""
    if len(_inits_passed(obj)) == len(_status(obj).get("initContainerStatuses") or ()):
        return True
    return _is_true(_status(obj), "Initialized")


def _init_reason(obj: Obj) -> str:
    """What is said of the init container that holds the pod up; empty for none."""
    statuses = _status(obj).get("initContainerStatuses") or ()
    passed = len(_inits_passed(obj))
    if passed == len(statuses):
        return ""
    state = statuses[passed].get("state") or {}
    if "terminated" in state:
        return f"Init:{_terminated(state['terminated'])}"
    waiting = (state.get("waiting") or {}).get("reason", "")
    if waiting and waiting != "PodInitializing":
        return f"Init:{waiting}"
    return f"Init:{passed}/{len(obj['spec'].get('initContainers') or ())}"


def _container_reason(status: Obj, reason: str) -> str:
    """What is said of the containers: of the first of them that has something to say, else `reason`."""
    running, failed = False, ""
    for container in reversed(status.get("containerStatuses") or ()):
        state = container.get("state") or {}
        if (state.get("waiting") or {}).get("reason"):
            reason = state["waiting"]["reason"]
        elif "terminated" in state:
            reason = _terminated(state["terminated"])
            failed = reason if state["terminated"].get("exitCode") else failed
        elif container.get("ready") and "running" in state:
            running = True
    if reason != "Completed":
        return reason
    if running and _is_true(status, "Ready"):
        return "Running"
    return failed or ("NotReady" if running else reason)


def _is_gated(obj: Obj) -> bool:
    conditions = _status(obj).get("conditions") or ()
    return any(c["type"] == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in conditions)


def _is_true(status: Obj, kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in status.get("conditions") or ())


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
