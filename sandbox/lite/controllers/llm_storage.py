"""How the model gets into the pods of an LLMInferenceService. Pure.

Unlike for an InferenceService the controller itself writes this into the templates, so that it shows in the Deployment.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from sandbox.client import Obj
from sandbox.lite.controllers.kserve_config import INITIALIZER_ENV, KServeConfig
from sandbox.lite.controllers.kserve_credentials import access
from sandbox.lite.controllers.kserve_pods import (
    CLAIM_VOLUME,
    INITIALIZER,
    MODELS,
    VOLUME,
    add_modelcar,
    add_volume,
    mount,
)
from sandbox.lite.controllers.llm_lora import Adapter, attach_adapters, common_parent
from sandbox.lite.controllers.llm_merge import merge_container

MAIN, TOKENIZER = "main", "tokenizer"
_TOKENIZER_FILES = (
    '["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", '
    '"config.json", "generation_config.json"]'
)


@dataclass(frozen=True)
class Source:
    """Where the model comes from, and what grants access to it."""

    uri: str
    config: KServeConfig = field(default_factory=KServeConfig)
    enabled: bool = True  # false where the service turns the storage initializer off
    account: Obj | None = None
    secrets: list[Obj] = field(default_factory=list)
    adapters: tuple[Adapter, ...] = ()
    lora: Obj = field(default_factory=dict)  # what the service says of adapters besides


class StorageError(Exception):
    """The model cannot be brought in from this URI."""


def attach_model(spec: Obj, source: Source, container: str = MAIN, path: str = MODELS) -> None:
    """Change a pod spec, in place, so that `container` finds the model at `path`. StorageError for a bad URI."""
    scheme, separator, rest = source.uri.partition("://")
    if not separator:
        raise StorageError(f"invalid model URI: {source.uri}")
    if not source.enabled:
        return
    adapters = source.adapters if container == MAIN else ()
    pairs = [(each.uri, each.path) for each in adapters if each.is_fetched]
    server = next((item for item in spec.get("containers") or [] if item["name"] == container), None)
    if scheme == "pvc":
        _mount_claim(spec, server, rest, path)
        _fetch_beside(spec, server, source, pairs)
    elif scheme in ("oci", "oci+native"):
        if server is None:
            raise StorageError(f"no container found with name {container}")
        if scheme == "oci+native":
            _mount_image(spec, server, rest, path)
        elif source.config.modelcar:
            add_modelcar(spec, server, rest, source.config)
        else:
            raise StorageError("OCI modelcars is not enabled")
        _fetch_beside(spec, server, source, pairs)
    elif scheme in ("hf", "s3") and pairs:
        _add_initializer(spec, server, source, MAIN, "", [(source.uri, MODELS), *pairs])
    elif scheme in ("hf", "s3"):
        _add_initializer(spec, server, source, container, path, [(source.uri, MODELS)])
    else:
        raise StorageError(f"unsupported schema in model URI: {source.uri}")
    if adapters:
        attach_adapters(spec, server, adapters, source.lora)


def _fetch_beside(spec: Obj, server: Obj | None, source: Source, pairs: list[tuple[str, str]]) -> None:
    """Adapters beside a model that is mounted; without any there is nothing for an initializer to do."""
    if pairs:
        _add_initializer(spec, server, source, MAIN, "", pairs)
    else:
        _take_initializer(spec)


def _take_initializer(spec: Obj) -> Obj | None:
    """Remove and return what the service says of the storage initializer."""
    inits = spec.get("initContainers") or []
    found: Obj | None = next((item for item in inits if item["name"] == INITIALIZER), None)
    left = [item for item in inits if item is not found]
    if left:
        spec["initContainers"] = left
    else:
        spec.pop("initContainers", None)
    return found


def _mount_claim(spec: Obj, server: Obj | None, rest: str, path: str) -> None:
    claim, _, below = rest.partition("/")
    if server is not None:
        add_volume(spec, {"name": CLAIM_VOLUME, "persistentVolumeClaim": {"claimName": claim}})
        mount(server, CLAIM_VOLUME, path, read_only=True, sub_path=below)


def _mount_image(spec: Obj, server: Obj, image: str, path: str) -> None:
    name = path.strip("/").replace("/", "-")
    add_volume(spec, {"name": name, "image": {"reference": image, "pullPolicy": "IfNotPresent"}})
    mount(server, name, path, read_only=True, sub_path="models")


def _add_initializer(
    spec: Obj, server: Obj | None, source: Source, container: str, path: str, pairs: list[tuple[str, str]]
) -> None:
    """Fetch each of `pairs`; without `path` the server finds them where they are fetched to."""
    theirs = _take_initializer(spec)
    place = common_parent([destination for _, destination in pairs])
    made: Obj = {
        "name": INITIALIZER,
        "image": source.config.initializer_image,
        "args": [word for pair in pairs for word in pair],
        "resources": copy.deepcopy(source.config.initializer_resources),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if theirs is not None:
        fixed = {"name": made["name"], "args": made["args"]}
        made = {**merge_container(made, {key: item for key, item in theirs.items() if key != "command"}), **fixed}
    mount(made, VOLUME, place)
    granted = access(source.secrets, source.account)
    made["volumeMounts"].extend(granted.mounts)
    extra = [
        *granted.env,
        *(copy.deepcopy(INITIALIZER_ENV) if any(uri.startswith("hf://") for uri, _ in pairs) else []),
    ]
    if container == TOKENIZER:
        extra.append({"name": "STORAGE_ALLOW_PATTERNS", "value": _TOKENIZER_FILES})
    env = made.get("env") or []
    known = {item["name"] for item in env}
    made["env"] = [*env, *(item for item in extra if item["name"] not in known)]
    if not made["env"]:
        del made["env"]
    spec["initContainers"] = [*(spec.get("initContainers") or []), made]
    for volume in ({"name": VOLUME, "emptyDir": {}}, *granted.volumes):
        add_volume(spec, volume)
    if server is not None:
        mount(server, VOLUME, path or place, read_only=True)
