"""Two lists of objects side by side: which came, went or changed, and the lines of their YAML that differ."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from deployments.labels import ANNOTATION_HASH, LABEL_REVISION
from deployments.manifests.text import as_yaml

# Different in every object of every revision, and nothing that anybody chose.
OF_EACH_REVISION = frozenset({ANNOTATION_HASH, LABEL_REVISION})
CONTEXT = 3


class Change(StrEnum):
    """What became of an object from one list to the other."""

    SAME = "same"
    CHANGED = "changed"
    NEW = "new"
    GONE = "gone"


class Side(StrEnum):
    """Where a line stands: in both, in the first alone, in the second alone; or it says which lines follow."""

    BOTH = "both"
    OLD = "old"
    NEW = "new"
    PLACE = "place"


@dataclass(frozen=True)
class Line:
    """One line of a unified diff, with its sign."""

    side: Side
    text: str


@dataclass(frozen=True)
class Compared:
    """One object of either list; lines only where it is not the same."""

    kind: str
    name: str
    change: Change
    lines: tuple[Line, ...] = ()


def compare(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Compared]:
    """Every object of both lists, in the order of the second, those that went last.

    The number of the revision and the hash of each object, which always differ, are left out.
    """
    before = {_key(obj): obj for obj in old}
    pairs = [(before.pop(_key(obj), None), obj) for obj in new]
    found = [_compared(_renamed(obj, before) if was is None else was, obj) for was, obj in pairs]
    return [*found, *(_compared(obj, None) for obj in before.values())]


def unified(compared: Iterable[Compared]) -> str:
    """All that differs as one text; empty when nothing does."""
    texts = ["\n".join(line.text for line in item.lines) for item in compared if item.lines]
    return "\n".join(texts) + "\n" if texts else ""


def _renamed(obj: Mapping[str, Any], left: dict[tuple[str, str], Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """What stood in its place where a name says what is in it: the one object of its kind that has no partner."""
    same_kind = [key for key in left if key[0] == obj["kind"]]
    return left.pop(same_kind[0]) if len(same_kind) == 1 else None


def _compared(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Compared:
    shown = new if new is not None else old
    assert shown is not None
    kind, name = _key(shown)
    lines = tuple(_lines(old, new))
    if old is None or new is None:
        return Compared(kind, name, Change.NEW if old is None else Change.GONE, lines)
    return Compared(kind, name, Change.CHANGED if lines else Change.SAME, lines)


def _lines(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Iterator[Line]:
    texts = [as_yaml(_plain(obj)).splitlines() if obj is not None else [] for obj in (old, new)]
    titles = [" ".join(_key(obj)) if obj is not None else "/dev/null" for obj in (old, new)]
    differing = difflib.unified_diff(texts[0], texts[1], titles[0], titles[1], lineterm="", n=CONTEXT)
    for number, text in enumerate(differing):
        yield Line(Side.PLACE if number < 2 else _SIDES.get(text[:1], Side.PLACE), text)


_SIDES = {" ": Side.BOTH, "-": Side.OLD, "+": Side.NEW}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items() if name not in OF_EACH_REVISION}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _key(obj: Mapping[str, Any]) -> tuple[str, str]:
    return str(obj["kind"]), str(obj["metadata"]["name"])
