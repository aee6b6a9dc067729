"""What an LLMInferenceService becomes together with KServe's presets and its own baseRefs: one combined spec. Pure.

A preset is looked for in the service's namespace first, then in `kserve`. Which ones apply follows from the topology:
one node or many, prefill apart or not, scheduler, managed route, tracing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sandbox.client import Obj
from sandbox.lite.controllers.kserve_config import NAMESPACE, KServeConfig, read_config
from sandbox.lite.controllers.llm_lora import adapters_of
from sandbox.lite.controllers.llm_merge import merge_specs
from sandbox.lite.controllers.llm_template import child_name, fill_in

PREFIX = "kserve-config-llm-"
NOTE = "serving.kserve.io/config-llm-"  # status annotation that keeps a service on the presets it began with
MODEL_ROUTING = "serving.kserve.io/model-based-routing-enabled"
PART_OF = "llminferenceservice"
PICKER_PORT = 9002
WELL_KNOWN = (
    "decode-template", "decode-worker-data-parallel", "prefill-template", "prefill-worker-data-parallel",
    "router-route", "scheduler", "scheduler-latency-predictor", "template", "tracing", "worker-data-parallel",
)  # fmt: skip

Find = Callable[[str, str], "Obj | None"]  # (namespace, name) to an object, None where there is none


@dataclass(frozen=True)
class Settings:
    """What the LLM controller reads from `kserve/inferenceservice-config`."""

    kserve: KServeConfig = field(default_factory=KServeConfig)
    gateway_namespace: str = NAMESPACE
    gateway_name: str = "kserve-ingress-gateway"
    tls: bool = False
    model_header: str = "X-Gateway-Model-Name"
    model_routing: str = "enabled"  # enabled, forced, disabled


@dataclass(frozen=True)
class Combined:
    """The combined spec, the refs that made it, and the model's name as the baseRefs leave it."""

    spec: Obj
    applied: list[Obj]
    model_name: str


class ConfigNotFound(Exception):
    """A preset or baseRef is in neither namespace."""

    def __init__(self, name: str, namespace: str) -> None:
        super().__init__(f'LLMInferenceServiceConfig "{name}" not found in namespaces [{namespace} {NAMESPACE}]')


class CombineError(Exception):
    """The configs cannot be combined."""


def read_settings(config_map: Obj | None) -> Settings:
    """Read the ConfigMap; what is missing counts as shipped."""
    config = read_config(config_map)
    try:
        ingress: Obj = json.loads(((config_map or {}).get("data") or {}).get("ingress", "{}"))
    except ValueError:
        ingress = {}
    namespace, slash, name = config.gateway.partition("/")
    mode = str(ingress.get("modelBasedRoutingMode", "")).lower()
    return Settings(
        kserve=config,
        gateway_namespace=namespace if slash else NAMESPACE,
        gateway_name=name if slash else config.gateway,
        tls=bool(ingress.get("enableLLMInferenceServiceTLS", False)),
        model_header=ingress.get("modelBasedRoutingHeaderName") or Settings.model_header,
        model_routing=mode if mode in ("forced", "disabled") else "enabled",
    )


def notes(service: Obj) -> dict[str, str]:
    """Return the status annotations that pin the presets, those already there kept."""
    known = (service.get("status") or {}).get("annotations") or {}
    return {**{NOTE + name: known.get(NOTE + name) or PREFIX + name for name in WELL_KNOWN}, **known}


