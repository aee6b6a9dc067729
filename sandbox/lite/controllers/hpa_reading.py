"""One metric of an autoscaler: read it, propose a size, or say why not, in the words of kube-controller-manager."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.client import Obj
from sandbox.lite.controllers import hpa_replicas as propose
from sandbox.lite.controllers.hpa_metrics import NO_RESOURCE, Metrics
from sandbox.lite.controllers.hpa_replicas import MetricError, Proposal, Tolerances
from sandbox.lite.controllers.hpa_status import Failure, Outcome, milli_of, selector_text, spell_milli
from sandbox.lite.quantity import parse


@dataclass(frozen=True)
class Scene:
    """What an autoscaler sees of its target: `current` is the size set, `seen` the pods there are."""

    namespace: str
    current: int
    seen: int
    tolerances: Tolerances
    pods: list[Obj]


class Reader:
    """Reads metrics of all five types."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def read(self, metric: Obj, scene: Scene) -> Outcome | Failure:
        """Return what one entry of `spec.metrics` asks for."""
        match metric["type"]:
            case "External":
                return await self._external(metric["external"], scene)
            case "Pods":
                return await self._pods(metric["pods"], scene)
            case "Object":
                return await self._object(metric["object"], scene)
            case kind:
                source = metric["resource" if kind == "Resource" else "containerResource"]
                return self._resource(kind, source)

    async def _external(self, source: Obj, scene: Scene) -> Outcome | Failure:
        name, selector, target = source["metric"]["name"], source["metric"].get("selector"), source["target"]
        average = target.get("averageValue") is not None
        try:
            usage = await self._metrics.external(scene.namespace, name, selector)
        except MetricError as error:
            what = f"{scene.namespace}/{name}/{selector_text(selector)}"
            why = f"unable to get external metric {what}: {error}"
            inner = f"failed to get {name} external metric" if average else f"failed to get external metric {name}"
            outer = f"failed to get {name} external metric value: {inner}: {why}"
            return Failure("FailedGetExternalMetric", why, outer)
        try:
            proposal = _for_total(target, usage, scene)
        except MetricError as error:
            outer = f"failed to get {name} external metric value: failed to get external metric {name}: {error}"
            return Failure("FailedGetExternalMetric", str(error), outer)
        shown = {"type": "External", "external": {"metric": source["metric"], "current": _usage(average, proposal)}}
        return Outcome(proposal.replicas, f"external metric {name}({selector_text(selector)})", shown)

    async def _object(self, source: Obj, scene: Scene) -> Outcome | Failure:
        name, selector, target = source["metric"]["name"], source["metric"].get("selector"), source["target"]
        described, average = source["describedObject"], target.get("averageValue") is not None
        try:
            usage = await self._metrics.object(scene.namespace, name, selector, described)
            proposal = _for_total(target, usage, scene)
        except MetricError as error:
            where = f"{described['kind']} {scene.namespace}/{described['name']}"
            why = f"unable to get metric {name}: {error} on {where}"
            inner = f"failed to get {name} object metric: {why}" if average else why
            return Failure("FailedGetObjectMetric", why, f"failed to get object metric value: {inner}")
        shown = {
            "type": "Object",
            "object": {
                "describedObject": described,
                "metric": source["metric"],
                "current": _usage(average, proposal),
            },
        }
        called = (
            f"external metric {name}({selector_text(selector)})" if average else f"{described['kind']} metric {name}"
        )
        return Outcome(proposal.replicas, called, shown)

    async def _pods(self, source: Obj, scene: Scene) -> Outcome | Failure:
        name, target = source["metric"]["name"], milli_of(source["target"]["averageValue"])
        names = [pod["metadata"]["name"] for pod in scene.pods]
        try:
            values = await self._metrics.pods(scene.namespace, name, source["metric"].get("selector"), names)
        except MetricError as error:
            return _no_pods_metric(f"unable to get metric {name}: {error}")
        try:
            proposal = propose.for_pods(scene.current, values, target, scene.tolerances, scene.pods)
        except MetricError as error:
            return _no_pods_metric(str(error))
        shown = {"type": "Pods", "pods": {"metric": source["metric"], "current": _usage(True, proposal)}}
        return Outcome(proposal.replicas, f"pods metric {name}", shown)

    def _resource(self, kind: str, source: Obj) -> Failure:
        """CPU and memory are measured by nobody here; what is said is what a cluster without metrics-server says."""
        name = source["name"]
        what = "usage" if source["target"].get("averageValue") is not None else "utilization"
        why = f"failed to get {name} {what}: unable to get metrics for resource {name}: {NO_RESOURCE}"
        of = f"{name} resource" if kind == "Resource" else f"{source['container']} container"
        return Failure(f"FailedGet{kind}Metric", why, f"failed to get {of} metric value: {why}")


def tolerances(spec: Obj) -> Tolerances:
    """Return the tolerances of an autoscaler: 10 % unless its behavior says otherwise."""
    behavior = spec.get("behavior") or {}
    down, up = ((behavior.get(name) or {}).get("tolerance", "0.1") for name in ("scaleDown", "scaleUp"))
    return Tolerances(float(parse(down)), float(parse(up)))


def _for_total(target: Obj, usage: int, scene: Scene) -> Proposal:
    if target.get("averageValue") is not None:
        return propose.for_average(scene.seen, usage, milli_of(target["averageValue"]), scene.tolerances)
    return propose.for_value(scene.current, usage, milli_of(target["value"]), scene.tolerances, scene.pods)


def _usage(average: bool, proposal: Proposal) -> Obj:
    return {"averageValue" if average else "value": spell_milli(proposal.usage)}


def _no_pods_metric(why: str) -> Failure:
    return Failure("FailedGetPodsMetric", why, f"failed to get pods metric value: {why}")
