"""A wish as YAML: text to plain values with the line of each, and back.

Only what a wish needs of YAML is read: one document of mappings, lists and words. What a loader would make of tags, of
aliases that explode or of endless nesting is never built: values are made from the parser's events, on a budget.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from deployments.spec_errors import FieldError, parse_spec

MOST_CHARACTERS = 64 * 1024
MOST_VALUES = 2_000
MOST_DEPTH = 12
LONGEST_NUMBER = 40
LONGEST_SAID = 160
# The parsers give the same events; the one in C is there wherever PyYAML was built with it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_RESOLVER: Any = yaml.resolver.Resolver()
_CONSTRUCTOR: Any = yaml.constructor.SafeConstructor()
_TAG = "tag:yaml.org,2002:"
_NUMBERS = {f"{_TAG}int": _CONSTRUCTOR.construct_yaml_int, f"{_TAG}float": _CONSTRUCTOR.construct_yaml_float}
# What only YAML 1.1 takes for a number, and for another than it looks like: 010 is eight there, 1:30 is ninety.
OLD_NUMBER = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9.]+)+)")
TOP = ("team", "name", "spec")


class WishTextError(ValueError):
    """The text is not the YAML of a wish; `line` is where, from 1, or 0 for the text as a whole."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.message, self.line = message, line


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a text: the line (0 where none can be named), the place in the wish, and words."""

    line: int
    pointer: str
    message: str


@dataclass(frozen=True)
class WishText:
    """Plain values as they were written, and on which line each stands, by JSON pointer."""

    data: Any
    lines: Mapping[str, int] = field(default_factory=dict)

    def line_of(self, pointer: str) -> int:
        """The line of a value, or of what should hold it; 0 where nothing of it was written."""
        while pointer and pointer not in self.lines:
            pointer = pointer.rpartition("/")[0]
        return self.lines.get(pointer, 0)


@dataclass(frozen=True)
class Read:
    """What came of a text: a spec as JSON (empty when there are problems), and the team and name beside it, if any."""

    spec: Mapping[str, Any] = field(default_factory=dict)
    team: str = ""
    name: str = ""
    problems: tuple[Problem, ...] = ()


def read_wish(text: str) -> Read:
    """A request `{team, name, spec}`, or the spec alone, with everything that is wrong in it."""
    try:
        written = parse(text)
    except WishTextError as failure:
        return Read(problems=(Problem(failure.line, "", failure.message),))
    data = written.data
    if not isinstance(data, Mapping):
        return Read(problems=(Problem(0, "", "Write the fields of a spec: source, flavor, engine and others."),))
    if data and set(data) <= {"team", "name"}:
        return Read(problems=(Problem(0, "/spec", "The wish itself is missing: source, flavor, engine and others."),))
    bare = "spec" not in data
    problems = [] if bare else list(_around(written))
    spec, wrong = parse_spec(data if bare else data["spec"])
    problems += [_problem(error, written, bare) for error in wrong]
    if spec is None or problems:
        return Read(problems=tuple(sorted(problems, key=lambda item: item.line)))
    beside = {} if bare else data
    return Read(spec.to_json(), str(beside.get("team") or ""), str(beside.get("name") or ""))


def write_wish(spec: Mapping[str, Any], *, team: str = "", name: str = "") -> str:
    """The YAML of a request, which `read_wish` reads as the same one; what is not set is left out."""
    around = {key: value for key, value in (("team", team), ("name", name)) if value}
    return write({**around, "spec": spec})


def write(data: Any) -> str:
    """YAML of plain values in the order they have, without what is null."""
    return str(yaml.dump(_without_null(data), Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=110))


def parse(text: str) -> WishText:
    """Plain values from YAML or JSON; WishTextError for what is no such text, or more than a wish can be."""
    if len(text) > MOST_CHARACTERS:
        raise WishTextError(f"At most {MOST_CHARACTERS // 1024} KiB, far more than a wish takes.")
    try:
        return _Reading(text.removeprefix("\ufeff")).document()
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None)
        said = str(getattr(failure, "problem", None) or getattr(failure, "reason", None) or "it cannot be read")
        raise WishTextError(f"This is not YAML: {said[:LONGEST_SAID]}.", mark.line + 1 if mark else 0) from None


class _Reading:
    """One text on its way to values."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self._left = MOST_VALUES
        # By name what an alias may stand for, with the number of values in it. What is not complete is not there yet.
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._lines: dict[str, int] = {}

    def document(self) -> WishText:
        next(self._events)  # the start of the stream
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise WishTextError("There is nothing in it.")
        data = self._value(next(self._events), "", 0)
        next(self._events)  # the end of the document
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            _fail("One wish at a time: a second document begins here", after)
        return WishText(data, self._lines)

    def _value(self, event: Any, pointer: str, depth: int) -> Any:
        self._spend(1, event)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                _fail("An alias stands for a value that is complete before it, and this one does not", event)
            known, size = self._anchors[event.anchor]
            self._spend(size, event)
            return known
        if depth > MOST_DEPTH:
            _fail("This is nested deeper than a wish can be", event)
        if event.tag and event.tag != "!":
            _fail("Tags (“!…”) are not taken here", event)
        before = self._left
        value: Any
        if isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(pointer, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(pointer, depth)
        else:
            value = _word(event)
        if event.anchor:
            self._anchors[event.anchor] = value, before - self._left + 1
        return value

    def _mapping(self, pointer: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                _fail("A field's name is a plain word", event)
            name = str(event.value)
            if name in found:
                _fail("This field is given twice", event)
            place = f"{pointer}/{_escaped(name)}"
            self._lines[place] = _line(event)
            found[name] = self._value(next(self._events), place, depth + 1)
        return found

    def _sequence(self, pointer: str, depth: int) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            place = f"{pointer}/{len(found)}"
            self._lines[place] = _line(event)
            found.append(self._value(event, place, depth + 1))
        return found

    def _spend(self, values: int, event: Any) -> None:
        self._left -= values
        if self._left < 0:
            _fail(f"More than {MOST_VALUES:,} values, aliases counted each time: a wish takes some dozens", event)


def _word(event: Any) -> Any:
    """A plain word as the value that YAML takes it for; dates stay text, which is all a wish knows."""
    text = str(event.value)
    if not event.implicit[0]:
        return text
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if tag == f"{_TAG}null":
        return None
    if tag == f"{_TAG}bool":
        return text.lower() in {"true", "yes", "on"}
    if tag in _NUMBERS and len(text) <= LONGEST_NUMBER and not OLD_NUMBER.fullmatch(text):
        try:
            return _NUMBERS[tag](yaml.ScalarNode(tag, text))
        except ValueError:
            return text
    return text


def _around(written: WishText) -> Iterator[Problem]:
    """What is wrong beside the spec."""
    for name, value in written.data.items():
        place = f"/{_escaped(name)}"
        if name not in TOP:
            yield Problem(written.line_of(place), place, f"Slipway does not know this field. Known: {', '.join(TOP)}.")
        elif name != "spec" and not (value is None or isinstance(value, str)):
            yield Problem(written.line_of(place), place, "Must be text.")


def _problem(error: FieldError, written: WishText, bare: bool) -> Problem:
    pointer = error.pointer.removeprefix("/spec") if bare else error.pointer
    return Problem(written.line_of(pointer), pointer, error.said)


def _without_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_null(each) for name, each in value.items() if each is not None}
    return [_without_null(each) for each in value] if isinstance(value, list | tuple) else value


def _escaped(name: str) -> str:
    # As `spec_errors` writes pointers.
    return name[:80].replace("~", "~0").replace("/", "~1")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _fail(message: str, event: Any) -> NoReturn:
    raise WishTextError(f"{message}.", _line(event))
