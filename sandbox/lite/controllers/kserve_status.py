"""The status of an InferenceService, in KServe 0.20's own misleading ways. Pure.

Each of these was seen on the real controller (recordings in tests/data/kserve-0.20.0) and is kept on purpose:

* `observedGeneration` is the Deployment's.
* PredictorReady copies the Deployment: available is enough, and with `maxUnavailable: 1` and one replica a
  Deployment without a running pod is available. Then Ready, Loaded and UpToDate are all claimed.
* The model's state is read off the newest pod only, its storage initializer first; while Ready, an engine in
  crash loop is not looked at.
* `totalCopies` counts ready pods; `lastFailureInfo` is never cleared.
* `url` is written whether or not an Ingress routes to it, and stays when the service is no longer ready. With the
  Gateway API it is first written when no gateway says a bad word of the service's routes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sandbox.client import Obj
from sandbox.lite.controllers.kserve_conditions import Conditions
from sandbox.lite.controllers.meta import condition, pod_ready

NO_INGRESS = "Predictor ingress not created"
Route = tuple[str, Obj | None]  # what it leads to, in KServe's word, and the HTTPRoute when there is one


@dataclass(frozen=True)
class Addresses:
    """The hosts KServe claims for a service."""

    service: str  # <name>-predictor.<namespace>.svc.cluster.local
    public: str  # <name>-<namespace>.<domain>
    predictor: str  # <name>-predictor-<namespace>.<domain>
    scheme: str = "http"


class SpecError(Exception):
    """The spec cannot be served; `reason`, when set, is KServe's word for lastFailureInfo."""

    def __init__(self, message: str, reason: str = "", told: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.told = told


def empty_status(mode: str) -> Obj:
    """Return the status of a service nobody has looked at."""
    return {"deploymentMode": mode, "modelStatus": {"transitionStatus": ""}}


def runtime_named(status: Obj, name: str, *, cluster: bool) -> Obj:
    """Name the runtime that serves, as one of two fields."""
    fresh = {key: value for key, value in status.items() if not key.lower().endswith("servingruntimename")}
    fresh["clusterServingRuntimeName" if cluster else "servingRuntimeName"] = name
    return fresh


def invalid(status: Obj, error: SpecError, moment: datetime) -> Obj:
    """Return the status of a spec that names no usable runtime or source."""
    fresh = _begun(status, moment)
    if error.reason:
        model = fresh["modelStatus"]
        model["transitionStatus"] = "InvalidSpec"
        model["states"] = {**model.get("states", {"activeModelState": ""}), "targetModelState": "FailedToLoad"}
        model["lastFailureInfo"] = {"reason": error.reason, "message": error.told}
    return fresh


def failed(status: Obj, message: str, moment: datetime) -> Obj:
    """Return the status when the API server refused a child."""
    fresh = _begun(status, moment)
    conditions = Conditions(fresh["conditions"], moment)
    conditions.mark_false("PredictorReady", "ReconcileFailed", message)
    fresh["conditions"] = conditions.items
    fresh.setdefault("components", {}).setdefault("predictor", {})
    return fresh


def stopped(status: Obj, moment: datetime) -> Obj:
    """Return the status of a service stopped on purpose: everything else is wiped."""
    conditions = Conditions([], moment)
    conditions.mark_false("PredictorReady", "Stopped")
    conditions.mark_false("IngressReady", "Stopped")
    conditions.inform("Stopped", "True")
    return {**empty_status(status.get("deploymentMode", "Standard")), "conditions": conditions.items}


def observed(
    status: Obj,
    deployment: Obj,
    pods: list[Obj],
    addresses: Addresses,
    moment: datetime,
    *,
    published: bool,
    routes: Sequence[Route] | None = None,
) -> Obj | None:
    """Return the status of a running service; None when KServe would look again in a second instead.

    `pods` are those of all its revisions; `published` tells whether an Ingress or routes are to be made for it,
    `routes` which there are, None where it is an Ingress.
    """
    fresh = _begun(status, moment)
    conditions = Conditions(fresh["conditions"], moment)
    _predictor(fresh, conditions, deployment, addresses)
    conditions.inform("Stopped", "False")
    if not _model(fresh["modelStatus"], conditions.happy(), pods):
        return None
    trouble = _trouble(published, conditions.ready("PredictorReady"), routes)
    if trouble is not None:
        conditions.mark_false("IngressReady", *trouble)
    else:
        fresh["url"] = f"{addresses.scheme}://{addresses.public}"
        fresh["address"] = {"url": f"{addresses.scheme}://{addresses.service}"}
        conditions.mark_true("IngressReady")
    fresh["conditions"] = conditions.items
    return fresh


def same(one: Obj, other: Obj) -> bool:
    """Tell whether two statuses say the same; moments of transition do not count, as in KServe."""

    def bare(status: Obj) -> Obj:
        items = [{k: v for k, v in item.items() if k != "lastTransitionTime"} for item in status.get("conditions", [])]
        return {**status, "conditions": items}

    return bare(one) == bare(other)


def _begun(status: Obj, moment: datetime) -> Obj:
    fresh = copy.deepcopy(status)
    fresh.setdefault("modelStatus", {"transitionStatus": ""})
    fresh.setdefault("deploymentMode", "Standard")
    conditions = Conditions(fresh.get("conditions") or [], moment)
    conditions.initialize()
    fresh["conditions"] = conditions.items
    return fresh


def _predictor(fresh: Obj, conditions: Conditions, deployment: Obj, addresses: Addresses) -> None:
    """Copy the Deployment's conditions into PredictorReady; later rules win."""
    about = deployment.get("status") or {}
    said = about.get("conditions") or []
    state, source = "False", {}
    available, progressing = condition(said, "Available"), condition(said, "Progressing")
    if available and available["status"] == "True":
        state, source = "True", available
    if progressing and progressing["status"] == "False" and progressing.get("message"):
        state, source = "False", progressing
    if progressing and progressing["status"] == "True" and progressing.get("reason") == "NewReplicaSetAvailable":
        state, source = "True", progressing
    if available and available["status"] == "False":
        state, source = "False", available
    failure = condition(said, "ReplicaFailure")
    if failure and failure["status"] == "True":
        state, source = "False", failure
    component = fresh.setdefault("components", {}).setdefault("predictor", {})
    if state == "True":
        component["url"] = f"{addresses.scheme}://{addresses.predictor}"
    mark = conditions.mark_true if state == "True" else conditions.mark_false
    mark("PredictorReady", source.get("reason", ""), source.get("message", ""))
    if about.get("observedGeneration"):
        fresh["observedGeneration"] = about["observedGeneration"]


def _trouble(published: bool, serving: bool, routes: Sequence[Route] | None) -> tuple[str, str] | None:
    """Return why nobody gets in, as reason and message: the first trouble of the first route, or an unmade Ingress."""
    if routes is None or not published:
        return (NO_INGRESS, "") if published and not serving else None
    for part, route in routes:
        if route is None:
            return f"{part} Deployment NotReady", f"{part} HTTPRoute not created"
        parents = (route.get("status") or {}).get("parents") or []
        if not parents:
            return "ParentStatusNotAvailable", f"{part} HttpRouteNotReady"
        for said in (item for parent in parents for item in parent.get("conditions") or []):
            if said["status"] == "False":
                return said.get("reason", ""), f"{part} {said.get('message', '')}"
    return None


def _model(model: Obj, ready: bool, pods: list[Obj]) -> bool:
    """Derive the model's state; False means: look again in a second and write nothing now."""
    copies = sum(1 for pod in pods if pod.get("status", {}).get("phase") == "Running" and pod_ready(pod))
    model["copies"] = {"failedCopies": 0, **({"totalCopies": copies} if copies else {})}
    if not pods:
        _target(model, "Pending")
        return True
    newest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    about = newest.get("status") or {}
    loader = _named(about.get("initContainerStatuses"), "storage-initializer")
    if loader is not None:
        if "running" in loader.get("state", {}):
            if loader.get("lastState", {}).get("terminated"):
                return False
            _target(model, "Loading")
            return True
        if _broken(model, loader):
            return True
    if ready:
        _target(model, "Loaded")
        return True
    engine = _named(about.get("containerStatuses"), "kserve-container")
    if engine is not None and not _broken(model, engine):
        _target(model, "Pending")
    return True


def _broken(model: Obj, container: Obj) -> bool:
    """Record the failure of a container that ended in error or waits in crash loop."""
    state = container.get("state") or {}
    ended = state.get("terminated")
    if ended is not None and ended.get("reason") == "Error":
        failure = ended
    elif (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff":
        failure = (container.get("lastState") or {}).get("terminated") or {}
    else:
        return False
    _target(model, "FailedToLoad")
    info = {"reason": "ModelLoadFailed", "message": failure.get("message"), "exitCode": failure.get("exitCode")}
    model["lastFailureInfo"] = {name: value for name, value in info.items() if value}
    return True


def _target(model: Obj, state: str) -> None:
    states = model.setdefault("states", {"activeModelState": ""})
    states["targetModelState"] = state
    if state == "Loaded":
        states["activeModelState"] = "Loaded"
    model["transitionStatus"] = {"Loaded": "UpToDate", "FailedToLoad": "BlockedByFailedLoad"}.get(state, "InProgress")


def _named(statuses: list[Obj] | None, name: str) -> Obj | None:
    return next((item for item in statuses or [] if item.get("name") == name), None)
