"""The CEL rules of a custom resource's schema (x-kubernetes-validations), checked as kube-apiserver checks them.

A tree of nodes mirrors the parts of the schema that have rules. Going down, the old value is kept beside the new one
wherever both can be told to be the same thing: fields, map entries, and items of lists with keys.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import orjson

from sandbox.lite.errors import NOWHERE, Cause, invalid_value, required, spell
from sandbox.lite.expressions import Expression, ExpressionFailed, compiled, optional, value_of
from sandbox.lite.resources import Resource
from sandbox.lite.schema import Raw, Schema, mentions

log = logging.getLogger(__name__)

KEYWORD = "x-kubernetes-validations"
MESSAGE_LIMIT = 5 * 1024  # bytes of what a messageExpression may make
_STEP = re.compile(r"\.([^.\[\]]+)|\['((?:[^'\\]|\\.)*)'\]")
_NONE: Any = object()


@dataclass
class Verdict:
    """What the rules say: what is wrong, and what was wrong before and has not changed."""

    causes: list[Cause] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Known:
    """The old value beside a new one (`old` is _NONE without), and whether an enclosing value has not changed."""

    old: Any = _NONE  # what oldSelf is
    twin: Any = _NONE  # what the value is compared with to forgive what was wrong before
    settled: bool = False


class Rule:
    """One rule, compiled when it is first needed."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.source = str(raw.get("rule", ""))
        self.said = str(raw.get("message") or "").strip() or self.source.strip()
        self.optional = bool(raw.get("optionalOldSelf"))

    @cached_property
    def expression(self) -> Expression:
        """The compiled rule. Raises ExpressionFailed."""
        return compiled(self.source)

    @cached_property
    def message(self) -> Expression | None:
        """The compiled messageExpression; None without one, or with one that does not compile."""
        source = self.raw.get("messageExpression")
        try:
            return compiled(source) if source else None
        except ExpressionFailed:
            log.warning("messageExpression does not compile: %s", source)
            return None

    @cached_property
    def below(self) -> str:
        """Where below its value a rule points, as the end of a path."""
        steps = _STEP.findall(str(self.raw.get("fieldPath", "")))
        return "".join(f".{name}" if name else f"[{_unescaped(key)}]" for name, key in steps)

    def detail(self, variables: dict[str, Any]) -> str:
        """Return what is said of a value that breaks the rule."""
        if self.message is not None:
            try:
                made = self.message.evaluate(variables)
            except ExpressionFailed as error:
                log.info("messageExpression failed: %s", error)
            else:
                text = made.strip() if isinstance(made, str) else ""
                if text and "\n" not in text and len(text.encode()) <= MESSAGE_LIMIT:
                    return text
        return str(self.raw.get("message") or "").strip() or f"failed rule: {self.said}"


class Node:
    """The rules of one part of a schema, and the parts below it that have some."""

    def __init__(self, raw: Raw, *, root: bool = False) -> None:
        self.schema = Schema(raw)
        self.root = root or self.schema.embedded
        self.rules = [Rule(rule) for rule in raw.get(KEYWORD, ()) if str(rule.get("rule", "")).strip()]
        self.items = _node(raw.get("items"))
        self.entries = _node(raw.get("additionalProperties"))
        found = {name: _node(child) for name, child in raw.get("properties", {}).items()}
        self.fields = {name: node for name, node in found.items() if node is not None}

    def check(self, value: Any, path: str, known: Known, verdict: Verdict) -> None:
        """Check a value and all below it."""
        if value is None:
            return
        if self.rules:
            self._apply(value, path, known, verdict)
        if isinstance(value, dict):
            self._check_fields(value, path, known, verdict)
        elif isinstance(value, list) and self.items is not None:
            old = _by_keys(known.old, self.schema.keys)
            twins = _by_keys(known.twin, self.schema.keys)
            settled = _settled(value, known)
            for index, item in enumerate(value):
                key = _key(item, self.schema.keys)
                below = Known(old.get(key, _NONE), twins.get(key, _NONE), settled)
                self.items.check(item, f"{path}[{index}]", below, verdict)

    def _check_fields(self, value: Raw, path: str, known: Known, verdict: Verdict) -> None:
        if not self.fields and self.entries is None:
            return
        old = known.old if isinstance(known.old, dict) else {}
        twin = known.twin if isinstance(known.twin, dict) else {}
        settled = not self.root and _settled(value, known)
        for name, child in value.items():
            below = Known(old.get(name, _NONE), twin.get(name, _NONE), settled)
            if name in self.fields:
                self.fields[name].check(child, f"{path}.{name}" if path else name, below, verdict)
            elif self.entries is not None and name not in self.schema.declared:
                self.entries.check(child, f"{path}[{name}]", below, verdict)

    def _apply(self, value: Any, path: str, known: Known, verdict: Verdict) -> None:
        kind = str(self.schema.raw.get("type", ""))
        has_old = known.old is not _NONE and known.old is not None
        seen = value_of(value, self.schema, root=self.root)
        seen_old = value_of(known.old, self.schema, root=self.root) if has_old else None
        for rule in self.rules:
            variables = {"self": seen} | ({"oldSelf": seen_old} if has_old else {})
            try:
                moving = "oldSelf" in rule.expression.variables
                if moving and not has_old and not rule.optional:
                    continue
                given = variables | ({"oldSelf": optional(seen_old, known=has_old)} if rule.optional else {})
                kept = rule.expression.evaluate(given)
            except ExpressionFailed as error:
                verdict.causes.append(invalid_value(path or NOWHERE, kind, _complaint(str(error), rule)))
                continue
            if kept is True:
                continue
            where = f"{path}{rule.below}" if path else (rule.below.removeprefix(".") or NOWHERE)
            cause = _cause(rule, where, value, kind, rule.detail(variables))
            if not moving and not self.root and (known.settled or _same(value, known.twin)):
                verdict.warnings.append(f"{cause.field}: {cause.message}")
            else:
                verdict.causes.append(cause)


