"""The text of a label selector, read and complained of as Kubernetes' own parser does."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sandbox.lite.errors import bad_request
from sandbox.lite.names import key_causes, label_causes

Test = Callable[[dict[str, Any]], bool]

_TOKEN = re.compile(r"\s*(==|!=|[=!(),<>]|[^\s=!(),<>]+|$)")
_SIGNS = frozenset(("==", "!=", *"=!(),<>", ""))
_OPERATORS = "in", "notin", "=", "==", "!=", "gt", "lt"


class _Unreadable(ValueError):
    """A complaint about one requirement."""


def parse(text: str) -> list[Test]:
    """Compile a selector; each test takes the labels. 400 when it cannot be read."""
    return _Parser(text).selector()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = [found[1] for found in _TOKEN.finditer(text) if found[1]]
        self._place = 0

    @property
    def _next(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def _take(self) -> str:
        word = self._next
        self._place += 1
        return word

    def selector(self) -> list[Test]:
        tests: list[Test] = []
        while self._next:
            if self._next in _SIGNS and self._next != "!":
                raise bad_request(f"found '{self._next}', expected: !, identifier, or 'end of string'")
            try:
                tests.append(self._requirement())
            except _Unreadable as error:
                raise bad_request(f"unable to parse requirement: {error}") from None
            word = self._take()
            if word == "":
                break
            if word != ",":
                raise bad_request(f"found '{word}', expected: ',' or 'end of string'")
            if self._next in _SIGNS and self._next != "!":
                raise bad_request(f"found '{self._next}', expected: identifier after ','")
        return tests

    def _requirement(self) -> Test:
        negated = self._next == "!"
        if negated:
            self._take()
        key = self._take()
        if key in _SIGNS:
            raise _Unreadable(f"found '{key}', expected: identifier")
        for cause in key_causes(key, "<nil>"):
            raise _Unreadable(f"{cause.field}: {cause.message}")
        if negated:
            return lambda labels: key not in labels
        if self._next in ("", ","):
            return lambda labels: key in labels
        operator = self._take()
        if operator in ("in", "notin"):
            values = self._values()
        elif operator in ("=", "==", "!=", "<", ">"):
            values = {self._value()}
        else:
            raise _Unreadable(f"found '{operator}', expected: {', '.join(_OPERATORS)}")
        for index, value in enumerate(sorted(values)):
            for cause in label_causes({key: value}, f"values[{index}][{key}]"):
                raise _Unreadable(f"{cause.field}: {cause.message}")
        return _test(key, operator, values)

    def _value(self) -> str:
        if self._next in ("", ","):
            return ""
        word = self._take()
        if word in _SIGNS:
            raise _Unreadable(f"found '{word}', expected: identifier")
        return word

    def _values(self) -> set[str]:
        word = self._take()
        if word != "(":
            raise _Unreadable(f"found '{word}' expected: '('")
        if self._next == ")":
            self._take()
            return {""}
        if self._next in _SIGNS and self._next != ",":
            raise _Unreadable(f"found '{self._next}', expected: ',', ')' or identifier")
        values = self._list()
        self._take()
        return values

    def _list(self) -> set[str]:
        """Read values up to the closing bracket, which is left; between two commas stands an empty one."""
        values: set[str] = set()
        while True:
            word = self._take()
            if word == ",":
                if not values:
                    values.add("")
                if self._next == ")":
                    return values | {""}
                if self._next == ",":
                    self._take()
                    values.add("")
            elif word in _SIGNS:
                raise _Unreadable(f"found '{word}', expected: ',', or identifier")
            else:
                values.add(word)
                if self._next == ")":
                    return values
                if self._next != ",":
                    raise _Unreadable(f"found '{self._next}', expected: ',' or ')'")


def _test(key: str, operator: str, values: set[str]) -> Test:
    if operator in ("in", "=", "=="):
        return lambda labels: key in labels and labels[key] in values
    if operator in ("notin", "!="):
        return lambda labels: labels.get(key) not in values
    (limit,) = values
    try:
        number = int(limit)
    except ValueError:
        text = "for 'Gt', 'Lt' operators, the value must be an integer"
        raise _Unreadable(f'values[0]: Invalid value: "{limit}": {text}') from None
    return lambda labels: _beyond(labels.get(key), number, above=operator == ">")


def _beyond(value: Any, limit: int, *, above: bool) -> bool:
    try:
        number = int(value)
    except (TypeError, ValueError):
        return False
    return number > limit if above else number < limit
