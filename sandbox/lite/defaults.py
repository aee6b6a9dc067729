"""What the API server fills into built-in objects that leave it out."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from sandbox.lite.quantity import canonical
from sandbox.lite.resources import Resource
from sandbox.lite.schema import Schema

Obj = dict[str, Any]

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"  # until no pod uses the claim

_QUANTITY = Schema.of_builtin("api.resource.Quantity").raw
_VOLUME_MODES = {"secret": 420, "configMap": 420, "projected": 420, "downwardAPI": 420}
_JOB_UID = "batch.kubernetes.io/controller-uid"
_RBAC = "rbac.authorization.k8s.io"


def fill_builtin(resource: Resource, obj: Obj, old: Obj | None) -> None:
    """Fill, in place, the defaults of a built-in kind. Doing it twice changes nothing."""
    canonical_quantities(obj, resource.schema)
    filler = _FILLERS.get(resource.storage_key)
    if filler is not None:
        filler(obj, old)


def prepare(resource: Resource, obj: Obj) -> None:
    """Fill, in place, what a new object is given after it was noted who owns what."""
    if resource.storage_key == "/namespaces":
        finalizers = (obj.get("spec") or {}).get("finalizers") or []
        obj["spec"] = {"finalizers": finalizers + (["kubernetes"] if "kubernetes" not in finalizers else [])}
    elif resource.storage_key == "batch/jobs":
        _select_pods(obj)
    elif resource.storage_key == "/persistentvolumeclaims":
        held = obj["metadata"].setdefault("finalizers", [])
        if CLAIM_FINALIZER not in held:
            held.append(CLAIM_FINALIZER)


def canonical_quantities(value: Any, schema: Schema) -> None:
    """Write, in place, every quantity as the API server stores it."""
    if isinstance(value, dict):
        for name, child in value.items():
            below = schema.field(name)
            if below is None:
                continue
            if below.raw is _QUANTITY:
                value[name] = canonical(child)
            elif isinstance(child, dict | list):
                canonical_quantities(child, below)
    elif isinstance(value, list) and schema.kind == "list":
        for item in value:
            canonical_quantities(item, schema.items)


def pod_spec(spec: Obj) -> None:
    """Fill a pod spec, in a pod or in a template."""
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    spec.setdefault("terminationGracePeriodSeconds", 30)
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in (spec.get("initContainers") or []) + (spec.get("containers") or []):
        _container(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)


def quality_of_service(spec: Obj) -> str:
    """Return the qosClass of a pod spec."""
    guaranteed = bool(spec.get("containers"))
    anything = False
    for container in (spec.get("initContainers") or []) + (spec.get("containers") or []):
        resources = container.get("resources") or {}
        requests, limits = (
            {name: amount for name, amount in (resources.get(kind) or {}).items() if name in ("cpu", "memory")}
            for kind in ("requests", "limits")
        )
        anything = anything or bool(requests or limits)
        guaranteed = guaranteed and set(limits) == {"cpu", "memory"} and requests == limits
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _container(container: Obj) -> None:
    image = container.get("image") or ""
    latest = "@" not in image and image.rsplit("/", 1)[-1].partition(":")[2] in ("", "latest")
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name):
            _probe(container[name])
    for variable in container.get("env") or ():
        field = (variable.get("valueFrom") or {}).get("fieldRef")
        if field:
            field.setdefault("apiVersion", "v1")


def _probe(probe: Obj) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(name):
            probe[name] = value
    if probe.get("httpGet"):
        probe["httpGet"].setdefault("scheme", "HTTP")
        probe["httpGet"].setdefault("path", "/")


def _volume(volume: Obj) -> None:
    if set(volume) == {"name"}:
        volume["emptyDir"] = {}
    for kind, mode in _VOLUME_MODES.items():
        if volume.get(kind) is not None:
            volume[kind].setdefault("defaultMode", mode)
    for source in (volume.get("projected") or {}).get("sources") or ():
        if source.get("serviceAccountToken"):
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            if item.get("fieldRef"):
                item["fieldRef"].setdefault("apiVersion", "v1")
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")


def _pod(obj: Obj, old: Obj | None) -> None:
    spec = obj.setdefault("spec", {})
    pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    for container in (spec.get("initContainers") or []) + (spec.get("containers") or []):
        resources = container["resources"]
        for name, amount in (resources.get("limits") or {}).items():
            resources.setdefault("requests", {}).setdefault(name, amount)
    status = obj.get("status") or {}
    if status.get("podIP") and not status.get("podIPs"):
        status["podIPs"] = [{"ip": status["podIP"]}]
    if old is None:
        obj["status"] = {"phase": "Pending", "qosClass": quality_of_service(spec)}
    else:
        obj.setdefault("status", {})["qosClass"] = quality_of_service(old["spec"])


def _deployment(obj: Obj, old: Obj | None) -> None:
    obj.setdefault("spec", {}).setdefault("template", {})  # in Go it is a struct, there always
    spec = _workload(obj)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def _workload(obj: Obj) -> Obj:
    spec: Obj = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    template = spec.get("template")
    if isinstance(template, dict):
        pod_spec(template.setdefault("spec", {}))
    if "status" not in obj:
        obj["status"] = {}
    return spec


def _replica_set(obj: Obj, old: Obj | None) -> None:
    _workload(obj)
    obj["status"].setdefault("replicas", 0)


def _stateful_set(obj: Obj, old: Obj | None) -> None:
    spec = _workload(obj)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Retain", "whenScaled": "Retain"})
    spec.setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    for name in ("replicas", "availableReplicas"):
        obj["status"].setdefault(name, 0)


def _job(obj: Obj, old: Obj | None) -> None:
    spec = obj.setdefault("spec", {})
    template = spec.setdefault("template", {})
    pod_spec(template.setdefault("spec", {}))
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 2**31 - 1 if spec.get("backoffLimitPerIndex") is not None else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
    _label_job(obj)
    obj.setdefault("status", {})


def _label_job(obj: Obj) -> None:
    """Give a job without labels those of its pods."""
    labels = (obj["spec"]["template"].get("metadata") or {}).get("labels")
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)


def _select_pods(obj: Obj) -> None:
    """Give a job the labels by which it knows its pods."""
    if obj["spec"].get("manualSelector"):
        return
    meta = obj["metadata"]
    labels = obj["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})
    for prefix in ("batch.kubernetes.io/", ""):
        labels |= {f"{prefix}job-name": meta["name"], f"{prefix}controller-uid": meta["uid"]}
    obj["spec"].setdefault("selector", {}).setdefault("matchLabels", {})[_JOB_UID] = meta["uid"]
    _label_job(obj)


def _service(obj: Obj, old: Obj | None) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["sessionAffinity"] == "ClientIP":
        client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        client.setdefault("timeoutSeconds", 10800)
    elif spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    obj.setdefault("status", {"loadBalancer": {}})


def _ingress(obj: Obj, old: Obj | None) -> None:
    obj.setdefault("status", {"loadBalancer": {}})


def _autoscaler(obj: Obj, old: Obj | None) -> None:
    from sandbox.lite.controllers import hpa_admission

    hpa_admission.default(obj.setdefault("spec", {}))
    status = obj.setdefault("status", {})
    status.setdefault("currentMetrics", None)  # Go writes a list as null where it may not be left out
    status.setdefault("desiredReplicas", 0)


def _namespace(obj: Obj, old: Obj | None) -> None:
    meta = obj["metadata"]
    labels = meta.get("labels") or {}
    meta["labels"] = labels | {"kubernetes.io/metadata.name": meta["name"]}
    if old is None:
        obj["status"] = {"phase": "Active"}


def _claim(obj: Obj, old: Obj | None) -> None:
    obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    obj.setdefault("status", {"phase": "Pending"})


def _secret(obj: Obj, old: Obj | None) -> None:
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None)
    if plain:
        encoded = {name: base64.b64encode(value.encode()).decode() for name, value in plain.items()}
        obj["data"] = (obj.get("data") or {}) | encoded


def _quota(obj: Obj, old: Obj | None) -> None:
    obj.setdefault("status", {})


def _budget(obj: Obj, old: Obj | None) -> None:
    status = obj.setdefault("status", {})
    for name in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        status.setdefault(name, 0)


def _limit_range(obj: Obj, old: Obj | None) -> None:
    spec = obj.setdefault("spec", {})
    spec["limits"] = spec.get("limits") or None  # Go writes an empty list as null where it may not be left out
    for item in (obj.get("spec") or {}).get("limits") or ():
        if item.get("type") == "Container":
            for source, target in (("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")):
                if item.get(source):
                    item[target] = item[source] | (item.get(target) or {})


def _network_policy(obj: Obj, old: Obj | None) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress"] + (["Egress"] if spec.get("egress") else [])
    for rule in (spec.get("ingress") or []) + (spec.get("egress") or []):
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _binding(obj: Obj, old: Obj | None) -> None:
    obj.setdefault("roleRef", {}).setdefault("apiGroup", _RBAC)
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", _RBAC)


def _policy(obj: Obj, old: Obj | None) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    if spec.get("matchConstraints"):
        _match(spec["matchConstraints"])
    if "status" not in obj:
        obj["status"] = {}


def _policy_binding(obj: Obj, old: Obj | None) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("matchResources"):
        _match(spec["matchResources"])


def _match(match: Obj) -> None:
    match.setdefault("matchPolicy", "Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for rule in (match.get("resourceRules") or []) + (match.get("excludeResourceRules") or []):
        rule.setdefault("scope", "*")


def _crd(obj: Obj, old: Obj | None) -> None:
    names = obj.setdefault("spec", {}).setdefault("names", {})
    kind = names.get("kind", "")
    names.setdefault("singular", kind.lower())
    names.setdefault("listKind", f"{kind}List")
    obj["spec"].setdefault("conversion", {"strategy": "None"})
    if old is None:
        stored = [version["name"] for version in obj["spec"].get("versions", ()) if version.get("storage")]
        stamp = obj["metadata"].get("creationTimestamp")
        good = [("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted")]  # fmt: skip
        obj["status"] = {
            "acceptedNames": names,
            "storedVersions": stored,
            "conditions": [
                {"type": type_, "status": "True", "reason": reason, "message": text, "lastTransitionTime": stamp}
                for type_, reason, text in good
            ],
        }


_FILLERS: dict[str, Callable[[Obj, Obj | None], None]] = {
    "/pods": _pod,
    "/services": _service,
    "/namespaces": _namespace,
    "/persistentvolumeclaims": _claim,
    "/secrets": _secret,
    "/limitranges": _limit_range,
    "/resourcequotas": _quota,
    "policy/poddisruptionbudgets": _budget,
    "apps/deployments": _deployment,
    "apps/replicasets": _replica_set,
    "apps/statefulsets": _stateful_set,
    "autoscaling/horizontalpodautoscalers": _autoscaler,
    "batch/jobs": _job,
    "networking.k8s.io/ingresses": _ingress,
    "networking.k8s.io/networkpolicies": _network_policy,
    f"{_RBAC}/rolebindings": _binding,
    f"{_RBAC}/clusterrolebindings": _binding,
    "admissionregistration.k8s.io/validatingadmissionpolicies": _policy,
    "admissionregistration.k8s.io/validatingadmissionpolicybindings": _policy_binding,
    "apiextensions.k8s.io/customresourcedefinitions": _crd,
}
