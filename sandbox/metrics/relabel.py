"""Prometheus' relabelling of targets, as written in the `relabelings` of a PodMonitor."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

Labels = dict[str, str]
_REFERENCE = re.compile(r"\$(?:(\d+)|\{(\w+)\})")


def relabel(labels: Mapping[str, str], rules: Iterable[Mapping[str, Any]]) -> Labels | None:
    """Apply `rules` in order; None when one of them drops the target. ValueError for a rule that cannot be read."""
    result = {name: value for name, value in labels.items() if value}
    for rule in rules:
        changed = _apply(result, rule)
        if changed is None:
            return None
        result = {name: value for name, value in changed.items() if value}
    return result


def _apply(labels: Labels, rule: Mapping[str, Any]) -> Labels | None:
    action = str(rule.get("action", "replace")).lower()
    joined = str(rule.get("separator", ";")).join(labels.get(name, "") for name in rule.get("sourceLabels") or ())
    target = str(rule.get("targetLabel", ""))
    try:
        pattern = re.compile(f"(?:{rule.get('regex', '(.*)')})", re.DOTALL)
    except re.error as error:
        raise ValueError(f"regex {rule.get('regex')!r}: {error}") from error
    replacement = str(rule.get("replacement", "$1"))
    match action:
        case "keep" | "drop":
            return labels if bool(pattern.fullmatch(joined)) == (action == "keep") else None
        case "keepequal" | "dropequal":
            return labels if (joined == labels.get(target, "")) == (action == "keepequal") else None
        case "replace":
            found = pattern.fullmatch(joined)
            return labels | {_expand(target, found): _expand(replacement, found)} if found else labels
        case "lowercase" | "uppercase":
            return labels | {target: joined.lower() if action == "lowercase" else joined.upper()}
        case "hashmod":
            digest = hashlib.md5(joined.encode(), usedforsecurity=False).digest()
            return labels | {target: str(int.from_bytes(digest[8:], "big") % int(rule["modulus"]))}
        case "labelmap":
            mapped = {
                _expand(replacement, found): value
                for name, value in labels.items()
                if (found := pattern.fullmatch(name))
            }
            return labels | mapped
        case "labeldrop" | "labelkeep":
            keep = action == "labelkeep"
            return {name: value for name, value in labels.items() if bool(pattern.fullmatch(name)) == keep}
    raise ValueError(f"unknown action {action!r}")


def _expand(template: str, found: re.Match[str]) -> str:
    """Put groups in place of $1 and ${name}; a group that is not there is empty, as in Go."""

    def group(reference: re.Match[str]) -> str:
        name = reference[1] or reference[2]
        key: int | str = int(name) if name.isdigit() else name
        try:
            return found[key] or ""
        except IndexError:
            return ""

    return _REFERENCE.sub(group, template)
