"""The engines of an LLMInferenceService: Deployments for one node, LeaderWorkerSets for many, prefill apart. Pure.

Every function takes the service and its combined spec and returns the object KServe would write. What the storage
initializer needs comes in as `Source`, one for each account. Tracing, autoscaling with WVA and DRA are not played.
"""

from __future__ import annotations

import copy

from sandbox.client import Obj
from sandbox.lite.controllers.llm_config import (
    MODEL_ROUTING,
    PART_OF,
    Settings,
    group_size,
    pool_name,
    workload_selector,
    workload_service,
)
from sandbox.lite.controllers.llm_storage import Source, attach_model
from sandbox.lite.controllers.llm_template import child_name
from sandbox.lite.controllers.meta import annotations_of, labels_of, owner_ref

SIDECAR = "llm-d-routing-sidecar"
COMPONENT = "llminferenceservice-workload"
_KEPT_ANNOTATIONS = ("k8s.v1.cni.cncf.io", "kueue.x-k8s.io", "prometheus.io", "internal.serving.kserve.io/localmodel")
_KEPT_LABELS = ("kueue.x-k8s.io", "internal.serving.kserve.io/localmodel")
_POD_RULES = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
_POOL_RULES = {
    "apiGroups": ["inference.networking.x-k8s.io", "inference.networking.k8s.io"],
    "resources": ["inferencepools"],
    "verbs": ["get", "list", "watch"],
}


# Names ------------------------------------------------------------------------------------------------------


def main_name(service: Obj) -> str:
    """Return the name of the single-node Deployment and its ServiceAccount."""
    return child_name(service["metadata"]["name"], "-kserve")


def prefill_name(service: Obj) -> str:
    """Return the name of the prefill Deployment."""
    return child_name(service["metadata"]["name"], "-kserve-prefill")


def group_name(service: Obj, *, prefill: bool = False) -> str:
    """Return the name of the LeaderWorkerSet and its ServiceAccount."""
    return child_name(service["metadata"]["name"], "-kserve-mn-prefill" if prefill else "-kserve-mn")


def labels(service: Obj, component: str = COMPONENT) -> dict[str, str]:
    """Return the labels of a child."""
    return {
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/name": service["metadata"]["name"],
        "app.kubernetes.io/part-of": PART_OF,
    }


def metadata(service: Obj, name: str, of: dict[str, str]) -> Obj:
    """Return the metadata of an owned child."""
    return {
        "name": name,
        "namespace": service["metadata"]["namespace"],
        "labels": of,
        "ownerReferences": [owner_ref(service)],
    }


def sidecar(spec: Obj | None) -> Obj | None:
    """Return the routing sidecar of a pod spec, if it has one."""
    return next((item for item in (spec or {}).get("initContainers") or [] if item["name"] == SIDECAR), None)


def _role(combined: Obj) -> str:
    return "both" if combined.get("prefill") is None else "decode"


# One node ---------------------------------------------------------------------------------------------------


def deployment(service: Obj, combined: Obj, source: Source) -> Obj:
    """Return the Deployment of the engines, which decode where prefill is apart."""
    of = {**labels(service), "kserve.io/component": "workload", "llm-d.ai/role": _role(combined)}
    spec = copy.deepcopy(combined.get("template") or {})
    if sidecar(spec) is not None:
        spec["serviceAccountName"] = main_account(service, combined)
        _tell_pool(service, combined, spec)
    return _deployment(service, combined, main_name(service), of, spec, source)


def prefill_deployment(service: Obj, combined: Obj, source: Source) -> Obj:
    """Return the Deployment of the engines that prefill."""
    prefill = combined["prefill"]
    of = {
        **labels(service, f"{COMPONENT}-prefill"),
        "kserve.io/component": "workload",
        "llm-d.ai/role": "prefill",
    }
    return _deployment(
        service, prefill, prefill_name(service), of, copy.deepcopy(prefill.get("template") or {}), source
    )


def _deployment(service: Obj, workload: Obj, name: str, of: dict[str, str], spec: Obj, source: Source) -> Obj:
    attach_model(spec, source)
    # One map in KServe's source: what is added for the pods gets into the selector, which then can never change.
    of = {**of, **_own_labels(service, workload)}
    template: Obj = {"metadata": {"labels": dict(of)}, "spec": spec}
    annotations = _passed(annotations_of(service), _KEPT_ANNOTATIONS)
    if {**annotations, **_own_annotations(workload)}:
        template["metadata"]["annotations"] = {**annotations, **_own_annotations(workload)}
    made: Obj = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(service, name, dict(of)),
        "spec": {"selector": {"matchLabels": dict(of)}, "template": template},
    }
    if annotations:
        made["metadata"]["annotations"] = annotations
    if workload.get("replicas") is not None:
        made["spec"]["replicas"] = workload["replicas"]
    return made


def _tell_pool(service: Obj, combined: Obj, spec: Obj) -> None:
    found = sidecar(spec)
    if found is not None and combined.get("router") is not None:
        name = {"name": "INFERENCE_POOL_NAME", "value": pool_name(service, combined)}
        found["env"] = [*(found.get("env") or []), name]


