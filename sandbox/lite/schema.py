"""One view on the two kinds of schema: CRD structural schemas and those of built-in kinds.

A Schema is a node of the tree. What lists merge by, which maps are atomic and which fields exist is asked of it,
never of the raw JSON.
"""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import orjson

DATA = Path(__file__).parent / "data"
BUILTINS = DATA / "builtins.json"
POINTERS = DATA / "pointers.json"
KEY_DEFAULTS: dict[str, Any] = {"protocol": "TCP"}  # the published schema of ports leaves its default out

Raw = dict[str, Any]


@cache
def definitions() -> dict[str, Raw]:
    """Return the schemas of built-in kinds by short name, for example `core.v1.Pod`."""
    loaded: dict[str, Raw] = orjson.loads(BUILTINS.read_bytes())
    return loaded


@cache
def pointers() -> frozenset[str]:
    """Return the fields of built-in kinds that hold a pointer to a struct, as `core.v1.Pod.spec`."""
    return frozenset(orjson.loads(POINTERS.read_bytes()))


class Schema:
    """One node: an object, map, list or scalar. `ANY` stands for a node about which nothing is known."""

    ANY: ClassVar[Schema]
    META: ClassVar[Schema]
    META_INSIDE: ClassVar[Schema]

    def __init__(self, raw: Raw, *, builtin: bool = False, name: str = "") -> None:
        self.raw = raw
        self.builtin = builtin
        self.name = name  # of a built-in type, `core.v1.Container`
        self._fields: dict[str, Schema | None] = {}

    @classmethod
    def of_builtin(cls, name: str) -> Schema:
        """Return the schema of a built-in kind by short name."""
        return _builtin(name)

    @cached_property
    def kind(self) -> str:
        """`object`, `map`, `list`, `scalar` or `any`."""
        raw = self.raw
        if raw.get("x-kubernetes-int-or-string") or ("oneOf" in raw and "properties" not in raw):
            return "scalar"
        word = raw.get("type")
        if word == "array":
            return "list"
        if word == "object" or "properties" in raw:
            if raw.get("properties") or raw.get("x-kubernetes-embedded-resource"):
                return "object"
            if "additionalProperties" in raw:
                return "map"
            return "any" if self.builtin or self.preserves else "object"
        return "scalar" if word else "any"

    @cached_property
    def go_type(self) -> str:
        """The type as Go names it in complaints: `v1.Container`, `map[string]string`, `int32`."""
        if self.kind == "list":
            return f"[]{self.items.go_type}"
        if self.kind == "map":
            extra = self.raw.get("additionalProperties")
            if isinstance(extra, dict) and extra.get("$ref") == "api.resource.Quantity":
                return "v1.ResourceList"
            return f"map[string]{self._child(extra).go_type}" if isinstance(extra, dict) else "map[string]interface {}"
        if self.kind == "object":
            return ".".join(self.name.split(".")[-2:])
        word = str(self.raw.get("type"))
        return {"boolean": "bool", "integer": str(self.raw.get("format", "int64")), "number": "float64"}.get(word, word)

    @cached_property
    def preserves(self) -> bool:
        """Whether unknown fields stay."""
        return bool(self.raw.get("x-kubernetes-preserve-unknown-fields")) or self.raw == {}

    @cached_property
    def has_defaults(self) -> bool:
        """Whether a custom resource's schema has a default here or below."""
        return not self.builtin and mentions(self.raw, "default")

    @cached_property
    def embedded(self) -> bool:
        """Whether this is a whole object inside another (it then has apiVersion, kind and metadata)."""
        return bool(self.raw.get("x-kubernetes-embedded-resource"))

    @cached_property
    def atomic(self) -> bool:
        """Whether one manager owns the whole value."""
        if self.kind == "list":
            return bool(self.raw.get("x-kubernetes-list-type", "atomic") == "atomic")
        return bool(self.kind == "scalar" or self.raw.get("x-kubernetes-map-type") == "atomic")

    @cached_property
    def is_set(self) -> bool:
        """Whether this is a list of unique scalars."""
        return self.kind == "list" and self.raw.get("x-kubernetes-list-type") == "set"

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The fields that name an item of an associative list; empty for other lists."""
        if self.kind != "list" or self.raw.get("x-kubernetes-list-type") != "map":
            return ()
        return tuple(self.raw.get("x-kubernetes-list-map-keys", ()))

    @cached_property
    def items(self) -> Schema:
        """The schema of a list's items."""
        return self._child(self.raw.get("items", {}))

    @property
    def declared(self) -> Raw:
        """The raw schemas of the fields this object declares."""
        declared: Raw = self.raw.get("properties", {})
        return declared

    def field(self, name: str) -> Schema | None:
        """Return the schema of a field or map entry; None when there can be no such field."""
        if name not in self._fields:
            self._fields[name] = self._find(name)
        return self._fields[name]

    def is_declared(self, name: str) -> bool:
        """Whether `name` is a field of a struct, not an entry of a map."""
        return name in self.declared or (self.embedded and name in ("apiVersion", "kind", "metadata"))

    def always_has(self, name: str) -> bool:
        """Whether every object of a built-in kind has a field: a Go struct, or a list that is never left out."""
        below = self.field(name)
        if not self.builtin or not self.name or below is None:
            return False
        if below.atomic and below.kind != "object":
            return False
        if below.kind == "object":
            return f"{self.name}.{name}" not in pointers()
        return below.kind == "list" and name in self.raw.get("required", ())

    def key_default(self, key: str) -> Any:
        """Return what a missing key field of an item counts as; None when it has no default."""
        child = self.items.field(key)
        if child is not None and "default" in child.raw:
            return child.raw["default"]
        if not self.builtin:
            return None
        if child is not None and key in self.items.raw.get("required", ()):
            return "" if child.raw.get("type") == "string" else 0  # what a Go struct has where nothing was sent
        return KEY_DEFAULTS.get(key)

    def _find(self, name: str) -> Schema | None:
        if name in self.declared:
            return self._child(self.declared[name])
        if self.embedded and name in ("apiVersion", "kind"):
            return Schema({"type": "string"})
        if self.embedded and name == "metadata":
            return Schema.META_INSIDE
        extra = self.raw.get("additionalProperties")
        if isinstance(extra, dict):
            return self._child(extra)
        if extra is True or self.preserves or self.kind == "any":
            return Schema.ANY
        return None

    def _child(self, raw: Raw) -> Schema:
        if "$ref" in raw:
            return _builtin(raw["$ref"])
        return Schema(raw, builtin=self.builtin)


def mentions(raw: Any, keyword: str) -> bool:
    """Whether a schema or one below it has a keyword."""
    if not isinstance(raw, dict):
        return False
    below = [
        raw.get("items"),
        raw.get("additionalProperties"),
        *raw.get("allOf", ()),
        *raw.get("properties", {}).values(),
    ]
    return keyword in raw or any(mentions(child, keyword) for child in below)


@cache
def _builtin(name: str) -> Schema:
    return Schema(definitions()[name], builtin=True, name=name)


Schema.ANY = Schema({})
Schema.META = _builtin("meta.v1.ObjectMeta")
Schema.META_INSIDE = Schema(Schema.META.raw, name=Schema.META.name)  # in a custom resource it is no Go struct


def of_crd(raw: Raw) -> Schema:
    """Return the schema of a custom resource, with the metadata every object has."""
    properties = dict(raw.get("properties", {}))
    for name in ("apiVersion", "kind"):
        properties.setdefault(name, {"type": "string"})
    properties["metadata"] = {"$ref": "meta.v1.ObjectMeta"}
    return Schema(raw | {"type": "object", "properties": properties})
