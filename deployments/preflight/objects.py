"""Rules about built objects: what KServe admits and never starts. Builders keep to them; this says so if not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from deployments.findings import Finding, error
from deployments.labels import GPU_PREFIX
from deployments.spec import MAX_LABEL

Object = Mapping[str, Any]
Check = Callable[[Object, Sequence[Object]], Iterator[Finding]]

SCALERS = frozenset({"none", "hpa", "keda", "external"})
# What KServe loads by itself, each pinned as far as its kind can be.
URIS = re.compile(
    r"hf://[^/\s:]+/[^/\s:]+:[0-9a-f]{40}|(?:s3|gs|https?|pvc)://[^/\s]+/\S+|pvc://[^/\s]+"
    r"|oci(?:\+native)?://\S+@sha256:[0-9a-f]{64}"
)
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}\Z")
SHARED = "/dev/shm"  # noqa: S108 - where NCCL looks


def check_objects(objects: Sequence[Object]) -> list[Finding]:
    """What is wrong with these objects; empty for everything that Slipway's own builders make."""
    return [finding for obj in objects for each in CHECKS for finding in each(obj, objects)]


def _said(code: str, obj: Object, message: str) -> Finding:
    name = (obj.get("metadata") or {}).get("name", "")
    return error(f"object_{code}", "", f"{obj.get('kind')} {name}: {message}", "This is a mistake of Slipway itself.")


def _names(obj: Object, objects: Sequence[Object]) -> Iterator[Finding]:
    """KServe makes a host name of name, “-predictor-” and namespace, whose first label has an end."""
    metadata = obj["metadata"]
    if obj["kind"] in {"InferenceService", "LLMInferenceService"}:
        label = f"{metadata['name']}-{metadata.get('namespace', '')}"
        if len(label) > MAX_LABEL:
            yield _said("name", obj, f"“{label}” is longer than {MAX_LABEL} characters.")


def _modes(obj: Object, objects: Sequence[Object]) -> Iterator[Finding]:
    if obj["kind"] != "InferenceService":
        return
    notes = obj["metadata"].get("annotations") or {}
    if notes.get("serving.kserve.io/deploymentMode") != "Standard":
        yield _said("mode", obj, "its deploymentMode is not Standard.")
    if notes.get("serving.kserve.io/autoscalerClass") not in SCALERS:
        yield _said("mode", obj, "its autoscalerClass is none that KServe knows.")


def _runtimes(obj: Object, objects: Sequence[Object]) -> Iterator[Finding]:
    if obj["kind"] != "InferenceService":
        return
    model = obj["spec"]["predictor"].get("model") or {}
    formats = {
        kind["metadata"]["name"]: [item["name"] for item in kind["spec"].get("supportedModelFormats") or ()]
        for kind in objects
        if kind["kind"] == "ServingRuntime"
    }
    runtime = model.get("runtime")
    if runtime not in formats:
        yield _said("runtime", obj, f"its runtime “{runtime}” is not among the objects.")
    elif (model.get("modelFormat") or {}).get("name") not in formats[runtime]:
        yield _said("format", obj, f"its runtime does not serve the format “{model['modelFormat']['name']}”.")


def _uris(obj: Object, objects: Sequence[Object]) -> Iterator[Finding]:
    for uri in _addresses(obj):
        if not URIS.fullmatch(str(uri)):
            yield _said("uri", obj, f"KServe does not load from “{uri}”, or it is not pinned.")


def _addresses(obj: Object) -> Iterator[object]:
    if obj["kind"] == "InferenceService":
        model = obj["spec"]["predictor"].get("model") or {}
        if "storageUri" in model:
            yield model["storageUri"]
    elif obj["kind"] == "LLMInferenceService":
        yield (obj["spec"].get("model") or {}).get("uri", "")


def _accounts(obj: Object, objects: Sequence[Object]) -> Iterator[Finding]:
    """The account of a deployment is called like it; it is applied beside these objects, not among them."""
    if obj["kind"] == "InferenceService":
        account = obj["spec"]["predictor"].get("serviceAccountName")
        if account != obj["metadata"]["name"]:
            yield _said("account", obj, f"it runs as “{account}”, which nobody makes.")