def _passed(given: dict[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    return {name: text for name, text in given.items() if name.startswith(prefixes)}


def _own_labels(service: Obj, workload: Obj) -> dict[str, str]:
    return {**_passed(labels_of(service), _KEPT_LABELS), **(workload.get("labels") or {})}


def _own_annotations(workload: Obj) -> dict[str, str]:
    return {name: text for name, text in (workload.get("annotations") or {}).items() if name != MODEL_ROUTING}


# Many nodes -------------------------------------------------------------------------------------------------


def leader_worker_set(service: Obj, combined: Obj, source: Source, *, prefill: bool = False) -> Obj:
    """Return the LeaderWorkerSet of engines that span nodes; `prefill` asks for the one of prefill."""
    workload = combined["prefill"] if prefill else combined
    role = "prefill" if prefill else _role(combined)
    suffix, account = ("-prefill" if prefill else ""), account_name(service, workload, prefill=prefill)
    workers = labels(service, f"{COMPONENT}-worker{suffix}")
    leaders = {
        **labels(service, f"{COMPONENT}-leader{suffix}"),
        "kserve.io/component": "workload",
        "llm-d.ai/role": role,
    }
    if workload.get("template") is None:  # then the workers themselves take requests
        workers = {**workers, "kserve.io/component": "workload", "llm-d.ai/role": role if prefill else "decode"}
    kept = (*_KEPT_ANNOTATIONS, "leaderworkerset.sigs.k8s.io")
    annotations = _passed(annotations_of(service), kept)
    templates: Obj = {}
    for key, of in (("template", leaders), ("worker", workers)):
        if workload.get(key) is None:
            continue
        spec = copy.deepcopy(workload[key])
        spec["serviceAccountName"] = account
        attach_model(spec, source)
        _tell_pool(service, combined, spec)
        meta: Obj = {"labels": {**of, **_own_labels(service, workload)}}
        if {**annotations, **_own_annotations(workload)}:
            meta["annotations"] = {**annotations, **_own_annotations(workload)}
        templates["leaderTemplate" if key == "template" else "workerTemplate"] = {"metadata": meta, "spec": spec}
    body: Obj = {
        "leaderWorkerTemplate": {**templates, "restartPolicy": "RecreateGroupOnPodRestart"},
        "rolloutStrategy": {"type": "RollingUpdate"},
        "startupPolicy": "LeaderCreated",
    }
    if group_size(workload) is not None:
        body["leaderWorkerTemplate"]["size"] = group_size(workload)
    if workload.get("replicas") is not None:
        body["replicas"] = workload["replicas"]
    made: Obj = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata(service, group_name(service, prefill=prefill), dict(workers)),
        "spec": body,
    }
    if annotations:
        made["metadata"]["annotations"] = annotations
    return made


# Accounts and rights ----------------------------------------------------------------------------------------


def main_account(service: Obj, combined: Obj) -> str:
    """Return the ServiceAccount of engines with a sidecar: the one the template names, else their own."""
    return str((combined.get("template") or {}).get("serviceAccountName") or main_name(service))


def account_name(service: Obj, workload: Obj, *, prefill: bool = False) -> str:
    """Return the ServiceAccount of a group: the one the templates name, else its own."""
    for key in ("template", "worker"):
        named = (workload.get(key) or {}).get("serviceAccountName")
        if named:
            return str(named)
    return group_name(service, prefill=prefill)


def service_account(service: Obj, name: str, of: dict[str, str], default: Obj | None) -> Obj:
    """Return a ServiceAccount that inherits what the namespace's default one may pull and read."""
    made: Obj = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(service, name, of)}
    for key in ("secrets", "imagePullSecrets"):
        if (default or {}).get(key):
            made[key] = copy.deepcopy((default or {})[key])
    return made


def group_labels(service: Obj) -> dict[str, str]:
    """Return the labels of a group's account and rights."""
    return {name: text for name, text in labels(service).items() if not name.endswith("/component")}


def sidecar_role(service: Obj, *, group: bool = False) -> Obj:
    """Return the Role a routing sidecar reads pods and pools with."""
    name = child_name(service["metadata"]["name"], "-kserve-mn-role" if group else "-kserve-role")
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata(service, name, group_labels(service) if group else labels(service)),
        "rules": [_POD_RULES, _POOL_RULES],
    }


def sidecar_role_binding(service: Obj, account: str, *, group: bool = False) -> Obj:
    """Return the RoleBinding that gives the sidecar its Role."""
    name = child_name(service["metadata"]["name"], "-kserve-mn-rb" if group else "-kserve-rb")
    of = group_labels(service) if group else labels(service)
    return role_binding(service, name, of, account, sidecar_role(service, group=group)["metadata"]["name"])


def role_binding(service: Obj, name: str, of: dict[str, str], account: str, role: str) -> Obj:
    """Return a RoleBinding of one account to one Role of the namespace."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata(service, name, of),
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": service["metadata"]["namespace"]}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
    }


# The Service in front ---------------------------------------------------------------------------------------


def service_in_front(service: Obj, combined: Obj, settings: Settings) -> Obj:
    """Return the Service that takes what does not go through the pool."""
    protocol = "https" if settings.tls else "http"
    port = {"name": protocol, "protocol": "TCP", "appProtocol": protocol, "port": 8000, "targetPort": 8000}
    meta = metadata(service, workload_service(service), {**labels(service), **(combined.get("labels") or {})})
    if _own_annotations(combined):
        meta["annotations"] = _own_annotations(combined)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"type": "ClusterIP", "selector": workload_selector(service), "ports": [port]},
    }
