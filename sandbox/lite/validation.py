"""Rules a schema cannot say: names, labels, amounts, and what may not change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sandbox.lite import names
from sandbox.lite.checking import CHANGES, CHANGES_FIRST, CHECKS, STATUS_CHECKS
from sandbox.lite.checking.pods import is_extended, pod_spec
from sandbox.lite.errors import Cause, invalid_value, required, unsupported
from sandbox.lite.expressions import ExpressionFailed, compiled
from sandbox.lite.resources import Resource
from sandbox.lite.selectors import match_labels

Obj = dict[str, Any]

__all__ = ["checked_whole", "content", "is_extended", "updated", "validate"]

_TEMPLATED = ("apps/replicasets", "apps/statefulsets", "apps/daemonsets", "batch/jobs")

_CLAIM_FIXED = (
    "Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound "
    "claims"
)
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")


def validate(resource: Resource, obj: Obj, old: Obj | None) -> list[Cause]:
    """Return what is wrong with the metadata of an object beyond its schema; `old` is what it was before an update."""
    meta, before = obj["metadata"], old["metadata"] if old else None
    causes = list(names.name_causes(resource, meta["name"]))
    causes += names.label_causes(meta.get("labels") or {}, "metadata.labels")
    causes += names.annotation_causes(meta.get("annotations") or {}, "metadata.annotations")
    causes += names.owner_causes(meta.get("ownerReferences") or [])
    # The groups whose kinds are checked less.
    known = resource.crd is None and resource.group not in ("policy", "coordination.k8s.io")
    causes += names.finalizer_causes(meta.get("finalizers") or [], before, builtin=known)
    return causes


def checked_whole(resource: Resource) -> bool:
    """Whether the checks of a kind tell what is required, too."""
    return resource.storage_key in CHECKS


def content(resource: Resource, obj: Obj, old: Obj | None, subresource: str) -> Iterator[Cause]:
    """Yield what is wrong with the rest of an object, and what an update may not change."""
    key = resource.storage_key
    changes = [] if old is None else list(updated(resource, old, obj, subresource))
    if key in CHANGES_FIRST:
        yield from changes
    if subresource == "status" and key in STATUS_CHECKS:
        yield from STATUS_CHECKS[key](obj)
    elif subresource == "" and key in CHECKS:
        yield from CHECKS[key](obj)
    elif key in _TEMPLATED:
        yield from _templated(obj.get("spec") or {})
    elif key == "autoscaling/horizontalpodautoscalers":
        from sandbox.lite.controllers import hpa_admission

        yield from hpa_admission.problems(obj.get("spec") or {})
    elif key == "admissionregistration.k8s.io/validatingadmissionpolicies":
        yield from _policy(obj["spec"])
    if key not in CHANGES_FIRST:
        yield from changes


def updated(resource: Resource, old: Obj, new: Obj, subresource: str) -> Iterator[Cause]:
    """Yield the changes that may not be made."""
    key = resource.storage_key
    if key in CHANGES:
        if not subresource:
            yield from CHANGES[key](old, new)
    elif key in ("apps/deployments", "apps/replicasets", "apps/statefulsets"):
        yield from _same(old, new, ("spec", "selector"), "field is immutable")
    elif key == "/persistentvolumeclaims" and not subresource:
        before, after = dict(old["spec"]), dict(new["spec"])
        if not before.get("volumeName"):
            before.pop("volumeName", None)
            after.pop("volumeName", None)
        if before.get("storageClassName") is None:  # no class at all (“”) is one too
            after.pop("storageClassName", None)
        if before != after:
            yield Cause("spec", "FieldValueForbidden", _CLAIM_FIXED)
    elif key.startswith("rbac.") and key.endswith("bindings"):
        if old["roleRef"] != new["roleRef"]:
            shown = {name[0].upper() + name[1:]: new["roleRef"].get(name, "") for name in ("kind", "name")}
            shown = {"APIGroup": new["roleRef"].get("apiGroup", "")} | shown
            yield invalid_value("roleRef", shown, "cannot change roleRef")
    elif key == "/pods" and not subresource and _numbers(old["spec"]) != _numbers(new["spec"]):
        for kind in ("containers", "initContainers"):
            if len(old["spec"].get(kind) or ()) != len(new["spec"].get(kind) or ()):
                text = "Forbidden: pod updates may not add or remove containers"
                yield Cause(f"spec.{kind}", "FieldValueForbidden", text)
    elif key == "/pods" and not subresource and not _tolerated(old["spec"], new["spec"]):
        text = "Forbidden: existing toleration can not be modified except its tolerationSeconds"
        yield Cause("spec.tolerations", "FieldValueForbidden", text)
    elif key == "/pods" and not subresource and _fixed(old["spec"]) != _fixed(new["spec"]):
        text = (
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
            "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative)"
        )
        yield Cause("spec", "FieldValueForbidden", text)


def _templated(spec: Obj) -> Iterator[Cause]:
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    selector = spec.get("selector")
    if isinstance(selector, dict) and "template" in spec:
        if not (selector.get("matchLabels") or selector.get("matchExpressions")):
            yield invalid_value("spec.selector", selector, "empty selector is invalid for deployment")
        elif not match_labels(selector, labels):
            yield invalid_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if isinstance(spec.get("replicas"), int) and spec["replicas"] < 0:
        yield invalid_value("spec.replicas", spec["replicas"], "must be greater than or equal to 0")
    yield from names.label_causes(labels, "spec.template.labels")
    yield from pod_spec(template.get("spec") or {}, "spec.template.spec")


def _policy(spec: Obj) -> Iterator[Cause]:
    """Yield what an admission policy lacks, and its expressions that do not compile."""
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        for name in ("validations", "auditAnnotations"):
            yield required(f"spec.{name}", "validations or auditAnnotations must contain at least one item")
    for part in ("matchConditions", "validations", "variables"):
        for index, item in enumerate(spec.get(part) or ()):
            where, source, reason = f"spec.{part}[{index}]", item.get("expression") or "", item.get("reason")
            try:
                compiled(source)
            except ExpressionFailed as error:
                yield invalid_value(f"{where}.expression", source, str(error))
            if reason and reason not in _REASONS:
                yield unsupported(f"{where}.reason", reason, list(_REASONS))


def _same(old: Obj, new: Obj, path: tuple[str, ...], rule: str) -> Iterator[Cause]:
    before: Any = old
    after: Any = new
    for step in path:
        before, after = (before or {}).get(step), (after or {}).get(step)
    if before != after:
        yield invalid_value(".".join(path), after, rule)


def _numbers(spec: Obj) -> list[int]:
    """How many containers of each kind there are."""
    return [len(spec.get(kind) or ()) for kind in ("containers", "initContainers")]


def _tolerated(old: Obj, new: Obj) -> bool:
    """Whether all that a pod tolerated it still does, for however long."""

    def endless(spec: Obj) -> list[Obj]:
        found = spec.get("tolerations") or ()
        return [{name: value for name, value in item.items() if name != "tolerationSeconds"} for item in found]

    left = endless(new)
    return all(item in left for item in endless(old))


def _fixed(spec: Obj) -> Obj:
    """Return the part of a pod spec that never changes."""
    free = ("activeDeadlineSeconds", "tolerations", "ephemeralContainers")
    fixed = {name: value for name, value in spec.items() if name not in free}
    for kind in ("initContainers", "containers"):
        if kind in fixed:
            fixed[kind] = [container | {"image": ""} for container in fixed[kind]]
    return fixed
