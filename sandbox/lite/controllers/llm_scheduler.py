"""The endpoint picker of an LLMInferenceService: its Deployment, Service, pool and rights. Pure.

KServe rewrites the picker's configuration for the version its preset names; of these rewrites the ones that change
today's presets are played: sorted keys, and no tokenizer unless the precise prefix cache is asked for.
"""

from __future__ import annotations

import copy
from typing import Any

import yaml

from sandbox.client import Obj
from sandbox.lite.controllers.kserve_pods import MODELS
from sandbox.lite.controllers.llm_config import pool_ref
from sandbox.lite.controllers.llm_storage import MAIN, TOKENIZER, Source, attach_model
from sandbox.lite.controllers.llm_template import child_name
from sandbox.lite.controllers.llm_workloads import labels, metadata, role_binding

COMPONENT = "llminferenceservice-router-scheduler"
VERSION = "app.kubernetes.io/version"
_FLAGS = tuple(f"{dashes}{name}" for dashes in ("--", "-") for name in ("config-text", "configText"))
_FILES = tuple(f"{dashes}{name}" for dashes in ("--", "-") for name in ("config-file", "configFile"))
_PORTS = ("grpc", "grpc-health", "metrics", "zmq")
_READ = ["get", "list", "watch"]
_POOLS = ["inference.networking.k8s.io", "inference.networking.x-k8s.io"]
_RULES = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": _READ},
    {"apiGroups": _POOLS, "resources": ["inferencepools", "inferenceobjectives", "inferencemodels"], "verbs": _READ},
    {"apiGroups": _POOLS[1:], "resources": ["inferencemodelrewrites", "inferencepoolimports"], "verbs": _READ},
    {"apiGroups": ["llm-d.ai"], "resources": ["inferenceobjectives", "inferencemodelrewrites"], "verbs": _READ},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": _READ},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": [*_READ, "create", "update", "patch", "delete"],
    },
]


def wanted(combined: Obj) -> bool:
    """Tell whether the controller keeps a scheduler for this service."""
    scheduler = (combined.get("router") or {}).get("scheduler") or {}
    return scheduler.get("template") is not None and not pool_ref(combined)


def scheduler_labels(service: Obj) -> dict[str, str]:
    """Return the labels of everything that belongs to the scheduler."""
    return labels(service, COMPONENT)


def deployment_name(service: Obj) -> str:
    """Return the name of the scheduler's Deployment."""
    return child_name(service["metadata"]["name"], "-kserve-router-scheduler")


def picker_service_name(service: Obj, combined: Obj) -> str:
    """Return the name of the Service the pool asks."""
    pool = ((combined.get("router") or {}).get("scheduler") or {}).get("pool") or {}
    named = (pool.get("spec") or {}).get("endpointPickerRef", {}).get("name")
    return str(named) if named and not pool_ref(combined) else child_name(service["metadata"]["name"], "-epp-service")


def account_name(service: Obj, combined: Obj) -> str:
    """Return the ServiceAccount of the scheduler."""
    named = combined["router"]["scheduler"]["template"].get("serviceAccountName")
    return str(named or child_name(service["metadata"]["name"], "-epp-sa"))


