"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sandbox.lite import label_selectors
from sandbox.lite.errors import bad_request
from sandbox.lite.resources import Resource

Obj = dict[str, Any]
Test = Callable[[Obj], bool]

# Fields, besides metadata.name and metadata.namespace, that lists of a kind can be narrowed by.
_FIELDS: dict[str, tuple[str, ...]] = {
    "/pods": (
        "spec.nodeName", "status.phase", "status.podIP", "spec.restartPolicy", "spec.schedulerName",
        "spec.serviceAccountName", "spec.hostNetwork", "status.nominatedNodeName",
    ),
    "/events": (
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
        "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
        "reportingComponent", "source", "type",
    ),
    "/nodes": ("spec.unschedulable",),
    "/namespaces": ("status.phase",),
    "/secrets": ("type",),
    "/services": ("spec.clusterIP", "spec.type"),
    "batch/jobs": ("status.successful",),
}  # fmt: skip


def match_labels(selector: Obj | None, labels: Obj) -> bool:
    """Whether labels satisfy a LabelSelector object; None selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(item, labels) for item in selector.get("matchExpressions") or ())


def field_selector(resource: Resource, text: str) -> list[Test]:
    """Compile the text of a field selector; each test takes the object. 400 for a field the kind does not offer."""
    allowed = ("metadata.name", "metadata.namespace", *_FIELDS.get(resource.storage_key, ()))
    if resource.crd is not None:
        version = next(v for v in resource.crd["spec"]["versions"] if v["name"] == resource.version)
        allowed += tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields", ()))
    tests: list[Test] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        found = re.match(r"^([^=!]+)(==|=|!=)(.*)$", part)
        if not found:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        path, operator, wanted = found.groups()
        if path not in allowed:
            if resource.crd is not None or resource.storage_key in _FIELDS:
                raise bad_request(f"field label not supported: {path}")
            raise bad_request(f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"')
        tests.append(_field_test(path, operator != "!=", wanted))
    return tests


class Selection:
    """What a list or a watch asks for: one namespace or all, a label and a field selector."""

    def __init__(self, resource: Resource, namespace: str, name: str, labels: str, fields: str) -> None:
        self.namespace = namespace
        self.name = name
        self._labels = label_selectors.parse(labels)
        self._fields = field_selector(resource, fields)

    @property
    def everything(self) -> bool:
        """Whether nothing but the namespace narrows it."""
        return not (self.name or self._labels or self._fields)

    def matches(self, obj: Obj) -> bool:
        """Whether an object is selected."""
        meta = obj["metadata"]
        if self.namespace and meta.get("namespace") != self.namespace:
            return False
        if self.name and meta["name"] != self.name:
            return False
        labels = meta.get("labels") or {}
        return all(test(labels) for test in self._labels) and all(test(obj) for test in self._fields)


def lookup(obj: Any, path: str) -> Any:
    """Return the value at a dotted path; None when any step is missing."""
    for step in path.split("."):
        if not isinstance(obj, dict):
            return None
        obj = obj.get(step)
    return obj


def _expression(item: Obj, labels: Obj) -> bool:
    key, operator, values = item["key"], item["operator"], item.get("values") or ()
    if operator == "In":
        return key in labels and labels[key] in values
    if operator == "NotIn":
        return labels.get(key) not in values
    return bool((key in labels) == (operator == "Exists"))


def _field_test(path: str, equal: bool, wanted: str) -> Test:
    def test(obj: Obj) -> bool:
        value = lookup(obj, "source.component" if path == "source" else path)
        if isinstance(value, bool):
            value = "true" if value else "false"
        text = "" if value is None else str(value)
        if path == "spec.unschedulable" and not text:
            text = "false"
        return (text == wanted) == equal

    return test