def combine(service: Obj, find: Find, config_map: Find, settings: Settings) -> Combined:
    """Return the combined spec. ConfigNotFound, CombineError, TemplateError or AdapterError when there is none."""
    meta, given = service["metadata"], service["spec"]
    own = [item["name"] for item in given.get("baseRefs") or []]
    resolved = merge_specs(given, *(_config(meta["namespace"], name, find)["spec"] for name in own))
    model = (resolved.get("model") or {}).get("name") or meta["name"]
    presets = _presets(resolved, notes(service))
    found = [(_config(meta["namespace"], name, find), name in presets) for name in [*presets, *own]]
    named = {**given, "model": {**(given.get("model") or {}), "name": model}}
    spec = merge_specs(*(config["spec"] for config, _ in found), named)
    applied = [
        {
            "name": config["metadata"]["name"],
            "namespace": config["metadata"]["namespace"],
            "source": "Preset" if preset else "UserRef",
        }
        for config, preset in found
    ]
    scheduler = (spec.get("router") or {}).get("scheduler")
    if scheduler is not None and (scheduler.get("template") is not None):
        scheduler["template"].setdefault("serviceAccountName", child_name(meta["name"], "-epp-sa"))
    filled = fill_in({"spec": spec}, {**service, "spec": named, "Spec": named}, _global(service, spec, settings))
    spec = filled["spec"]
    _wire_route(service, spec)
    _resolve_scheduler_config(service, spec, config_map)
    _complete_pool(service, spec)
    adapters_of(spec, meta["namespace"])  # one that cannot be brought in is said here, as KServe does
    return Combined(spec, applied, model)


def _config(namespace: str, name: str, find: Find) -> Obj:
    found = find(namespace, name) or find(NAMESPACE, name)
    if found is None:
        raise ConfigNotFound(name, namespace)
    return found


def _presets(spec: Obj, pinned: dict[str, str]) -> list[str]:
    router = spec.get("router") or {}
    wanted = []
    scheduler, route, prefill = router.get("scheduler"), router.get("route"), spec.get("prefill")
    if scheduler is not None and not pool_ref(spec):
        wanted.append("scheduler")
    if _predicts_latency(scheduler):
        wanted.append("scheduler-latency-predictor")
    if route is not None and not ((route.get("http") or {}).get("refs")):
        wanted.append("router-route")
    if spec.get("tracing") is not None:
        wanted.append("tracing")
    if prefill is not None:
        wanted += [*_workload_preset(prefill, "prefill-"), *_workload_preset(spec, "decode-")]
    else:
        wanted += _workload_preset(spec, "")
    return [pinned.get(NOTE + name, PREFIX + name) if name != "router-route" else PREFIX + name for name in wanted]


def _workload_preset(workload: Obj, prefix: str) -> list[str]:
    if workload.get("worker") is None:
        return [f"{prefix}template"]
    kind = "data" if data_parallel(workload) else "pipeline" if pipeline_parallel(workload) else None
    return [f"{prefix}worker-{kind}-parallel"] if kind else []


def _predicts_latency(scheduler: Obj | None) -> bool:
    plugins = (((scheduler or {}).get("config") or {}).get("inline") or {}).get("plugins") or []
    return any(plugin.get("type") == "predicted-latency-producer" for plugin in plugins)


def data_parallel(workload: Obj) -> bool:
    """Tell whether a workload is split by data."""
    parallelism = workload.get("parallelism") or {}
    return bool((parallelism.get("data") or 0) > 0 or (parallelism.get("dataLocal") or 0) > 0)


def pipeline_parallel(workload: Obj) -> bool:
    """Tell whether a workload is split by layers."""
    return bool(((workload.get("parallelism") or {}).get("pipeline") or 0) > 0)


