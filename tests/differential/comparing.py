"""Two outcomes side by side: what every server makes up for itself taken out, then word for word."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.differential.remembering import Answer, Outcome
from tests.differential.sequences import Recorded, Sequence

_UID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_SHOWN = re.compile(r'Invalid value: ("\{.*\}"): ')
_VERSION_WORDS = re.compile(r"(ResourceVersion in (?:the precondition|record) \(|\bresourceVersion:)(\d+)")
_CURRENT = re.compile(r"(Too large resource version: \d+, current: )\d+")
_TOKEN_VOLUME = re.compile(r"\bkube-api-access-[a-z0-9]{5}\b")
_ADDRESS = re.compile(r"\b10\.96\.\d+\.\d+\b")
_MADE_NAME = re.compile(r"\b(gen-)[bcdfghjklmnpqrstvwxz2456789]{5}\b")
_TIMES = ("creationTimestamp", "deletionTimestamp", "time")


@dataclass(frozen=True)
class Difference:
    """One place at which two answers differ: the step's number, a path into the answer, and what stands there."""

    step: int  # -1 for the namespace; the watch comes after the last
    path: str
    real: Any
    lite: Any
    reason: str = ""  # why it is none after all

    def __str__(self) -> str:
        where = f"step {self.step}" if self.step >= 0 else "its namespace"
        return f"{where} {self.path}\n  real: {self.real!r}\n  lite: {self.lite!r}"


@dataclass(frozen=True)
class Alike:
    """What may be said in two ways: `plain` brings an answer into one form, the same for both."""

    reason: str
    plain: Callable[[Any], Any]


class Plain:
    """Answers of one server with its own inventions replaced by when they were first seen.

    So two servers agree exactly when the same things are the same: an object that a write left alone keeps its
    resourceVersion, one that was made anew has another uid.
    """

    def __init__(self) -> None:
        self._uids: dict[str, str] = {}
        self._versions: dict[str, str] = {}

    def answer(self, answer: Answer) -> Any:
        """Return an answer as comparable data."""
        return {"status": answer.status, "warnings": self.value(answer.warnings), "body": self.value(answer.body)}

    def event(self, event: tuple[str, Any]) -> Any:
        """Return a watch event as comparable data."""
        return {"type": event[0], "object": self.value(event[1])}

    def value(self, value: Any, name: str = "") -> Any:
        """Return any part of an answer as comparable data; `name` is the field that it is in."""
        if isinstance(value, dict):
            if name == "metadata":
                value = self._metadata(value)
            return {key: self.value(value[key], key) for key in sorted(value)}
        if isinstance(value, list):
            items = [self.value(child) for child in value]
            return sorted(items, key=_manager) if name == "managedFields" else items
        if isinstance(value, str):
            return self._text(value, name)
        return value

    def _metadata(self, meta: dict[str, Any]) -> dict[str, Any]:
        meta = dict(meta)
        if "uid" not in meta:  # a list: its version is that of all the cluster
            meta.pop("resourceVersion", None)
            if meta.get("continue"):
                meta["continue"] = "(token)"
        return meta

    def _text(self, text: str, name: str) -> str:
        if name in _TIMES and text:
            return "(time)"
        if name == "resourceVersion" and text.isdigit():
            return self._version(text)
        text = _SHOWN.sub(self._shown, text)
        text = _UID.sub(lambda found: self._uids.setdefault(found[0], f"(uid {len(self._uids)})"), text)
        text = _VERSION_WORDS.sub(lambda found: found[1] + self._version(found[2]), text)
        text = _CURRENT.sub(r"\1(version)", text)
        text = _TOKEN_VOLUME.sub("kube-api-access-*****", text)
        text = _MADE_NAME.sub(r"\1*****", text)
        return _ADDRESS.sub("(address)", text)

    def _shown(self, found: re.Match[str]) -> str:
        """An object within a sentence."""
        try:
            shown = json.loads(json.loads(found[1]))
        except ValueError:  # a Go map, say
            return found[0]
        return f"Invalid value: {json.dumps(self.value(shown))}: "

    def _version(self, text: str) -> str:
        return self._versions.setdefault(text, f"(version {len(self._versions)})")


def differences(
    sequence: Sequence | Recorded, real: Outcome, lite: Outcome, alike: Iterable[Alike] = ()
) -> Iterator[Difference]:
    """Yield where the answers to a sequence differ, step by step, then the watch.

    What one of `alike` makes the same is yielded with its reason.
    """
    one, other = Plain(), Plain()
    for number, (left, right) in enumerate(zip(real.answers, lite.answers, strict=True), start=-1):
        yield from _answers(number, one.answer(left), other.answer(right), alike)
    left_events = [one.event(event) for event in real.events]
    right_events = [other.event(event) for event in lite.events]
    yield from _compare(len(sequence.steps), "watch", left_events, right_events)


def _answers(step: int, real: Any, lite: Any, alike: Iterable[Alike]) -> Iterator[Difference]:
    found = list(_compare(step, "", real, lite))
    for item in alike if found else ():
        left, right = item.plain(real), item.plain(lite)
        rest = list(_compare(step, "", left, right))
        if len(rest) < len(found):
            yield replace(found[0], reason=item.reason)
            found, real, lite = rest, left, right
    yield from found


_ABSENT = "(absent)"


def _compare(step: int, path: str, real: Any, lite: Any) -> Iterator[Difference]:
    if isinstance(real, dict) and isinstance(lite, dict):
        for name in {**real, **lite}:
            below = f"{path}.{name}" if path else name
            yield from _compare(step, below, real.get(name, _ABSENT), lite.get(name, _ABSENT))
    elif isinstance(real, list) and isinstance(lite, list) and len(real) == len(lite):
        for index, (left, right) in enumerate(zip(real, lite, strict=True)):
            yield from _compare(step, f"{path}[{index}]", left, right)
    elif real != lite or isinstance(real, bool) != isinstance(lite, bool):
        yield Difference(step, path, real, lite)


def _manager(entry: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(entry.get(name, "")) for name in ("operation", "manager", "subresource", "apiVersion"))
