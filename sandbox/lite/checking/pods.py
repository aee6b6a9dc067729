"""Pods, and the pod templates of workloads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sandbox.lite.checking.common import (
    PROTOCOLS,
    amount,
    count,
    dns_label,
    duplicate,
    forbidden,
    not_one_of,
    port,
    port_number,
    subdomain,
    whole_amount,
)
from sandbox.lite.checking.quotas import resource_name
from sandbox.lite.errors import Cause, invalid_value, required, spell
from sandbox.lite.names import label_causes
from sandbox.lite.quantity import canonical, parse

Obj = dict[str, Any]

_RESTARTS = "Always", "OnFailure", "Never"
_PULLS = "Always", "IfNotPresent", "Never"
_DNS = "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"
_EFFECTS = "NoSchedule", "PreferNoSchedule", "NoExecute"
_MEASURED = "cpu", "memory", "ephemeral-storage"
_HANDLERS = "exec", "httpGet", "tcpSocket", "grpc"


def is_extended(name: str) -> bool:
    """Whether a resource name is an extended one, like nvidia.com/gpu."""
    return "/" in name and not name.startswith("requests.") and "kubernetes.io/" not in name


def pod(obj: Obj) -> Iterator[Cause]:
    """Check a Pod."""
    yield from pod_spec(obj.get("spec") or {}, "spec")


def pod_spec(spec: Obj, path: str) -> Iterator[Cause]:
    """Check a pod spec, in a pod or in a template."""
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        yield from _volume(volume, f"{path}.volumes[{index}]", volumes)
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    names: set[str] = set()
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            yield from _container(container, f"{path}.{kind}[{index}]", volumes, names)
    if spec.get("restartPolicy") not in _RESTARTS:
        yield not_one_of(f"{path}.restartPolicy", spec.get("restartPolicy") or "", _RESTARTS)
    if spec.get("dnsPolicy") not in _DNS:
        yield not_one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy") or "", _DNS)
    yield from label_causes(spec.get("nodeSelector") or {}, f"{path}.nodeSelector")
    for name in ("serviceAccountName", "nodeName", "priorityClassName"):
        if spec.get(name):
            yield from subdomain(spec[name], f"{path}.{name}")
    seconds = spec.get("activeDeadlineSeconds")
    if seconds is not None and not 0 < seconds < 1 << 31:
        yield invalid_value(f"{path}.activeDeadlineSeconds", seconds, "must be between 1 and 2147483647, inclusive")
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        yield from _toleration(toleration, f"{path}.tolerations[{index}]")


def _volume(volume: Obj, field: str, seen: set[str]) -> Iterator[Cause]:
    name = volume.get("name") or ""
    kinds = [kind for kind, source in volume.items() if kind != "name" and source is not None]
    for kind in kinds[1:]:
        yield forbidden(f"{field}.{kind}", "may not specify more than 1 volume type")
    if not kinds:
        yield required(field, "must specify a volume type")
    if volume.get("persistentVolumeClaim") is not None and not volume["persistentVolumeClaim"].get("claimName"):
        yield required(f"{field}.persistentVolumeClaim.claimName")
    if volume.get("secret") is not None and not volume["secret"].get("secretName"):
        yield required(f"{field}.secret.secretName")
    if volume.get("configMap") is not None and not volume["configMap"].get("name"):
        yield required(f"{field}.configMap.name")
    if volume.get("hostPath") is not None and not volume["hostPath"].get("path"):
        yield required(f"{field}.hostPath.path")
    if not name:
        yield required(f"{field}.name")
    else:
        yield from dns_label(name, f"{field}.name")
    if name in seen:
        yield duplicate(f"{field}.name", name)
    seen.add(name)


def _container(container: Obj, field: str, volumes: set[str], names: set[str]) -> Iterator[Cause]:
    name = container.get("name") or ""
    if not name:
        yield required(f"{field}.name")
    else:
        yield from dns_label(name, f"{field}.name")
    if not container.get("image"):
        yield required(f"{field}.image")
    yield from _ports(container.get("ports") or [], f"{field}.ports")
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            yield required(f"{field}.env[{index}].name")
        elif "=" in variable["name"]:
            rule = "a valid environment variable name must consist only of printable ASCII characters other than '='"
            yield invalid_value(f"{field}.env[{index}].name", variable["name"], rule)
    yield from _mounts(container.get("volumeMounts") or [], f"{field}.volumeMounts", volumes)
    if container.get("imagePullPolicy") not in _PULLS:
        yield not_one_of(f"{field}.imagePullPolicy", container.get("imagePullPolicy") or "", _PULLS)
    yield from resources(container.get("resources") or {}, f"{field}.resources")
    if name and name in names:
        yield duplicate(f"{field}.name", name)
    names.add(name)
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(kind) is not None:
            yield from _probe(container[kind], f"{field}.{kind}")


def _ports(ports: list[Obj], field: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, item in enumerate(ports):
        where, name, number = f"{field}[{index}]", item.get("name") or "", item.get("containerPort") or 0
        if name:
            yield from port(name, f"{where}.name")
            if name in seen:
                yield duplicate(f"{where}.name", name)
            seen.add(name)
        if not number:
            yield required(f"{where}.containerPort")
        else:
            yield from port_number(number, f"{where}.containerPort")
        if item.get("protocol") not in PROTOCOLS:
            yield not_one_of(f"{where}.protocol", item.get("protocol") or "", PROTOCOLS)


def _mounts(mounts: list[Obj], field: str, volumes: set[str]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        where, path = f"{field}[{index}]", mount.get("mountPath") or ""
        if not mount.get("name"):
            yield required(f"{where}.name")
        elif mount["name"] not in volumes:
            yield Cause(f"{where}.name", "FieldValueNotFound", f"Not found: {spell(mount['name'])}")
        if not path:
            yield required(f"{where}.mountPath")
        elif path in seen:
            yield invalid_value(f"{where}.mountPath", path, "must be unique")
        seen.add(path)


def resources(found: Obj, field: str) -> Iterator[Cause]:
    """Check what a container asks for and may use."""
    requests, limits = found.get("requests") or {}, found.get("limits") or {}
    for name, value in limits.items():
        yield from _amount(name, value, f"{field}.limits[{name}]")
    for name, value in requests.items():
        yield from _amount(name, value, f"{field}.requests[{name}]")
        if name in limits:
            asked, limit = parse(value), parse(limits[name])
            shown = canonical(limits[name])
            if is_extended(name) and asked != limit:
                yield invalid_value(f"{field}.requests", canonical(value), f"must be equal to {name} limit of {shown}")
            elif asked > limit:
                rule = f"must be less than or equal to {name} limit of {shown}"
                yield invalid_value(f"{field}.requests", canonical(value), rule)
        elif is_extended(name):
            yield required(f"{field}.limits", "Limit must be set for non overcommitable resources")


def _amount(name: str, value: Any, field: str) -> Iterator[Cause]:
    yield from resource_name(name, field)
    if "/" not in name and name not in _MEASURED and not name.startswith("hugepages-"):
        yield invalid_value(field, name, "must be a standard resource for containers")
    yield from amount(value, field)
    if is_extended(name):
        yield from whole_amount(value, field)


def _probe(probe: Obj, field: str) -> Iterator[Cause]:
    handlers = [name for name in _HANDLERS if probe.get(name) is not None]
    if not handlers:
        yield required(field, "must specify a handler type")
    for name in handlers[1:]:
        yield forbidden(f"{field}.{name}", "may not specify more than 1 handler type")
    for name in ("httpGet", "tcpSocket"):
        if name in handlers:
            yield from port(probe[name].get("port", 0), f"{field}.{name}.port")
    if "grpc" in handlers:
        yield from port_number(probe["grpc"].get("port", 0), f"{field}.grpc.port")
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        yield from count(probe.get(name), f"{field}.{name}")
    if "readiness" not in field.rsplit(".", 1)[-1] and probe.get("successThreshold", 1) != 1:
        yield invalid_value(f"{field}.successThreshold", probe["successThreshold"], "must be 1")


def _toleration(toleration: Obj, field: str) -> Iterator[Cause]:
    key, operator = toleration.get("key") or "", toleration.get("operator") or ""
    if key:
        yield from label_causes({key: ""}, f"{field}.key")
    elif operator != "Exists":
        rule = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        yield invalid_value(f"{field}.operator", operator, rule)
    effect = toleration.get("effect") or ""
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        yield invalid_value(f"{field}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
    value = toleration.get("value") or ""
    if operator == "Exists" and value:
        yield invalid_value(f"{field}.operator", value, "value must be empty when `operator` is 'Exists'")
    elif operator not in ("", "Equal", "Exists"):
        yield not_one_of(f"{field}.operator", operator, ("Equal", "Exists"))
    if effect and effect not in _EFFECTS:
        yield not_one_of(f"{field}.effect", effect, _EFFECTS)