@lru_cache(maxsize=128)
def rules_of(resource: Resource) -> Node | None:
    """Return the rules of a custom resource; None when its schema has none."""
    raw = resource.crd_schema or {}
    return Node(raw, root=True) if mentions(raw, KEYWORD) else None


def check(resource: Resource, obj: Raw, old: Raw | None) -> Verdict:
    """Check an object against the rules of its kind; `old` is what it was before an update."""
    verdict = Verdict()
    node = rules_of(resource)
    if node is not None:
        node.check(obj, "", Known(old, old) if old is not None else Known(), verdict)
    return verdict


def _node(raw: Any) -> Node | None:
    return Node(raw) if mentions(raw, KEYWORD) else None


def _cause(rule: Rule, path: str, value: Any, kind: str, detail: str) -> Cause:
    reason = rule.raw.get("reason") or "FieldValueInvalid"
    shown = "" if kind in ("object", "array") else f": {spell(value)}"
    if reason == "FieldValueForbidden":
        return Cause(path, reason, f"Forbidden: {detail}")
    if reason == "FieldValueRequired":
        return required(path, detail)
    if reason == "FieldValueDuplicate":
        return Cause(path, reason, f"Duplicate value{shown}")
    return Cause(path, "FieldValueInvalid", f"Invalid value{shown}: {detail}")


def _complaint(error: str, rule: Rule) -> str:
    if error.startswith("compilation failed") or error.startswith("undeclared reference"):
        return f"rule compile error: {error}"
    if error.startswith("no such overload"):
        text = "call arguments did not match a supported operator, function or macro signature for rule"
        return f"'{error}': {text}: {rule.said}"
    return f"{error} evaluating rule: {rule.said}"


def _settled(value: Any, known: Known) -> bool:
    return known.settled or _same(value, known.twin)


def _same(value: Any, twin: Any) -> bool:
    return twin is not _NONE and type(value) is type(twin) and bool(value == twin)


def _by_keys(items: Any, keys: tuple[str, ...]) -> dict[Any, Any]:
    """Index the items of a list with keys; other lists have no items that can be told to be the same."""
    if not keys or not isinstance(items, list):
        return {}
    return {_key(item, keys): item for item in items}


def _key(item: Any, keys: tuple[str, ...]) -> bytes | None:
    if not keys or not isinstance(item, dict):
        return None
    return orjson.dumps([item.get(key) for key in keys])


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t", "r": "\r"}.get(found[1], found[1]), text)


def duplicates(value: Any, schema: Schema, path: str = "") -> Iterator[Cause]:
    """Yield the items that occur twice in a set, or whose keys do in a list with keys."""
    if isinstance(value, dict):
        for name, child in value.items():
            below = schema.field(name)
            if below is not None and isinstance(child, dict | list):
                step = f".{name}" if path else name
                yield from duplicates(child, below, path + (step if schema.is_declared(name) else f"[{name}]"))
    elif isinstance(value, list) and schema.kind == "list":
        yield from _twice(value, schema, path)
        for index, item in enumerate(value):
            if isinstance(item, dict | list):
                yield from duplicates(item, schema.items, f"{path}[{index}]")


def _twice(items: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    if not schema.is_set and not schema.keys:
        return
    seen: dict[bytes, int] = {}
    for index, item in enumerate(items):
        key = item
        if schema.keys:
            if item is not None and not isinstance(item, dict):
                yield invalid_value(f"{path}[{index}]", item, "must be an object for an array of list-type map")
                return
            key = {name: item[name] for name in schema.keys if name in item} if item else {}
        mark = orjson.dumps(key, option=orjson.OPT_SORT_KEYS)
        seen[mark] = seen.get(mark, 0) + 1
        if seen[mark] == 2:
            yield Cause(f"{path}[{index}]", "FieldValueDuplicate", f"Duplicate value: {spell(key)}")
