"""The part of Go's text/template that KServe's presets for LLMInferenceServices are written in. Pure.

As in KServe the whole config is one template: it is written as JSON, filled in and read again, so that a `{{` in
somebody's own arguments is filled in as well. Known are `if`, `else`, `end`, fields, `and`, `or`, and the three
functions the presets call; anything else is an error in the words of a parser.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.client import Obj
from sandbox.lite.controllers.meta import quantity

_ACTION = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_WORD = re.compile(r"`[^`]*`|[^\s()|`]+|[()|]")
_LONGEST, _MD5 = 63, 32
_TOP_LEVEL = {"ObjectMeta": "metadata"}


class TemplateError(Exception):
    """The template cannot be parsed or filled in."""


@dataclass
class _If:
    """A branch: `test` picks one of the two bodies."""

    test: list[str]
    then: list[Any] = field(default_factory=list)
    other: list[Any] = field(default_factory=list)


def fill_in(config: Obj, service: Obj, settings: Mapping[str, Any]) -> Obj:
    """Return `config` with everything in `{{ }}` replaced; `settings` are the fields of `.GlobalConfig`."""
    text = json.dumps(config, separators=(",", ":"))
    if "{{" not in text:
        return config
    filled = "".join(_render(_parse(text), {**service, "GlobalConfig": dict(settings)}))
    try:
        result: Obj = json.loads(filled)
    except ValueError as error:
        raise TemplateError(f"failed to unmarshal config from template: {error}") from error
    return result


def child_name(parent: str, suffix: str) -> str:
    """Join the two into a name of at most 63 characters, with a hash in the middle where they do not fit."""
    if len(parent) + len(suffix) <= _LONGEST:
        return parent + suffix
    head = _LONGEST - _MD5
    if head > len(suffix):
        return parent[: head - len(suffix)] + _md5(parent) + suffix
    name = parent[:head] + _md5(parent + suffix)
    return re.sub(r"[^a-zA-Z0-9]+$", "", name + suffix[: _LONGEST - len(name)])


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


# Parsing ----------------------------------------------------------------------------------------------------


def _parse(text: str) -> list[Any]:
    body: list[Any] = []
    stack: list[tuple[_If, list[Any]]] = []
    here, position, trim = body, 0, False
    for match in _ACTION.finditer(text):
        plain = text[position : match.start()]
        plain = plain.lstrip() if trim else plain
        here.append(plain.rstrip() if match[1] else plain)
        position, trim = match.end(), bool(match[3])
        words = _WORD.findall(match[2])
        if words[:1] == ["if"]:
            branch = _If(words[1:])
            here.append(branch)
            stack.append((branch, here))
            here = branch.then
        elif words in (["else"], ["end"]):
            if not stack:
                raise TemplateError(
                    f"failed to parse template config: template: config:1: unexpected {{{{{words[0]}}}}}"
                )
            branch, outer = stack[-1]
            here = branch.other if words == ["else"] else outer
            if words == ["end"]:
                stack.pop()
        else:
            here.append(words)
    if stack:
        raise TemplateError("failed to parse template config: template: config:1: unexpected EOF")
    rest = text[position:]
    body.append(rest.lstrip() if trim else rest)
    return body


# Filling in -------------------------------------------------------------------------------------------------


def _render(body: list[Any], data: Obj) -> Iterator[str]:
    for part in body:
        if isinstance(part, str):
            yield part
        elif isinstance(part, _If):
            yield from _render(part.then if _value(part.test, data) else part.other, data)
        else:
            yield _spell(_value(part, data))


def _spell(value: Any) -> str:
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(words: Sequence[str], data: Obj) -> Any:
    if not words:
        raise TemplateError("failed to parse template config: template: config:1: missing value for command")
    name, arguments = words[0], words[1:]
    if name in ("and", "or"):
        found: Any = None
        for word in arguments:  # Go stops at the first that decides, so that nothing is asked of an absent field
            found = _operand(word, data)
            if bool(found) == (name == "or"):
                break
        return found
    if name in _FUNCTIONS:
        try:
            return _FUNCTIONS[name](*[_operand(word, data) for word in arguments])
        except TypeError as error:
            raise TemplateError(f"failed to merge config: template: config: calling {name}: {error}") from error
    if arguments:
        raise TemplateError(f'failed to parse template config: template: config:1: function "{name}" not defined')
    return _operand(name, data)


def _operand(word: str, data: Obj) -> Any:
    if word.startswith("`"):
        return word[1:-1]
    if word == "nil":
        return None
    if word.lstrip("-").isdigit():
        return int(word)
    if not word.startswith("."):
        raise TemplateError(f'failed to parse template config: template: config:1: function "{word}" not defined')
    value: Any = data
    for step in word.split(".")[1:]:
        if not isinstance(value, Mapping):
            raise TemplateError(f"failed to merge config: template: config: nil pointer evaluating {word} at {step}")
        value = value.get(step) if step in value else value.get(_TOP_LEVEL.get(step) or _json_name(step))
    return value


def _json_name(go: str) -> str:
    """`KVCacheOffloading` is `kvCacheOffloading` in JSON, `DataRPCPort` is `dataRPCPort`."""
    run = re.match(r"[A-Z]*", go)
    length = len(run[0]) if run else 0
    head = length if length in (0, 1, len(go)) else length - 1
    return go[:head].lower() + go[head:]


def _shutdown_timeout(spec: Obj | None, pre_stop: int) -> int:
    """Seconds vLLM may take to drain: what the grace period leaves after the preStop hook and five spare ones."""
    grace = (spec or {}).get("terminationGracePeriodSeconds")
    whole = 60 if grace is None else int(grace)
    return max(0, whole - pre_stop - min(5, whole))


def _kv_transfer_config(spec: Obj | None) -> str:
    """Flags that spill the KV cache to memory and to file systems; empty where that is not asked for."""
    if not spec:
        return ""
    extra: Obj = {"spec_name": "TieringOffloadingSpec", "cpu_bytes_to_use": int(quantity(spec.get("cpu", 0)))}
    if spec.get("evictionPolicy"):
        extra["eviction_policy"] = spec["evictionPolicy"]
    tiers = [
        {"type": "fs", "root_dir": f"/mnt/kv-cache-{index}"}
        for index, tier in enumerate(spec.get("secondary") or [])
        if tier.get("fileSystem") is not None
    ]
    if tiers:
        extra["secondary_tiers"] = tiers
    config = {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}
    text = json.dumps(config, separators=(",", ":"), sort_keys=True)
    return "--kv-transfer-config '" + text.replace('"', '\\\\\\"') + "'"


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ChildName": child_name,
    "shutdownTimeout": _shutdown_timeout,
    "kvTransferConfig": _kv_transfer_config,
}