def deployment(service: Obj, combined: Obj, source: Source, known: Obj | None) -> Obj:
    """Return the Deployment; the configuration in `known`, the one there is, stays unless the spec brings its own."""
    scheduler, of = combined["router"]["scheduler"], scheduler_labels(service)
    spec = copy.deepcopy(scheduler["template"])
    main = next((item for item in spec.get("containers") or [] if item["name"] == MAIN), None)
    replicas = scheduler.get("replicas")
    if main is not None:
        arguments = list(main.get("args") or [])
        if (replicas or 1) > 1 and not {"--ha-enable-leader-election", "-ha-enable-leader-election"} & set(arguments):
            arguments.append("--ha-enable-leader-election")
        main["args"] = [*arguments, *_configuration(combined, arguments, known)]
    if any(item["name"] == TOKENIZER for item in spec.get("containers") or []):
        attach_model(spec, source, TOKENIZER, f"{MODELS}/base")
    version = (scheduler.get("annotations") or {}).get(VERSION, "")
    if main is not None and _at_least(version, (0, 7)):
        _rewrite(spec, main, _at_least(version, (0, 9)))
    # As of the engines: what is added for the pods gets into the selector.
    of = {**of, **(scheduler.get("labels") or {})}
    template: Obj = {"metadata": {"labels": dict(of)}, "spec": spec}
    if scheduler.get("annotations"):
        template["metadata"]["annotations"] = dict(scheduler["annotations"])
    body: Obj = {"strategy": {"type": "Recreate"}, "selector": {"matchLabels": of}, "template": template}
    if replicas is not None:
        body["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(service, deployment_name(service), of),
        "spec": body,
    }


def _configuration(combined: Obj, arguments: list[str], known: Obj | None) -> list[str]:
    inline = (combined["router"]["scheduler"].get("config") or {}).get("inline")
    if inline is not None:
        return ["--config-text", inline if isinstance(inline, str) else yaml.safe_dump(inline)]
    if _flag(arguments):
        return []
    for container in ((known or {}).get("spec") or {}).get("template", {}).get("spec", {}).get("containers") or []:
        if container["name"] == MAIN and _flag(container.get("args") or []):
            return _flag(container["args"])
    return ["--config-text", yaml.safe_dump(default_configuration(combined))]


def _flag(arguments: list[str]) -> list[str]:
    for index, word in enumerate(arguments[:-1]):
        if word in (*_FLAGS, *_FILES):
            return arguments[index : index + 2]
    return []


def default_configuration(combined: Obj) -> Obj:
    """Return the EndpointPickerConfig KServe writes where nobody brings one."""
    lora = bool(((combined.get("model") or {}).get("lora") or {}).get("adapters"))
    affinity = [("lora-affinity-scorer", 4)] if lora else []
    if combined.get("prefill") is not None:
        decider = "always-disagg-pd-decider"
        plugins: list[Obj] = [
            *_types(
                "disagg-headers-handler", "prefill-filter", "decode-filter", "queue-scorer",
                "kv-cache-utilization-scorer", "active-request-scorer", "prefix-cache-scorer", "max-score-picker",
                decider,
            ),
            {"type": "disagg-profile-handler", "parameters": {"deciders": {"prefill": decider}}},
        ]  # fmt: skip
        prefill = [("prefix-cache-scorer", 3), ("queue-scorer", 2), ("kv-cache-utilization-scorer", 2)]
        decode = [("active-request-scorer", 2), ("prefix-cache-scorer", 3)]
        profiles = [
            _profile("prefill", [("prefill-filter", 0), *affinity, *prefill]),
            _profile("decode", [("decode-filter", 0), *affinity, *decode]),
        ]
    else:
        plugins = _types(
            "single-profile-handler", "queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer",
            "no-hit-lru-scorer", "max-score-picker",
        )  # fmt: skip
        scorers = [("queue-scorer", 2), ("kv-cache-utilization-scorer", 2), ("prefix-cache-scorer", 3)]
        profiles = [_profile("default", [*affinity, *scorers, ("no-hit-lru-scorer", 2)])]
    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [*plugins, *_types(*(name for name, _ in affinity))],
        "schedulingProfiles": profiles,
    }


def _types(*names: str) -> list[Obj]:
    return [{"type": name} for name in names]


def _profile(name: str, plugins: list[tuple[str, int]]) -> Obj:
    refs: list[Obj] = [{"pluginRef": plugin, **({"weight": weight} if weight else {})} for plugin, weight in plugins]
    return {"name": name, "plugins": [*refs, {"pluginRef": "max-score-picker"}]}


def _at_least(version: str, least: tuple[int, int]) -> bool:
    parts = version.split(".")
    return len(parts) >= 2 and all(part.isdigit() for part in parts[:2]) and (int(parts[0]), int(parts[1])) >= least