def _gpus(obj: Object, objects: Sequence[Object]) -> Iterator[Finding]:
    for _, container in _containers(obj):
        resources = container.get("resources") or {}
        limits, requests = (resources.get(kind) or {} for kind in ("limits", "requests"))
        for name in sorted({*limits, *requests}):
            if not name.startswith(GPU_PREFIX):
                continue
            limit = str(limits.get(name, ""))
            if not limit.isdecimal() or str(requests.get(name, limit)) != limit:
                yield _said("gpus", obj, f"{name} must be a whole number as a limit, and the same as a request.")


def _images(obj: Object, objects: Sequence[Object]) -> Iterator[Finding]:
    for _, container in _containers(obj):
        image = container.get("image")
        if image is not None and not DIGEST.search(str(image)):
            yield _said("image", obj, f"the image “{image}” is not named by digest.")
    for pod in _pods(obj):
        for volume in pod.get("volumes") or ():
            reference = (volume.get("image") or {}).get("reference")
            if reference is not None and not DIGEST.search(str(reference)):
                yield _said("image", obj, f"the volume “{reference}” is not named by digest.")


def _shared_memory(obj: Object, objects: Sequence[Object]) -> Iterator[Finding]:
    """NCCL takes more shared memory than the 64 MiB a container has by itself."""
    own = {volume.get("name") for pod, _ in _containers(obj) for volume in _in_memory(pod)}
    mounted = any(_mounts_shared(container, own) for _, container in _containers(obj))
    for _, container in _containers(obj):
        if _gpus_of(container) > 1 and not mounted and not _parent_mounts(obj, objects):
            yield _said("shared_memory", obj, "several GPUs need /dev/shm in memory.")


def _parent_mounts(obj: Object, objects: Sequence[Object]) -> bool:
    """True where what the object is filled in from brings it: its runtime, or the preset that it names."""
    spec = obj.get("spec") or {}
    names = {((spec.get("predictor") or {}).get("model") or {}).get("runtime")}
    names |= {ref.get("name") for ref in spec.get("baseRefs") or ()}
    for other in objects:
        if other["kind"] in {"ServingRuntime", "LLMInferenceServiceConfig"} and other["metadata"]["name"] in names:
            for pod in _pods(other):
                own = {volume.get("name") for volume in _in_memory(pod)}
                if any(_mounts_shared(container, own) for container in pod.get("containers") or ()):
                    return True
    return False


def _in_memory(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    volumes = pod.get("volumes") or ()
    return [volume for volume in volumes if (volume.get("emptyDir") or {}).get("medium") == "Memory"]


def _mounts_shared(container: Mapping[str, Any], volumes: Iterable[object]) -> bool:
    mounts = container.get("volumeMounts") or ()
    return any(mount.get("mountPath") == SHARED and mount.get("name") in volumes for mount in mounts)


def _gpus_of(container: Mapping[str, Any]) -> int:
    limits = (container.get("resources") or {}).get("limits") or {}
    return sum(int(v) for name, v in limits.items() if name.startswith(GPU_PREFIX) and str(v).isdecimal())


def _containers(obj: Object) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Every container of an object with the pod it is part of."""
    for pod in _pods(obj):
        model = pod.get("model")
        listed = [*(pod.get("containers") or ()), *(pod.get("initContainers") or ())]
        for container in [*listed, *([model] if isinstance(model, Mapping) and "resources" in model else [])]:
            yield pod, container


def _pods(obj: Object) -> Iterator[Mapping[str, Any]]:
    spec = obj.get("spec") or {}
    if obj["kind"] == "InferenceService":
        yield spec["predictor"]
    elif obj["kind"] == "ServingRuntime":
        yield spec
    elif obj["kind"] in {"LLMInferenceService", "LLMInferenceServiceConfig"}:
        for part in (spec, spec.get("prefill") or {}):
            yield from (part[name] for name in ("template", "worker") if isinstance(part.get(name), Mapping))
    elif obj["kind"] in {"Deployment", "StatefulSet", "Job"}:
        yield (spec.get("template") or {}).get("spec") or {}


CHECKS: tuple[Check, ...] = (_names, _modes, _runtimes, _uris, _accounts, _gpus, _images, _shared_memory)
