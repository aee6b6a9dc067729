"""Which ServingRuntime serves a model, and the pod spec that comes of joining the two. Pure.

A runtime in the service's namespace goes before a cluster-wide one of the same name. The joined container takes
the runtime's fields, overridden by the service's; arguments alone are appended: runtime's first, then the service's.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from typing import Any

from sandbox.client import Obj
from sandbox.lite.controllers.kserve_status import SpecError
from sandbox.lite.controllers.meta import annotations_of

CONTAINER = "kserve-container"
SERVER_TYPE = "serving.kserve.io/server-type"
# What a predictor may say that is not part of a pod.
_NOT_POD = {
    "annotations", "autoScaling", "batcher", "canaryTrafficPercent", "containerConcurrency", "deploymentStrategy",
    "labels", "logger", "maxReplicas", "minReplicas", "model", "name", "scaleMetric", "scaleMetricType",
    "scaleTarget", "storageContainerName", "storageUris", "timeout", "tracing", "workerSpec",
}  # fmt: skip
# What a model says besides the container it describes.
_NOT_CONTAINER = {
    "confidential", "modelFormat", "protocolVersion", "runtime", "runtimeVersion", "storage", "storageUri",
}  # fmt: skip
_RUNTIME_POD = ("affinity", "imagePullSecrets", "nodeSelector", "resourceClaims", "schedulerName", "tolerations",
                "volumes")  # fmt: skip
_LIST_KEYS = {
    "env": "name", "volumes": "name", "volumeMounts": "mountPath", "ports": "containerPort", "containers": "name",
    "initContainers": "name", "imagePullSecrets": "name", "resourceClaims": "name", "volumeDevices": "devicePath",
}  # fmt: skip
_PLACEHOLDER = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_TAG = re.compile(r":[\w.\-]*$")


def find_runtime(isvc: Obj, own: Callable[[str], Obj | None], cluster: Iterable[Obj], local: Iterable[Obj]) -> Obj:
    """Return the runtime object for a service, or raise SpecError in KServe's words.

    `own(name)` looks a name up in the service's namespace; `local` and `cluster` are all there are of each kind.
    """
    model = isvc["spec"]["predictor"]["model"]
    name = model.get("runtime")
    if name:
        found = own(name) or next((item for item in cluster if item["metadata"]["name"] == name), None)
        return _checked(found, name, model)
    kind = model["modelFormat"]
    for candidates in (local, cluster):
        fitting = [item for item in candidates if _auto_selects(item, model)]
        if fitting:
            return min(fitting, key=lambda item: (-_priority(item, kind), item["metadata"]["name"]))
    raise SpecError(
        f"no runtime found to support predictor with model type: {{{kind.get('name')} {_version(kind)}}}",
        "NoSupportingRuntime",
        "No runtime found to support specified framework/version",
    )


def _version(kind: Obj) -> str:
    return kind.get("version") or "<nil>"


def _checked(found: Obj | None, name: str, model: Obj) -> Obj:
    if found is None:
        raise SpecError(
            f"No ServingRuntimes or ClusterServingRuntimes with the name: {name}",
            "RuntimeNotRecognized",
            "Waiting for runtime to become available",
        )
    spec = found["spec"]
    if spec.get("disabled"):
        raise SpecError(f"specified runtime {name} is disabled", "RuntimeDisabled", "Specified runtime is disabled")
    versions = spec.get("protocolVersions") or ["v1"]
    if model.get("protocolVersion") and model["protocolVersion"] not in versions:
        raise SpecError(
            f"specified runtime {name} does not support specified protocol version",
            "NoSupportingRuntime",
            "Specified runtime does not support specified protocol version",
        )
    if not any(_same_format(item, model["modelFormat"]) for item in spec.get("supportedModelFormats") or []):
        raise SpecError(
            f"specified runtime {name} does not support specified framework/version",
            "NoSupportingRuntime",
            "Specified runtime does not support specified framework/version",
        )
    return found


def _same_format(offered: Obj, wanted: Obj) -> bool:
    if offered["name"] != wanted.get("name"):
        return False
    return not wanted.get("version") or offered.get("version") == wanted["version"]


def _auto_selects(runtime: Obj, model: Obj) -> bool:
    spec = runtime["spec"]
    if spec.get("disabled") or model.get("protocolVersion", "v1") not in (spec.get("protocolVersions") or ["v1"]):
        return False
    return any(
        item.get("autoSelect") and _same_format(item, model["modelFormat"])
        for item in spec.get("supportedModelFormats") or []
    )


def _priority(runtime: Obj, kind: Obj) -> int:
    offers = [item for item in runtime["spec"].get("supportedModelFormats") or [] if _same_format(item, kind)]
    return max((int(item.get("priority") or 0) for item in offers), default=0)


def pod_spec(isvc: Obj, runtime: Obj) -> Obj:
    """Return the pod spec of a service on a runtime, before defaults and before any webhook."""
    predictor, model = isvc["spec"]["predictor"], isvc["spec"]["predictor"]["model"]
    containers = runtime["spec"].get("containers") or []
    base = next((item for item in containers if item["name"] == CONTAINER), None)
    if base is None:
        text = "no container configuration found in selected serving runtime"
        raise SpecError(text, "InvalidPredictorSpec", text)
    own = {name: value for name, value in model.items() if name not in _NOT_CONTAINER and value not in ("", None)}
    container = merge(base, {**own, "name": CONTAINER})
    container["args"] = [*(base.get("args") or []), *(model.get("args") or [])]
    if not container["args"]:
        del container["args"]
    container = _filled(container, isvc, runtime)
    container["image"] = image_for(container, model.get("runtimeVersion"), runtime)
    of_runtime = {name: runtime["spec"][name] for name in _RUNTIME_POD if runtime["spec"].get(name)}
    of_service = {name: value for name, value in predictor.items() if name not in _NOT_POD}
    spec: Obj = merge(of_runtime, {name: value for name, value in of_service.items() if name != "containers"})
    others = [item for item in containers if item["name"] != CONTAINER]
    spec["containers"] = copy.deepcopy([container, *others, *(predictor.get("containers") or [])])
    for item in spec["containers"]:
        item.setdefault("env", [])
        item["env"] = [*(e for e in item["env"] if e["name"] != "INFERENCE_SERVICE_NAME"), _own_name(isvc)]
    return spec


def _own_name(isvc: Obj) -> Obj:
    return {"name": "INFERENCE_SERVICE_NAME", "value": isvc["metadata"]["name"]}


def merge(base: Any, change: Any, field: str = "") -> Any:
    """Merge as Kubernetes' strategic merge patch does: lists with a key item by item, new items first."""
    if isinstance(base, dict) and isinstance(change, dict):
        merged = copy.deepcopy(base)
        for name, value in change.items():
            merged[name] = merge(base.get(name), value, name)
        return merged
    key = _LIST_KEYS.get(field)
    if key and isinstance(base, list) and isinstance(change, list):
        known = {item.get(key): item for item in base}
        wanted = {item.get(key): item for item in change}
        new = [copy.deepcopy(item) for item in change if item.get(key) not in known]
        return [*new, *(merge(item, wanted[k]) if k in wanted else copy.deepcopy(item) for k, item in known.items())]
    return copy.deepcopy(change)