def _rewrite(spec: Obj, main: Obj, without_tokenizer: bool) -> None:
    """Write the configuration's YAML anew, and drop the tokenizer that it does not use."""
    for index, word in enumerate(main["args"][:-1]):
        if word not in _FLAGS:
            continue
        try:
            config: Any = yaml.safe_load(main["args"][index + 1])
        except yaml.YAMLError:
            return  # the picker itself says what is wrong with it
        if not isinstance(config, dict):
            return
        main["args"][index + 1] = yaml.safe_dump(config)
        uses = {plugin.get("type") for plugin in config.get("plugins") or []}
        if without_tokenizer and "precise-prefix-cache-scorer" not in uses:
            spec["containers"] = [item for item in spec["containers"] if item["name"] != TOKENIZER]


def picker_service(service: Obj, combined: Obj) -> Obj:
    """Return the Service of the scheduler, with a port for each one its containers declare."""
    declared = {
        port["name"]: port
        for container in combined["router"]["scheduler"]["template"].get("containers") or []
        for port in container.get("ports") or []
        if port.get("name") in _PORTS
    }
    ports = [
        {
            "name": name,
            "port": declared[name]["containerPort"],
            "targetPort": name,
            "protocol": declared[name].get("protocol", "TCP"),
        }
        for name in sorted(declared)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(service, picker_service_name(service, combined), scheduler_labels(service)),
        "spec": {"selector": scheduler_labels(service), "ports": ports},
    }


def inference_pool(service: Obj, combined: Obj) -> Obj:
    """Return the InferencePool in its present version."""
    pool = combined["router"]["scheduler"].get("pool") or {}
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": _pool_metadata(service),
        "spec": copy.deepcopy(pool.get("spec") or {}),
    }


def old_inference_pool(service: Obj, combined: Obj) -> Obj:
    """Return the same pool in the version before, which KServe keeps beside it."""
    new = inference_pool(service, combined)["spec"]
    picker = new.get("endpointPickerRef") or {}
    extension = {"group": picker.get("group", ""), "kind": picker.get("kind", "Service"), "name": picker.get("name")}
    if (picker.get("port") or {}).get("number"):
        extension["portNumber"] = picker["port"]["number"]
    if picker.get("failureMode"):
        extension["failureMode"] = picker["failureMode"]
    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferencePool",
        "metadata": _pool_metadata(service),
        "spec": {
            "targetPortNumber": new["targetPorts"][0]["number"],
            "selector": dict((new.get("selector") or {}).get("matchLabels") or {}),
            "extensionRef": extension,
        },
    }


def _pool_metadata(service: Obj) -> Obj:
    name = child_name(service["metadata"]["name"], "-inference-pool")
    return metadata(service, name, scheduler_labels(service))


def role(service: Obj) -> Obj:
    """Return the Role of the scheduler."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata(service, child_name(service["metadata"]["name"], "-epp-role"), scheduler_labels(service)),
        "rules": copy.deepcopy(_RULES),
    }


def binding(service: Obj, account: str) -> Obj:
    """Return the RoleBinding of the scheduler."""
    name = child_name(service["metadata"]["name"], "-epp-rb")
    return role_binding(service, name, scheduler_labels(service), account, role(service)["metadata"]["name"])


def auth_binding_name(service: Obj) -> str:
    """Return the name of the ClusterRoleBinding, which nobody owns: the finalizer removes it."""
    meta = service["metadata"]
    return child_name(meta["namespace"], f"-{meta['name']}-epp-auth-rb")


def auth_binding(service: Obj, account: str) -> Obj:
    """Return the ClusterRoleBinding with which the scheduler checks who reads its metrics."""
    subject = {"kind": "ServiceAccount", "name": account, "namespace": service["metadata"]["namespace"]}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": auth_binding_name(service), "labels": scheduler_labels(service)},
        "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
    }
