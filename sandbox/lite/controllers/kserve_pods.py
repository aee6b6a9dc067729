"""What KServe's pod webhook adds to a predictor pod: the storage initializer, a volume, or a modelcar. Pure.

The Deployment's template stays without them; only the pod has them. That is why a Secret that appears later is
used by the next pod and not by the running one.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from sandbox.client import Obj
from sandbox.lite.controllers.kserve_children import SOURCE_URI, STORAGE_CONTAINER
from sandbox.lite.controllers.kserve_config import INITIALIZER_ENV, KServeConfig
from sandbox.lite.controllers.kserve_credentials import access
from sandbox.lite.controllers.kserve_runtimes import CONTAINER, merge
from sandbox.lite.controllers.kserve_status import SpecError
from sandbox.lite.controllers.meta import annotations_of, labels_of

INITIALIZER = "storage-initializer"
MODELS = "/mnt/models"
VOLUME, CLAIM_VOLUME = "kserve-provision-location", "kserve-pvc-source"
_SCHEMES = ("gs://", "s3://", "pvc://", "file://", "https://", "http://", "hdfs://", "webhdfs://", "oci://",
            "oci+native://", "hf://")  # fmt: skip


@dataclass(frozen=True)
class Surroundings:
    """What the webhook looks up for one pod."""

    config: KServeConfig
    account: Obj | None = None
    secrets: list[Obj] = field(default_factory=list)
    storage_containers: list[Obj] = field(default_factory=list)


def is_predictor(pod: Obj) -> bool:
    """Tell whether the webhook is called for this pod at all."""
    return "serving.kserve.io/inferenceservice" in labels_of(pod)


def check_uri(uri: str | None, containers: Iterable[Obj]) -> None:
    """Raise SpecError for a source nothing can load.

    As in KServe, what has no `://` counts as a local path, so `models:/name/3` passes and fails later in the pod.
    """
    if not uri or "://" not in uri or uri.startswith(_SCHEMES) or any(supports(item, uri) for item in containers):
        return
    raise SpecError(
        f"StorageURI not supported: storageUri, must be one of: [{', '.join(_SCHEMES)}] or match "
        "https://{}.blob.core.windows.net/{}/{} or be an absolute or relative local path. "
        f"StorageUri [{uri}] is not supported"
    )


def supports(container: Obj, uri: str) -> bool:
    """Tell whether a ClusterStorageContainer takes this source."""
    if container.get("disabled") or container["spec"].get("workloadType", "initContainer") != "initContainer":
        return False
    for form in container["spec"].get("supportedUriFormats") or []:
        if form.get("prefix") and uri.startswith(form["prefix"]):
            return True
        if form.get("regex") and re.match(form["regex"], uri):
            return True
    return False


def complete(pod: Obj, around: Surroundings) -> Obj:
    """Return the pod as the webhook sends it on."""
    whole = copy.deepcopy(pod)
    annotations = whole["metadata"].setdefault("annotations", {})
    annotations.setdefault("serving.kserve.io/enable-metric-aggregation", "false")
    annotations.setdefault("serving.kserve.io/enable-prometheus-scraping", "false")
    uri = annotations.get(SOURCE_URI)
    spec = whole["spec"]
    if not uri or any(item["name"] == INITIALIZER for item in spec.get("initContainers") or []):
        return whole
    read_only = annotations.get("storage.kserve.io/readonly") != "false"
    if uri.startswith("pvc://"):
        _mount_claim(spec, uri, read_only)
    elif uri.startswith("oci://") and around.config.modelcar:
        add_modelcar(spec, _server(spec), uri.removeprefix("oci://"), around.config)
    elif uri.startswith("oci+native://"):
        _mount_image(spec, uri.removeprefix("oci+native://"))
    else:
        _add_initializer(whole, uri, around, read_only)
    return whole


def _server(spec: Obj) -> Obj:
    for container in spec["containers"]:
        if container["name"] == CONTAINER:
            found: Obj = container
            return found
    raise SpecError("Invalid configuration: cannot find container")


def add_volume(spec: Obj, volume: Obj) -> None:
    """Add a volume to a pod spec unless one of its name is there."""
    volumes = spec.setdefault("volumes", [])
    if not any(item["name"] == volume["name"] for item in volumes):
        volumes.append(volume)


def mount(container: Obj, name: str, path: str, *, read_only: bool = False, sub_path: str = "") -> None:
    """Mount a volume into a container."""
    made: Obj = {"name": name, "mountPath": path}
    if read_only:
        made["readOnly"] = True
    if sub_path:
        made["subPath"] = sub_path
    container.setdefault("volumeMounts", []).append(made)


def _mount_claim(spec: Obj, uri: str, read_only: bool) -> None:
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    add_volume(spec, {"name": CLAIM_VOLUME, "persistentVolumeClaim": {"claimName": claim}})
    mount(_server(spec), CLAIM_VOLUME, MODELS, read_only=read_only, sub_path=path)


def _mount_image(spec: Obj, reference: str) -> None:
    name = "kserve-oci-native"
    add_volume(spec, {"name": name, "image": {"reference": reference, "pullPolicy": "IfNotPresent"}})
    mount(_server(spec), name, MODELS, read_only=True, sub_path="models")


def _add_initializer(pod: Obj, uri: str, around: Surroundings, read_only: bool) -> None:
    spec, config = pod["spec"], around.config
    granted = access(around.secrets, around.account)
    container: Obj = {
        "name": INITIALIZER,
        "image": config.initializer_image,
        "args": [uri, MODELS],
        "env": granted.env,
        "resources": copy.deepcopy(config.initializer_resources),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [],
    }
    mount(container, VOLUME, MODELS)
    container["volumeMounts"].extend(granted.mounts)
    chosen = _chosen(pod, uri, around.storage_containers)
    if chosen is None:
        container["env"] = [*container["env"], *copy.deepcopy(INITIALIZER_ENV)]
    else:
        theirs = {**chosen["spec"]["container"]}
        env = theirs.pop("env", [])
        container = merge(container, theirs)
        container["env"] = [*container["env"], *copy.deepcopy(env)]
    spec.setdefault("initContainers", []).append(container)
    for volume in ({"name": VOLUME, "emptyDir": {}}, *granted.volumes):
        add_volume(spec, volume)
    mount(_server(spec), VOLUME, MODELS, read_only=read_only)


def _chosen(pod: Obj, uri: str, containers: list[Obj]) -> Obj | None:
    """Return the pinned ClusterStorageContainer, else the first by name that takes the source."""
    named = annotations_of(pod).get(STORAGE_CONTAINER)
    if named:
        found = next((item for item in containers if item["metadata"]["name"] == named), None)
        if found is None:
            raise SpecError(f'ClusterStorageContainer "{named}" not found')
        if not supports(found, uri):
            raise SpecError(f'ClusterStorageContainer "{named}" does not support storageUri "{uri}"')
        return found
    fitting = [item for item in containers if supports(item, uri)]
    return min(fitting, key=lambda item: str(item["metadata"]["name"]), default=None)


def add_modelcar(spec: Obj, server: Obj, image: str, config: KServeConfig) -> None:
    """Add an image that carries the model as a sidecar of `server`, and an init container that fetches it first."""
    amounts = {"cpu": config.modelcar_cpu, "memory": config.modelcar_memory}
    check = (
        f"echo 'Pre-fetching modelcar {image}: ' && [ -d /models ] && [ \"$$(ls -A /models)\" ] && "
        "echo 'OK ... Prefetched and valid (/models exists)' || "
        "(echo 'NOK ... Prefetched but modelcar is invalid (/models does not exist or is empty)' && exit 1)"
    )
    common: Obj = {
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    car: Obj = {
        **copy.deepcopy(common),
        "name": "modelcar",
        "args": ["sh", "-c", f"ln -sf /proc/$$$$/root/models {MODELS} && sleep infinity"],
        "volumeMounts": [],
    }
    if config.modelcar_uid is not None:
        user = {"runAsUser": config.modelcar_uid}
        car["securityContext"] = dict(user)
        server["securityContext"] = {**(server.get("securityContext") or {}), **user}
    add_volume(spec, {"name": VOLUME, "emptyDir": {}})
    mount(car, VOLUME, "/mnt")
    mount(server, VOLUME, "/mnt", read_only=False)
    server.setdefault("env", []).append({"name": "MODEL_INIT_MODE", "value": "async"})
    spec["containers"].append(car)
    first = {**copy.deepcopy(common), "name": "modelcar-init", "args": ["sh", "-c", check]}
    spec["initContainers"] = [*(spec.get("initContainers") or []), first]
    spec["shareProcessNamespace"] = True