def _filled(container: Obj, isvc: Obj, runtime: Obj) -> Obj:
    """Replace `{{.Name}}` and its like everywhere in the container."""
    meta = isvc["metadata"]

    def value_of(match: re.Match[str]) -> str:
        expression = match[1]
        if expression in (".Name", ".Namespace"):
            return str(meta[expression[1:].lower()])
        for prefix, values in ((".Labels.", meta.get("labels")), (".Annotations.", annotations_of(isvc))):
            if expression.startswith(prefix):
                return str((values or {}).get(expression.removeprefix(prefix), ""))
        name = runtime["metadata"]["name"]
        text = f"failed to replace placeholders in serving runtime {name} Container {container['name']}"
        raise SpecError(text, "InvalidPredictorSpec", text)

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return _PLACEHOLDER.sub(value_of, value)
        if isinstance(value, list):
            return [fill(item) for item in value]
        return {name: fill(item) for name, item in value.items()} if isinstance(value, dict) else value

    filled: Obj = fill(container)
    return filled


def image_for(container: Obj, version: str | None, runtime: Obj) -> str:
    """Return the image KServe really runs.

    The trap: without `nvidia.com/gpu` (or a MIG profile) in *limits*, the vLLM runtime's image turns into `…-cpu`.
    """
    image: str = container["image"]
    if "@sha256:" in image:
        return image
    tag = _TAG.search(image)
    if version:
        return f"{image[: tag.start()] if tag else image}:{version}"
    kind = annotations_of(runtime).get(SERVER_TYPE) or _type_by_name(runtime["metadata"]["name"])
    if not kind or tag is None:
        return image
    if _has_gpu(container):
        return f"{image}-gpu" if kind == "huggingfaceserver" and not image.endswith("-gpu") else image
    repository = image[: tag.start()]
    return f"{repository}-cpu{tag[0]}" if kind == "vllmserver" and not repository.endswith("-cpu") else image


def _type_by_name(name: str) -> str:
    return {"kserve-vllmserver": "vllmserver", "kserve-huggingfaceserver": "huggingfaceserver"}.get(name, "")


def _has_gpu(container: Obj) -> bool:
    limits = (container.get("resources") or {}).get("limits") or {}
    return any(name == "nvidia.com/gpu" or name.startswith("nvidia.com/mig") for name in limits)
