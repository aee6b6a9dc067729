"""LoRA adapters of an LLMInferenceService, as KServe brings them into the pods and tells vLLM of them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.client import Obj
from sandbox.lite.controllers.kserve_pods import add_volume, mount
from sandbox.lite.controllers.llm_template import child_name

FOLDER = "/mnt/lora"
FETCHED = ("hf", "s3")
FLAG = "--lora-modules"
MORE_WORDS = "VLLM_ADDITIONAL_ARGS"
DOCS = "https://github.com/kserve/kserve/blob/master/docs/samples/llmisvc/lora-adapters/README.md"
_LIMITS = (("maxRank", "--max-lora-rank"), ("maxAdapters", "--max-loras"), ("maxCpuAdapters", "--max-cpu-loras"))
_NO_PATH = re.compile(r"[^a-zA-Z0-9._-]")


@dataclass(frozen=True)
class Adapter:
    """One adapter: its name, where it comes from, and the names that the engine serves it under."""

    name: str
    uri: str
    namespace: str

    @property
    def path(self) -> str:
        """Where the engine finds it."""
        return f"{FOLDER}/{_segment(self.name)}"

    @property
    def is_fetched(self) -> bool:
        """False for those that are mounted."""
        return self.uri.partition("://")[0] in FETCHED


class AdapterError(Exception):
    """The adapters cannot be brought in; the text is KServe's."""


def adapters_of(combined: Obj, namespace: str) -> tuple[Adapter, ...]:
    """Return the adapters by name; AdapterError where one comes from where KServe fetches none."""
    given = ((combined.get("model") or {}).get("lora") or {}).get("adapters") or []
    off = (combined.get("storageInitializer") or {}).get("enabled") is False
    found = []
    for item in sorted(given, key=lambda each: str(each.get("name") or "")):
        name, uri = str(item.get("name") or ""), str(item.get("uri") or "")
        if problem := _problem(uri, off):
            raise AdapterError(f"failed to enumerate LoRA adapters: LoRA adapter {json.dumps(name)}: {problem}")
        found.append(Adapter(name, uri, namespace))
    return tuple(found)


def _problem(uri: str, off: bool) -> str:
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return f"invalid URI {json.dumps(uri)}"
    if scheme in FETCHED:
        need = "hf:// and s3:// require the storage initializer — set storageInitializer.enabled to true"
        return f"{need} (see {DOCS})" if off else ""
    if scheme == "pvc":
        need = "pvc:// requires a mounted volume — do not set storageInitializer.enabled to false"
        return f"{need} (see {DOCS})" if off else ""
    if scheme == "oci":
        return f"oci:// is not supported for LoRA adapters; use hf://, s3://, or pvc:// instead (see {DOCS})"
    return f'unsupported URI scheme "{scheme}://"; supported schemes are hf://, s3://, pvc:// (see {DOCS})'


def refusals(spec: Obj, service: str) -> list[str]:
    """Return what the webhook has against the adapters of a service."""
    model = spec.get("model") or {}
    lora = model.get("lora") or {}
    path, problems = "spec.model.lora", []
    for name, _ in _LIMITS:
        if lora.get(name) is not None and lora[name] < 1:
            problems.append(f"{path}.{name}: Invalid value: {lora[name]}: {name} must be at least 1")
    seen: dict[str, int] = {}
    for place, item in enumerate(lora.get("adapters") or []):
        at, name = f"{path}.adapters[{place}].name", str(item.get("name") or "")
        if not name:
            problems.append(f"{at}: Required value: adapter name is required")
            continue
        shown = f"{at}: Invalid value: {json.dumps(name)}"
        if name in (".", ".."):
            problems.append(f'{shown}: adapter name must not include "." or ".." (path traversal risk)')
            continue
        if name in seen:
            problems.append(f"{shown}: duplicate name (same as adapters[{seen[name]}])")
        seen.setdefault(name, place)
        base = str(model.get("name") or service)
        if name == base:
            problems.append(f"{shown}: adapter name must differ from base model name {json.dumps(base)}")
    return problems


def common_parent(paths: Sequence[str]) -> str:
    """Return the folder that all paths lie in; of one path that path itself."""
    if len(paths) == 1:
        return paths[0]
    parts = [path.strip("/").split("/") for path in paths]
    same = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        same.append(level[0])
    return "/" + "/".join(same)


def attach_adapters(spec: Obj, server: Obj | None, adapters: Sequence[Adapter], lora: Obj) -> None:
    """Mount those in claims and tell the engine of all, unless it is told already, whatever it is told."""
    if server is None:
        return
    for each in adapters:
        if not each.is_fetched:
            claim, _, below = each.uri.removeprefix("pvc://").partition("/")
            volume = child_name("lora-pvc-", each.name)
            add_volume(spec, {"name": volume, "persistentVolumeClaim": {"claimName": claim}})
            mount(server, volume, each.path, read_only=True, sub_path=below)
    if _is_told(server):
        return
    flags = [f"{flag}={lora[name]}" for name, flag in _LIMITS if lora.get(name) is not None]
    server["args"] = ["--enable-lora", *flags, FLAG, *_modules(adapters), *(server.get("args") or [])]


def _modules(adapters: Sequence[Adapter]) -> list[str]:
    """Each under both of its names, in quotes for the shell of KServe's presets."""
    words = []
    for each in adapters:
        for name in (each.name, f"publishers/{each.namespace}/models/{each.name}"):
            words.append("'" + json.dumps({"name": name, "path": each.path}, separators=(",", ":")) + "'")
    return words


def _is_told(server: Obj) -> bool:
    words = [*(server.get("command") or []), *(server.get("args") or [])]
    more = [str(item.get("value") or "") for item in server.get("env") or [] if item["name"] == MORE_WORDS]
    return FLAG in " ".join(words) or any(FLAG in text for text in more)


def _segment(name: str) -> str:
    found = _NO_PATH.sub("-", name)
    return found if found not in ("", ".", "..") else "adapter"
