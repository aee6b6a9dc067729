"""Rules a schema cannot say: names, labels, amounts, and what may not change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sandbox.lite import names
from sandbox.lite.errors import Cause, invalid_value, required, spell, unsupported
from sandbox.lite.expressions import ExpressionFailed, compiled
from sandbox.lite.quantity import parse
from sandbox.lite.resources import Resource
from sandbox.lite.selectors import match_labels

Obj = dict[str, Any]

_TEMPLATED = ("apps/deployments", "apps/replicasets", "apps/statefulsets", "apps/daemonsets", "batch/jobs")

_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")


def validate(resource: Resource, obj: Obj) -> list[Cause]:
    """Return what is wrong with an object beyond its schema."""
    meta = obj["metadata"]
    causes = list(names.name_causes(resource, meta["name"]))
    causes += names.label_causes(meta.get("labels") or {}, "metadata.labels")
    causes += names.annotation_causes(meta.get("annotations") or {}, "metadata.annotations")
    if resource.storage_key == "/pods":
        causes += _pod_spec(obj.get("spec") or {}, "spec")
    elif resource.storage_key in _TEMPLATED:
        causes += _templated(obj.get("spec") or {})
    elif resource.storage_key == "/resourcequotas":
        causes += _amounts((obj.get("spec") or {}).get("hard") or {}, "spec.hard")
    elif resource.storage_key == "/services":
        causes += _service(obj["spec"])
    elif resource.storage_key == "autoscaling/horizontalpodautoscalers":
        from sandbox.lite.controllers import hpa_admission

        causes += hpa_admission.problems(obj.get("spec") or {})
    elif resource.storage_key == "admissionregistration.k8s.io/validatingadmissionpolicies":
        causes += _policy(obj["spec"])
    return causes


def updated(resource: Resource, old: Obj, new: Obj, subresource: str) -> Iterator[Cause]:
    """Yield the changes that may not be made."""
    key = resource.storage_key
    if key in ("apps/deployments", "apps/replicasets", "apps/statefulsets"):
        yield from _same(old, new, ("spec", "selector"), "field is immutable")
    elif key == "/services" and old["spec"].get("clusterIP") and old["spec"]["type"] == "ClusterIP":
        yield from _same(old, new, ("spec", "clusterIP"), "may not change once set")
    elif key.startswith("rbac.") and key.endswith("bindings"):
        yield from _same(old, new, ("roleRef",), "cannot change roleRef")
    elif key in ("/secrets", "/configmaps") and old.get("immutable"):
        if old.get("data") != new.get("data") or not new.get("immutable"):
            yield Cause("data", "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set")
    elif key == "/pods" and not subresource and _fixed(old["spec"]) != _fixed(new["spec"]):
        text = (
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
            "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative)"
        )
        yield Cause("spec", "FieldValueForbidden", text)


def is_extended(name: str) -> bool:
    """Whether a resource name is an extended one, like nvidia.com/gpu."""
    return "/" in name and not name.startswith("requests.") and "kubernetes.io/" not in name


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
    yield from _pod_spec(template.get("spec") or {}, "spec.template.spec")


def _pod_spec(spec: Obj, path: str) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    seen: set[str] = set()
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            where = f"{path}.{kind}[{index}]"
            if not container.get("image"):
                yield required(f"{where}.image")
            name = container.get("name") or ""
            if name in seen:
                yield Cause(f"{where}.name", "FieldValueDuplicate", f"Duplicate value: {spell(name)}")
            seen.add(name)
            yield from _resources(container.get("resources") or {}, f"{where}.resources")
            for place, mount in enumerate(container.get("volumeMounts") or ()):
                if mount.get("name") not in volumes:
                    field = f"{where}.volumeMounts[{place}].name"
                    yield Cause(field, "FieldValueNotFound", f"Not found: {spell(mount.get('name', ''))}")
    if spec.get("restartPolicy") not in (None, "Always", "OnFailure", "Never"):
        yield unsupported(f"{path}.restartPolicy", spec["restartPolicy"], ["Always", "OnFailure", "Never"])


def _resources(resources: Obj, path: str) -> Iterator[Cause]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    bad = [*_amounts(limits, f"{path}.limits"), *_amounts(requests, f"{path}.requests")]
    yield from bad
    readable = {name for amounts in (requests, limits) for name, value in amounts.items() if _readable(value)}
    for name in sorted(requests):
        if name not in readable:
            continue
        if name not in limits:
            if is_extended(name):
                yield required(f"{path}.limits", "Limit must be set for non overcommitable resources")
            continue
        asked, limit = parse(requests[name]), parse(limits[name])
        if is_extended(name) and asked != limit:
            yield invalid_value(f"{path}.requests", requests[name], f"must be equal to {name} limit of {limits[name]}")
        elif asked > limit:
            rule = f"must be less than or equal to {name} limit of {limits[name]}"
            yield invalid_value(f"{path}.requests", requests[name], rule)


def _amounts(amounts: Obj, path: str) -> Iterator[Cause]:
    for name, value in sorted(amounts.items()):
        field = f"{path}[{name}]"
        if not _readable(value):
            yield invalid_value(field, value, "must be a quantity")
            continue
        amount = parse(value)
        if amount < 0:
            yield invalid_value(field, value, "must be greater than or equal to 0")
        if is_extended(name) and amount != amount.to_integral_value():
            yield invalid_value(field, value, "must be an integer")


def _readable(value: Any) -> bool:
    try:
        parse(value)
    except ValueError:
        return False
    return True


def _service(spec: Obj) -> Iterator[Cause]:
    ports = spec.get("ports") or []
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        yield required("spec.ports")
    for index, port in enumerate(ports):
        if len(ports) > 1 and not port.get("name"):
            yield required(f"spec.ports[{index}].name")
        if not isinstance(port.get("port"), int) or not 0 < port["port"] < 65536:
            yield invalid_value(f"spec.ports[{index}].port", port.get("port"), "must be between 1 and 65535, inclusive")


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


def _fixed(spec: Obj) -> Obj:
    """Return the part of a pod spec that never changes."""
    free = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "ephemeralContainers")
    fixed = {name: value for name, value in spec.items() if name not in free}
    for kind in ("initContainers", "containers"):
        if kind in fixed:
            fixed[kind] = [container | {"image": ""} for container in fixed[kind]]
    return fixed
