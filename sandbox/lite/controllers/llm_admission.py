"""What KServe's webhooks do to an LLMInferenceService before it is stored: conversion, defaults, refusals. Pure.

`validate` returns field errors; together they make one Invalid answer (422), as Kubernetes' own validation does.
Scaling with WVA, DRA annotations and confidential models are not looked at.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from sandbox.client import Obj
from sandbox.lite.controllers.llm_config import data_parallel, gateway_refs, group_size, pipeline_parallel
from sandbox.lite.controllers.llm_lora import refusals

WEBHOOK = "llminferenceservice.kserve-webhook-server.{version}.validator"
KIND = "LLMInferenceService.serving.kserve.io"
OLD_VERSION = "serving.kserve.io/v1alpha1"
CRITICALITY = "internal.serving.kserve.io/model-criticality"
_NEEDS_PARALLELISM = (
    "when worker is specified, parallelism must be configured for either data parallelism or pipeline parallelism"
)


def default(service: Obj) -> Obj:
    """Return the service as it is stored: in its present version's terms, and with a model name."""
    fresh: Obj = copy.deepcopy(service)
    spec = fresh.setdefault("spec", {})
    if not isinstance(spec, dict):
        return fresh  # the schema refuses it
    if fresh.get("apiVersion") == OLD_VERSION:
        _convert(fresh, spec)
    model = spec.get("model")
    if isinstance(model, dict) and not model.get("name"):
        model["name"] = fresh["metadata"].get("name", "")
    return fresh


def _convert(service: Obj, spec: Obj) -> None:
    """Write what v1alpha1 says in other words: criticality as an annotation, the pool in its present version."""
    model = spec.get("model")
    if isinstance(model, dict) and model.get("criticality"):
        service["metadata"].setdefault("annotations", {})[CRITICALITY] = model.pop("criticality")
    pool: Any = spec
    for step in ("router", "scheduler", "pool", "spec"):
        pool = pool.get(step) if isinstance(pool, dict) else None
    if not isinstance(pool, dict) or "targetPortNumber" not in pool:
        return
    extension = pool.pop("extensionRef", None) or {}
    picker = {key: extension[key] for key in ("group", "kind", "name", "failureMode") if key in extension}
    if extension.get("portNumber"):
        picker["port"] = {"number": extension["portNumber"]}
    pool["targetPorts"] = [{"number": pool.pop("targetPortNumber")}]
    pool["selector"] = {"matchLabels": pool.pop("selector", None) or {}}
    if picker:
        pool["endpointPickerRef"] = picker


def validate(service: Obj, old: Obj | None) -> list[str]:
    """Return the sentence of refusal, without the webhook's name; empty when the service is admitted."""
    spec = service.get("spec") or {}
    problems = [
        *_router(spec),
        *_traffic(spec),
        *_parallelism("spec", spec),
        *(_parallelism("spec.prefill", spec["prefill"]) if spec.get("prefill") else []),
        *_scheduler(spec),
        *refusals(spec, str(service["metadata"].get("name", ""))),
        *_scaling("spec", spec),
        *(_scaling("spec.prefill", spec["prefill"]) if spec.get("prefill") else []),
        *(_sizes(old.get("spec") or {}, spec) if old is not None else []),
    ]
    if not problems:
        return []
    told = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
    return [f'{KIND} "{service["metadata"].get("name", "")}" is invalid: {told}']


def _invalid(path: str, value: Any, detail: str, word: str = "Invalid") -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        shown = str(value)
    else:
        shown = json.dumps(value, separators=(",", ":"), sort_keys=True)
    return f"{path}: {word} value: {shown}: {detail}"


def _router(spec: Obj) -> list[str]:
    router = spec.get("router") or {}
    http = (router.get("route") or {}).get("http")
    if http is None:
        return []
    path, gateway = "spec.router.route.http", "spec.router.gateway"
    refs, own = http.get("refs") or [], http.get("spec")
    problems = []
    if refs and own is not None:
        text = (
            f"unsupported configuration: cannot use both custom HTTPRoute refs ('{path}.refs') and an inline route "
            f"spec ('{path}.spec'); choose one"
        )
        problems.append(_invalid(path, http, text))
    if refs and router.get("gateway") is not None and not gateway_refs(spec):
        text = (
            f"unsupported configuration: custom HTTP routes ('{path}.refs') cannot be used with a managed gateway "
            f"('{gateway}'); either remove '{path}.refs' or set '{gateway}.refs'"
        )
        problems.append(_invalid(f"{path}.refs", refs, text))
    parents = (own or {}).get("parentRefs") or []
    if parents and gateway_refs(spec) and _keys(parents) != _keys(gateway_refs(spec)):
        text = (
            f"unsupported configuration: managed HTTP route spec ('{path}.spec') has parentRefs that conflict with "
            f"custom gateway refs ('{gateway}.refs'); either remove '{gateway}.refs' or '{path}.spec.parentRefs'"
        )
        problems.append(_invalid(f"{path}.spec", own, text))
    return problems


