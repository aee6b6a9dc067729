"""Pod status as the kubelet writes it: built from the state of the containers, without a clock of its own."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

State = dict[str, Any]


def waiting(reason: str, message: str | None = None) -> State:
    """A waiting state."""
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def running(started: str) -> State:
    """A running state."""
    return {"running": {"startedAt": started}}


def terminated(
    code: int, reason: str, started: str, finished: str, container_id: str, message: str | None = None
) -> State:
    """A terminated state."""
    body: dict[str, Any] = {"exitCode": code, "reason": reason}
    if message:
        body["message"] = message
    body |= {"startedAt": started, "finishedAt": finished}
    return {"terminated": body | ({"containerID": container_id} if container_id else {})}


@dataclass
class ContainerState:
    """What is known of one container."""

    name: str
    image: str
    image_id: str = ""
    container_id: str = ""
    state: State = field(default_factory=lambda: waiting("ContainerCreating"))
    last_state: State = field(default_factory=dict)
    ready: bool = False
    started: bool = False
    restarts: int = 0
    sidecar: bool = False  # an init container that stays

    def new_id(self) -> None:
        """A fresh container of the runtime."""
        self.container_id = f"containerd://{uuid.uuid4().hex}{uuid.uuid4().hex}"

    @property
    def is_running(self) -> bool:
        """Whether it runs now."""
        return "running" in self.state

    @property
    def initialized(self) -> bool:
        """Whether what comes after this init container may start."""
        if not self.sidecar:
            return self.exit_code == 0
        return self.started or self.restarts > 0 or self.exit_code is not None

    @property
    def exit_code(self) -> int | None:
        """The exit status when it has ended."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    def restore(self, status: Mapping[str, Any]) -> None:
        """Take over what an earlier kubelet wrote."""
        self.image = status.get("image") or self.image
        self.image_id, self.container_id = status.get("imageID", ""), status.get("containerID", "")
        self.state, self.last_state = dict(status.get("state") or {}), dict(status.get("lastState") or {})
        self.restarts = status.get("restartCount", 0)

    def body(self) -> dict[str, Any]:
        """The container status object."""
        body: dict[str, Any] = {
            "name": self.name,
            "image": self.image,
            "imageID": self.image_id,
            "state": self.state,
            "lastState": self.last_state,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
        }
        if self.container_id:
            body["containerID"] = self.container_id
        return body


def phase(
    inits: Sequence[ContainerState], containers: Sequence[ContainerState], restart_policy: str, *, ending: bool
) -> str:
    """The pod's phase."""
    if not ending and any(not container.initialized for container in inits if container.sidecar):
        return "Pending"
    inits = [container for container in inits if not container.sidecar]
    if any(container.exit_code != 0 for container in inits):
        failed = any(container.exit_code for container in inits) and restart_policy == "Never"
        return "Failed" if failed or (ending and all(c.exit_code is not None for c in inits)) else "Pending"
    codes = [container.exit_code for container in containers]
    if all(code is not None for code in codes) and (ending or restart_policy != "Always"):
        if all(code == 0 for code in codes):
            return "Succeeded"
        if ending or restart_policy == "Never":
            return "Failed"
    begun = all(
        container.is_running or container.exit_code is not None or container.restarts for container in containers
    )
    return "Running" if begun else "Pending"


def conditions(
    inits: Sequence[ContainerState],
    containers: Sequence[ContainerState],
    old: Sequence[Mapping[str, Any]],
    *,
    sandbox_ready: bool,
    now: str,
) -> list[dict[str, Any]]:
    """The pod's conditions; transition times move only when a status does."""
    incomplete = [container.name for container in inits if not container.initialized]
    serving = [*(container for container in inits if container.sidecar), *containers]
    unready = [container.name for container in serving if not container.ready]
    wanted: list[dict[str, Any]] = [
        _condition("PodReadyToStartContainers", sandbox_ready),
        _condition("Initialized", not incomplete, "ContainersNotInitialized", _names("incomplete", incomplete)),
        _condition("Ready", not unready, "ContainersNotReady", _names("unready", unready)),
        _condition("ContainersReady", not unready, "ContainersNotReady", _names("unready", unready)),
        _condition("PodScheduled", True),
    ]
    known = {entry["type"]: entry for entry in old}
    for condition in wanted:
        before = known.get(condition["type"])
        same = before is not None and before["status"] == condition["status"]
        condition["lastProbeTime"] = None
        condition["lastTransitionTime"] = before["lastTransitionTime"] if before is not None and same else now
    ours = {condition["type"] for condition in wanted}
    return wanted + [dict(entry) for kind, entry in known.items() if kind not in ours]


def _condition(kind: str, good: bool, reason: str = "", message: str = "") -> dict[str, Any]:
    if good or not reason:
        return {"type": kind, "status": "True" if good else "False"}
    return {"type": kind, "status": "False", "reason": reason, "message": message}


def _names(word: str, names: Sequence[str]) -> str:
    return f"containers with {word} status: [{' '.join(names)}]"


def qos_class(spec: Mapping[str, Any]) -> str:
    """Guaranteed, Burstable or BestEffort."""
    everything = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    resources = [container.get("resources") or {} for container in everything]
    named = [
        {name for part in ("requests", "limits") for name in (entry.get(part) or {}) if name in ("cpu", "memory")}
        for entry in resources
    ]
    if not any(named):
        return "BestEffort"
    for entry in resources:
        limits, requests = entry.get("limits") or {}, entry.get("requests") or {}
        if not {"cpu", "memory"} <= limits.keys():
            return "Burstable"
        if any(str(requests.get(name, limits[name])) != str(limits[name]) for name in ("cpu", "memory")):
            return "Burstable"
    return "Guaranteed"
