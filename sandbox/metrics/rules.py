"""PrometheusRule objects → rule files, of which Prometheus never keeps one that it cannot read."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

log = logging.getLogger(__name__)

Obj = Mapping[str, Any]
# What Prometheus itself knows; the operator takes out the rest (partial_response_strategy is Thanos').
GROUP_FIELDS = "name", "interval", "limit"
RULE_FIELDS = "record", "alert", "for", "keep_firing_for", "labels", "annotations"

Reload = Callable[[], Awaitable[str | None]]


def file_name(rule: Obj) -> str:
    """Return the file of one PrometheusRule; namespaces hold no underscore, so no two share one."""
    return f"{rule['metadata']['namespace']}_{rule['metadata']['name']}.yml"


def render(rule: Obj) -> bytes:
    """Return the file's content (JSON, which is YAML)."""
    groups = [
        {
            **{key: group[key] for key in GROUP_FIELDS if key in group},
            "rules": [
                {**{key: entry[key] for key in RULE_FIELDS if key in entry}, "expr": str(entry["expr"])}
                for entry in group.get("rules") or ()
            ],
        }
        for group in rule.get("spec", {}).get("groups") or ()
    ]
    return orjson.dumps({"groups": groups}, option=orjson.OPT_INDENT_2)


class RuleFolder:
    """Keeps rule files equal to the PrometheusRules of the cluster, through `reload`.

    `reload` returns None when Prometheus took the files and its complaint when not; when it raises because
    Prometheus is away, what it has not seen is taken out again: a bad file would keep it from starting.
    """

    def __init__(self, folder: Path, reload: Reload) -> None:
        self.folder = folder
        self.reload = reload
        self.refused: dict[str, str] = {}
        self._refused_texts: dict[str, bytes] = {}
        folder.mkdir(parents=True, exist_ok=True)

    async def sync(self, rules: list[Obj]) -> bool:
        """Write what changed and reload; tells whether anything had."""
        wanted = {file_name(rule): render(rule) for rule in rules}
        for name in list(self._refused_texts):
            if wanted.get(name) == self._refused_texts[name]:
                del wanted[name]
            else:
                del self.refused[name], self._refused_texts[name]
        present = {path.name: path.read_bytes() for path in self.folder.glob("*.yml")}
        changed = {name: text for name, text in wanted.items() if present.get(name) != text}
        gone = present.keys() - wanted.keys()
        if not changed and not gone:
            return False
        for name in gone:
            (self.folder / name).unlink()
        if await self._try(changed) is not None:
            for name, text in changed.items():
                complaint = await self._try({name: text})
                if complaint is not None:
                    log.error("rules %s refused: %s", name, complaint)
                    self.refused[name], self._refused_texts[name] = complaint, text
        return True

    async def _try(self, files: Mapping[str, bytes]) -> str | None:
        """Add files and reload; returns the complaint, and leaves the files out, when Prometheus refuses them."""
        kept = False
        try:
            for name, text in files.items():
                write_by_rename(self.folder / name, text)
            complaint = await self.reload()
            kept = complaint is None
        finally:
            if not kept:
                for name in files:
                    (self.folder / name).unlink(missing_ok=True)
        if complaint is not None:
            await self.reload()
        return complaint


def write_by_rename(path: Path, content: bytes) -> None:
    """Replace a file at once, so that no reader sees half of it."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)
