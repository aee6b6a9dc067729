"""Which rule of which HTTPRoute a request takes, as the Gateway API orders them. Pure.

Paths are compared segment by segment, each decoded on its own, so an encoded slash never crosses a border.
Among the rules that match: an exact host before a wildcard, an exact path before a prefix before an expression,
the longer one first, then more header matches, then the older route.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from sandbox.client import Obj

_KINDS = {"Exact": 2, "PathPrefix": 1, "RegularExpression": 0}


@dataclass(frozen=True)
class Backend:
    """One Service or InferencePool a rule may send to."""

    namespace: str
    name: str
    port: int
    weight: int
    kind: str = "Service"


@dataclass(frozen=True)
class Rule:
    """One match of one rule of one route, ready to be compared with requests."""

    namespace: str
    route: str
    host: str  # "" for any
    kind: str
    path: str
    segments: tuple[str, ...]
    method: str  # "" for any
    headers: tuple[tuple[str, str], ...]
    backends: tuple[Backend, ...]
    filters: tuple[Obj, ...] = field(compare=False)
    timeout: float | None
    rank: tuple[object, ...]


def split_path(raw: str) -> tuple[str, ...]:
    """Return the decoded segments of a raw path; a trailing slash gives no segment of its own."""
    return tuple(unquote(part) for part in raw.strip("/").split("/")) if raw.strip("/") else ()


def safe_path(raw: str) -> bool:
    """Tell whether a path names a place and not a way: `..` could leave the prefix it was admitted for.

    An encoded slash is a letter of its segment, as in `/v1/models/Qwen%2FQwen2.5`; a way hidden behind one is not.
    """
    steps = (step for part in split_path(raw) for step in part.replace("\\", "/").split("/"))
    return not any(step in (".", "..") for step in steps)


def table(routes: Iterable[Obj]) -> list[Rule]:
    """Return all rules of the routes, those that go first in front."""
    rules = [rule for route in routes for rule in _rules(route)]
    return sorted(rules, key=lambda rule: rule.rank)


def find(rules: Iterable[Rule], host: str, raw_path: str, method: str, headers: Mapping[str, str]) -> Rule | None:
    """Return the first rule that takes a request."""
    segments = split_path(raw_path)
    for rule in rules:
        if (
            _host_matches(rule.host, host)
            and _path_matches(rule, raw_path, segments)
            and (not rule.method or rule.method == method)
            and all(headers.get(name) == value for name, value in rule.headers)
        ):
            return rule
    return None


def rewritten(rule: Rule, raw_path: str) -> str:
    """Return the raw path to ask the backend for."""
    for item in rule.filters:
        change = (item.get("urlRewrite") or {}).get("path") if item["type"] == "URLRewrite" else None
        if change is None:
            continue
        if change["type"] == "ReplaceFullPath":
            return str(change["replaceFullPath"])
        rest = raw_path.strip("/").split("/")[len(rule.segments) :] if raw_path.strip("/") else []
        base = str(change["replacePrefixMatch"]).rstrip("/")
        slash = "/" if rest and raw_path.endswith("/") else ""
        return base + "/" + "/".join(rest) + slash if rest else base or "/"
    return raw_path


def changed_headers(rule: Rule, headers: list[tuple[str, str]], kind: str) -> list[tuple[str, str]]:
    """Apply the rule's RequestHeaderModifier or ResponseHeaderModifier; names are compared in lower case."""
    changed = list(headers)
    for item in rule.filters:
        if item["type"] != kind:
            continue
        modifier = item.get(kind[0].lower() + kind[1:]) or {}
        gone = {name.lower() for name in modifier.get("remove") or []}
        gone |= {entry["name"].lower() for entry in modifier.get("set") or []}
        changed = [(name, value) for name, value in changed if name.lower() not in gone]
        added = [*(modifier.get("set") or []), *(modifier.get("add") or [])]
        changed.extend((entry["name"].lower(), entry["value"]) for entry in added)
    return changed


def seconds(duration: str | None) -> float | None:
    """Read a Gateway API duration such as `600s` or `1m30s`; None for none and for `0s`, which means no limit."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    total = sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", duration or ""))
    return total or None


def _rules(route: Obj) -> Iterable[Rule]:
    meta, spec = route["metadata"], route["spec"]
    for index, rule in enumerate(spec.get("rules") or []):
        backends = tuple(_backend(item, meta["namespace"]) for item in rule.get("backendRefs") or [])
        for match in rule.get("matches") or [{}]:
            for host in spec.get("hostnames") or [""]:
                yield _rule(route, rule, match, host.lower(), backends, index)


def _rule(route: Obj, rule: Obj, match: Obj, host: str, backends: tuple[Backend, ...], index: int) -> Rule:
    meta = route["metadata"]
    path = match.get("path") or {}
    kind, value = path.get("type", "PathPrefix"), path.get("value", "/")
    headers = tuple((item["name"].lower(), item["value"]) for item in match.get("headers") or [])
    rank = (
        _host_rank(host),
        -_KINDS.get(kind, 0),
        -len(value),
        not match.get("method"),
        -len(headers),
        meta.get("creationTimestamp", ""),
        f"{meta['namespace']}/{meta['name']}",
        index,
    )
    return Rule(
        namespace=meta["namespace"],
        route=meta["name"],
        host=host,
        kind=kind,
        path=value,
        segments=split_path(value),
        method=match.get("method", ""),
        headers=headers,
        backends=backends,
        filters=tuple(rule.get("filters") or []),
        timeout=seconds((rule.get("timeouts") or {}).get("request")),
        rank=rank,
    )


def _backend(reference: Obj, namespace: str) -> Backend:
    return Backend(
        namespace=reference.get("namespace") or namespace,
        name=reference["name"],
        port=int(reference.get("port") or 0),
        weight=int(reference.get("weight", 1)),
        kind=reference.get("kind", "Service"),
    )


def _host_rank(host: str) -> tuple[int, int]:
    if not host:
        return 2, 0
    return (1, -len(host)) if host.startswith("*.") else (0, -len(host))


def _host_matches(pattern: str, host: str) -> bool:
    if not pattern:
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern


def _path_matches(rule: Rule, raw: str, segments: tuple[str, ...]) -> bool:
    if rule.kind == "Exact":
        return segments == rule.segments and raw.endswith("/") == rule.path.endswith("/")
    if rule.kind == "RegularExpression":
        return re.fullmatch(rule.path, "/" + "/".join(segments)) is not None
    return segments[: len(rule.segments)] == rule.segments
