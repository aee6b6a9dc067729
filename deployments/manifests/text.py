"""Objects as people read them: YAML in the order in which manifests are written, whatever the database made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

# jsonb keeps keys by length; these come first, `status` last, the others by name as kubectl has them.
OBJECT = ("apiVersion", "kind", "metadata", "spec")
METADATA = ("name", "generateName", "namespace", "labels", "annotations")
NAMED = ("name",)


# Several times faster where PyYAML was built with its emitter in C.
class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes text of several lines, as scripts are, as lines."""


def _text(dumper: Any, text: str) -> yaml.ScalarNode:
    node: yaml.ScalarNode = dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
    return node


_Dumper.add_representer(str, _text)


def as_yaml(item: Mapping[str, Any]) -> str:
    """One object."""
    return str(yaml.dump(in_order(item), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


def all_as_yaml(objects: Iterable[Mapping[str, Any]]) -> str:
    """Several objects as one file, parted by `---`."""
    return "---\n".join(as_yaml(item) for item in objects)


def in_order(item: Mapping[str, Any]) -> dict[str, Any]:
    """The same object with its keys in the order of manifests."""
    found = {}
    for name in _sorted(item, OBJECT, last="status"):
        value = item[name]
        metadata = name == "metadata" and isinstance(value, Mapping)
        found[name] = {key: _inner(value[key]) for key in _sorted(value, METADATA)} if metadata else _inner(value)
    return found


def _inner(value: Any) -> Any:
    if isinstance(value, Mapping):
        # An object inside another, as an item of a list or a template, has a head of its own.
        if "metadata" in value or "apiVersion" in value:
            return in_order(value)
        return {key: _inner(value[key]) for key in _sorted(value, NAMED)}
    return [_inner(each) for each in value] if isinstance(value, list | tuple) else value


def _sorted(item: Mapping[str, Any], first: tuple[str, ...], last: str = "") -> list[str]:
    return sorted(item, key=lambda key: (first.index(key) if key in first else len(first) + (key == last), key))