def group_size(workload: Obj) -> int | None:
    """Return how many pods make one replica; None where nothing says so."""
    parallelism = workload.get("parallelism") or {}
    if data_parallel(workload):
        return max(max(parallelism.get("data") or 1, 1) // max(parallelism.get("dataLocal") or 1, 1), 1)
    return int(parallelism["pipeline"]) if pipeline_parallel(workload) else None


def pool_ref(spec: Obj) -> str:
    """Return the name of the InferencePool somebody else keeps, or nothing."""
    scheduler = (spec.get("router") or {}).get("scheduler") or {}
    return str(((scheduler.get("pool") or {}).get("ref") or {}).get("name") or "")


def pool_name(service: Obj, spec: Obj) -> str:
    """Return the name of the InferencePool the service is behind."""
    return pool_ref(spec) or child_name(service["metadata"]["name"], "-inference-pool")


def workload_selector(service: Obj) -> dict[str, str]:
    """Return the labels of all pods that take requests."""
    return {
        "app.kubernetes.io/part-of": PART_OF,
        "app.kubernetes.io/name": service["metadata"]["name"],
        "kserve.io/component": "workload",
    }


def workload_service(service: Obj) -> str:
    """Return the name of the Service in front of those pods."""
    return child_name(service["metadata"]["name"], "-kserve-workload-svc")


def _global(service: Obj, spec: Obj, settings: Settings) -> dict[str, Any]:
    return {
        "SystemNamespace": NAMESPACE,
        "IngressGatewayName": settings.gateway_name,
        "IngressGatewayNamespace": settings.gateway_namespace,
        "EnableTLS": settings.tls,
        "ModelBasedRoutingHeaderName": settings.model_header,
        "InferencePoolNamespacedName": f"{service['metadata']['namespace']}/{pool_name(service, spec)}",
    }


def route_spec(spec: Obj) -> Obj | None:
    """Return the spec of the HTTPRoute the controller keeps itself, None where it keeps none."""
    route = (spec.get("router") or {}).get("route") or {}
    found: Obj | None = (route.get("http") or {}).get("spec")
    return found


def gateway_refs(spec: Obj) -> list[Obj]:
    """Return the Gateways a service names itself."""
    return ((spec.get("router") or {}).get("gateway") or {}).get("refs") or []


def _wire_route(service: Obj, spec: Obj) -> None:
    """Point the managed route at the Gateways named, and at the Service or pool that is really there."""
    route = route_spec(spec)
    if route is None:
        return
    if gateway_refs(spec):
        route["parentRefs"] = [_parent(reference) for reference in gateway_refs(spec)]
    without_scheduler = (spec.get("router") or {}).get("scheduler") is None
    for backend in default_backends(service, route):
        if without_scheduler:
            backend.update({"group": "", "kind": "Service", "name": workload_service(service)})
        elif pool_ref(spec):
            backend["name"] = pool_ref(spec)


def default_backends(service: Obj, route: Obj) -> list[Obj]:
    """Return the backendRefs, to be changed in place, that name the service's own pool."""
    name = child_name(service["metadata"]["name"], "-inference-pool")
    return [
        backend
        for rule in route.get("rules") or []
        for backend in rule.get("backendRefs") or []
        if backend.get("kind") == "InferencePool" and backend.get("name") == name
    ]


def _parent(reference: Obj) -> Obj:
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": reference["name"]}
    for name in ("namespace", "sectionName"):
        if reference.get(name):
            parent[name] = reference[name]
    return parent


def _resolve_scheduler_config(service: Obj, spec: Obj, config_map: Find) -> None:
    """Read the scheduler's configuration from the ConfigMap it names."""
    config = ((spec.get("router") or {}).get("scheduler") or {}).get("config") or {}
    reference = config.get("ref")
    if reference is None:
        return
    namespace, name, key = service["metadata"]["namespace"], reference["name"], reference.get("key") or "epp"
    found = config_map(namespace, name)
    if found is None and name.startswith("config-scheduler-"):
        found, namespace = config_map(NAMESPACE, name), NAMESPACE
    if found is None:
        raise CombineError(f'failed to get ConfigMap {namespace}/{name}: configmaps "{name}" not found')
    if key not in (found.get("data") or {}):
        raise CombineError(f'ConfigMap {namespace}/{name} doesn\'t have key "{key}" in data')
    del config["ref"]
    config["inline"] = found["data"][key]


def _complete_pool(service: Obj, spec: Obj) -> None:
    scheduler = (spec.get("router") or {}).get("scheduler") or {}
    pool = (scheduler.get("pool") or {}).get("spec")
    if pool is None:
        return
    if not (pool.get("selector") or {}).get("matchLabels"):
        pool["selector"] = {"matchLabels": workload_selector(service)}
    picker = pool.get("endpointPickerRef") or {}
    if picker.get("kind", "Service") == "Service" and not (picker.get("port") or {}).get("number"):
        picker["port"] = {"number": PICKER_PORT}


def plain(spec: Obj) -> Obj:
    """Return a copy that may be changed."""
    return copy.deepcopy(spec)