def _keys(references: list[Obj]) -> list[tuple[str, str, str]]:
    return sorted((r.get("namespace") or "", r["name"], r.get("sectionName") or "") for r in references)


def _traffic(spec: Obj) -> list[str]:
    route = (spec.get("router") or {}).get("route") or {}
    path = "spec.router.route"
    if route.get("weight") is not None and route.get("group") is None:
        return [f"{path}.group: Required value: weight requires group"]
    if route.get("group") is not None and route.get("weight") is None:
        return [f"{path}.weight: Required value: group requires weight"]
    return []


def _parallelism(path: str, workload: Obj) -> list[str]:
    worker, parallelism = workload.get("worker"), workload.get("parallelism")
    if parallelism is None:
        return [] if worker is None else [_invalid(f"{path}.worker", worker, _NEEDS_PARALLELISM)]
    below, problems = f"{path}.parallelism", []
    by_data, by_layers = data_parallel(workload), pipeline_parallel(workload)
    if worker is not None and not by_data and not by_layers:
        problems.append(_invalid(f"{path}.worker", worker, _NEEDS_PARALLELISM))
    if by_data and by_layers:
        text = "cannot set both pipeline parallelism and data parallelism (data or dataLocal) simultaneously"
        problems.append(_invalid(below, parallelism, text))
    for one, other in (("data", "dataLocal"), ("dataLocal", "data")):
        if parallelism.get(one) is not None and parallelism.get(other) is None:
            problems.append(_invalid(f"{below}.{other}", None, f"{other} must be set when {one} is set"))
    for name, word in (("pipeline", "pipeline"), ("data", "data"), ("dataLocal", "dataLocal")):
        if parallelism.get(name) is not None and parallelism[name] <= 0:
            problems.append(
                _invalid(f"{below}.{name}", parallelism[name], f"{word} parallelism must be greater than 0")
            )
    return problems


def _scheduler(spec: Obj) -> list[str]:
    scheduler = (spec.get("router") or {}).get("scheduler") or {}
    path, problems = "spec.router.scheduler", []
    replicas = scheduler.get("replicas")
    if replicas is not None and replicas <= 0:
        problems.append(_invalid(f"{path}.replicas", replicas, "scheduler replicas must be greater than zero"))
    config = scheduler.get("config")
    if config is None:
        return problems
    inline, reference = config.get("inline"), config.get("ref")
    if inline is None and reference is None:
        problems.append(_invalid(f"{path}.config", config, "either inline or ref is required"))
    if inline is not None and reference is not None:
        text = "both inline and ref are set, either specify inline or ref"
        problems.append(_invalid(f"{path}.config", config, text))
    if inline is not None and not inline:
        problems.append(_invalid(f"{path}.config.inline", inline, "inline configuration is invalid"))
    if reference is not None and not reference.get("name"):
        problems.append(_invalid(f"{path}.config.ref.name", reference, "name is empty"))
    return problems


def _scaling(path: str, workload: Obj) -> list[str]:
    scaling = workload.get("scaling")
    if scaling is None:
        return []
    below, problems = f"{path}.scaling", []
    if workload.get("replicas") is not None:
        text = (
            "scaling and replicas are mutually exclusive; use scaling for autoscaled deployments or replicas for "
            "static deployments"
        )
        problems.append(_invalid(below, scaling, text))
    least, most = scaling.get("minReplicas"), scaling.get("maxReplicas", 0)
    if least is not None and least > most:
        text = f"minReplicas ({least}) cannot exceed maxReplicas ({most})"
        problems.append(_invalid(f"{below}.minReplicas", least, text))
    if scaling.get("wva") is None:
        text = "wva is required when scaling is configured; it provides the autoscaling mechanism"
        problems.append(f"{below}.wva: Required value: {text}")
    return problems


def _sizes(old: Obj, new: Obj) -> list[str]:
    """The number of pods that make one replica can never change."""
    pairs = [("spec", old, new)]
    if old.get("prefill") and new.get("prefill"):
        pairs.append(("spec.prefill", old["prefill"], new["prefill"]))
    problems = []
    for path, before, after in pairs:
        was, wanted = group_size(before) or 1, group_size(after) or 1
        if was != wanted:
            text = f"total parallelism size is immutable, previous size {was}, curr size {wanted}"
            problems.append(_invalid(f"{path}.parallelism", wanted, text, "Unsupported"))
    return problems
