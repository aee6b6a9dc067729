"""The triggers of a ScaledObject, read as KEDA 2.20 reads them: `prometheus`, `cpu`, `memory`. Pure.

A trigger that cannot be read raises TriggerError with KEDA's words. KEDA knows some seventy more types; to ask for
one of them is answered as for a type that nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sandbox.client import Obj
from sandbox.lite.controllers.hpa_status import spell_milli
from sandbox.lite.quantity import canonical

RESOURCES = ("cpu", "memory")
_TRUE, _FALSE = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False"}


class TriggerError(Exception):
    """A trigger is wrong; the text is KEDA's."""


@dataclass(frozen=True)
class PrometheusTrigger:
    """A query whose one value is compared with a threshold."""

    index: int
    metric_type: str
    address: str
    query: str
    threshold: float
    activation: float = 0.0
    namespace: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    ignore_nothing: bool = True
    cached: bool = False

    @property
    def metric(self) -> str:
        """The name of the external metric."""
        return f"s{self.index}-prometheus"

    def spec(self, scaled_object: str) -> Obj:
        """Return the entry of `spec.metrics` of the autoscaler."""
        name = "value" if self.metric_type == "Value" else "averageValue"
        selector = {"matchLabels": {"scaledobject.keda.sh/name": scaled_object}}
        return {
            "type": "External",
            "external": {
                "metric": {"name": self.metric, "selector": selector},
                "target": {"type": self.metric_type, name: spell_milli(max(0, round(self.threshold * 1000)))},
            },
        }


@dataclass(frozen=True)
class ResourceTrigger:
    """CPU or memory of the pods: the autoscaler's own business."""

    resource: str
    metric_type: str
    value: str
    container: str = ""

    def spec(self, scaled_object: str) -> Obj:
        """Return the entry of `spec.metrics` of the autoscaler."""
        utilization = self.metric_type == "Utilization"
        target: Obj = {"type": self.metric_type}
        target["averageUtilization" if utilization else "averageValue"] = (
            int(self.value) if utilization else canonical(self.value)
        )
        source: Obj = {"name": self.resource, "target": target}
        if self.container:
            return {"type": "ContainerResource", "containerResource": {**source, "container": self.container}}
        return {"type": "Resource", "resource": source}


Trigger = PrometheusTrigger | ResourceTrigger


def read_triggers(triggers: list[Obj]) -> list[Trigger]:
    """Read all triggers. TriggerError for the first that cannot be read."""
    return [_read(index, trigger) for index, trigger in enumerate(triggers)]


def metric_specs(triggers: list[Trigger], scaled_object: str) -> list[Obj]:
    """Return `spec.metrics` of the autoscaler, sorted by type as KEDA sorts them."""
    return sorted((trigger.spec(scaled_object) for trigger in triggers), key=lambda item: str(item["type"]))


def types(triggers: list[Obj]) -> tuple[str, str]:
    """Return the distinct types and authentications, each joined by commas, as the status lists them."""
    kinds = dict.fromkeys(item["type"] for item in triggers)
    access = dict.fromkeys(item["authenticationRef"]["name"] for item in triggers if item.get("authenticationRef"))
    return ",".join(kinds), ",".join(access)


def problem(triggers: list[Obj]) -> str | None:
    """Return what is wrong with the triggers as a list, before any is read."""
    if not triggers:
        return "no triggers defined in the ScaledObject/ScaledJob"
    names: set[str] = set()
    for trigger in triggers:
        if trigger.get("useCachedMetrics") and trigger["type"] in (*RESOURCES, "cron"):
            return f'property "useCachedMetrics" is not supported for "{trigger["type"]}" scaler'
        name = trigger.get("name")
        if name and name in names:
            return (
                f'triggerName "{name}" is defined multiple times in the ScaledObject/ScaledJob, but it must be unique'
            )
        names.add(name or "")
    return None


def _read(index: int, trigger: Obj) -> Trigger:
    kind = trigger["type"]
    if kind == "prometheus":
        return _prometheus(index, trigger)
    if kind in RESOURCES:
        return _resource(kind, trigger)
    raise TriggerError(f"no scaler found for type: {kind}")


def _prometheus(index: int, trigger: Obj) -> PrometheusTrigger:
    metric_type = trigger.get("metricType") or "AverageValue"
    if metric_type == "Utilization":
        raise TriggerError(
            "error getting scaler metric type: 'Utilization' metric type is unsupported for external metrics, "
            "allowed values are 'Value' or 'AverageValue'"
        )
    metadata = _Metadata(trigger.get("metadata") or {})
    made = PrometheusTrigger(
        index=index,
        metric_type=metric_type,
        address=metadata.text("serverAddress", needed=True),
        query=metadata.text("query", needed=True),
        threshold=metadata.number("threshold", needed=True),
        activation=metadata.number("activationThreshold"),
        namespace=metadata.text("namespace"),
        headers=metadata.pairs("customHeaders"),
        ignore_nothing=metadata.truth("ignoreNullValues", missing=True),
        cached=bool(trigger.get("useCachedMetrics")),
    )
    if metadata.wrong:
        raise TriggerError(f"{'error parsing prometheus metadata: ' * 2}{chr(10).join(metadata.wrong)}")
    return made


def _resource(kind: str, trigger: Obj) -> ResourceTrigger:
    metadata = _Metadata(trigger.get("metadata") or {})
    value, container = metadata.text("value", needed=True), metadata.text("containerName")
    metric_type = trigger.get("metricType") or ""
    if not metadata.wrong and metric_type not in ("Utilization", "AverageValue"):
        allowed = "allowed values are 'Utilization' or 'AverageValue'"
        metadata.wrong.append(f"unknown metric type: {metric_type}, {allowed}")
    elif metric_type == "Utilization" and not value.lstrip("+-").isdigit() and value:
        metadata.wrong.append(f'strconv.ParseInt: parsing "{value}": invalid syntax')
    if metadata.wrong:
        raise TriggerError(f"error parsing {kind} metadata: {chr(10).join(metadata.wrong)}")
    return ResourceTrigger(kind, metric_type, value, container)


class _Metadata:
    """The words of a trigger, and what is wrong with them."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words
        self.wrong: list[str] = []

    def text(self, name: str, *, needed: bool = False) -> str:
        value = self._words.get(name, "")
        if needed and not value:
            self.wrong.append(f'missing required parameter "{name}" in [triggerMetadata]')
        return value

    def number(self, name: str, *, needed: bool = False) -> float:
        value = self.text(name, needed=needed)
        try:
            return float(value or 0)
        except ValueError:
            why = f"invalid character '{value[0]}' looking for beginning of value"
            self._unreadable(name, f"unable to unmarshal to field type float64: {why}")
            return 0.0

    def truth(self, name: str, *, missing: bool) -> bool:
        value = self._words.get(name, "")
        if not value:
            return missing
        if value not in _TRUE | _FALSE:
            why = f'strconv.ParseBool: parsing "{value}": invalid syntax'
            self._unreadable(name, f'unable to parse boolean value "{value}": {why}')
        return value in _TRUE

    def pairs(self, name: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for word in filter(None, self._words.get(name, "").split(",")):
            key, equals, value = word.partition("=")
            if not equals:
                self._unreadable(name, f'expected format key=value, got "{word}"')
            found[key.strip()] = value.strip()
        return found

    def _unreadable(self, name: str, why: str) -> None:
        self.wrong.append(f'unable to set param "{name}" value "{self._words[name]}": {why}')
