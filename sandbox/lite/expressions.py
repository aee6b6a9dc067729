"""CEL expressions as Kubernetes means them, on the library that evaluates them.

The library brings the language and its macros. cel-go's extensions come from its `stdlib` module; what Kubernetes adds
is here. Two things the library cannot do: optional field selection (`self.?x`), and the size of a string counts bytes,
not characters.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import Any

from sandbox.lite.quantity import parse
from sandbox.lite.schema import Schema

# the package would import its command line, and with it 0.3 s and 25 MB of terminal libraries
sys.modules["cel.cli"] = ModuleType("cel.cli")
import cel  # noqa: E402
from cel.stdlib import STDLIB_FUNCTIONS  # noqa: E402

del sys.modules["cel.cli"]

# words that may be no field names in CEL
_RESERVED = frozenset((
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return", "var", "void", "while",
))  # fmt: skip
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_NAME = re.compile(r"[a-zA-Z_./-][a-zA-Z0-9_./-]*\Z")


class ExpressionFailed(ValueError):
    """An expression could not be evaluated; the message is cel-go's."""


class Expression:
    """A compiled expression. Raises ExpressionFailed when it does not compile."""

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            self._program = cel.compile(source)
        except ValueError as error:
            said = str(error).removeprefix(f"Failed to parse expression '{source}': ").replace("\n|", "\n |")
            raise ExpressionFailed(f"compilation failed: {said}") from None
        self.variables = frozenset(self._program.variables())
        self._functions = {name: FUNCTIONS[name] for name in self._program.functions() if name in FUNCTIONS}

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """Return the value under some variables. Raises ExpressionFailed, worded as cel-go words it."""
        context = cel.Context(variables=dict(variables), functions=self._functions)
        try:
            return self._program.execute(context)
        except KeyError as error:
            raise ExpressionFailed(f"no such key: {error.args[0]}") from None
        except IndexError as error:
            raise ExpressionFailed(str(error)) from None
        except ZeroDivisionError as error:
            word = "modulus by zero" if "mod" in str(error).lower() else "division by zero"
            raise ExpressionFailed(word) from None
        except OverflowError:
            raise ExpressionFailed("integer overflow") from None
        except TypeError:
            raise ExpressionFailed("no such overload") from None
        except (RuntimeError, ValueError) as error:
            raise ExpressionFailed(_said(str(error))) from None


@lru_cache(maxsize=2048)
def compiled(source: str) -> Expression:
    """Return an expression, compiled once."""
    return Expression(source)


@lru_cache(maxsize=4096)
def escape(name: str) -> str | None:
    """Return a field's name as expressions spell it; None when they cannot."""
    if name in _RESERVED:
        return f"__{name}__"
    if not _NAME.match(name):
        return None
    if "__" not in name and not any(letter in name for letter in ".-/"):
        return name
    return re.sub(r"__|[./-]", lambda found: _ESCAPES[found[0]], name)


def value_of(value: Any, schema: Schema, *, root: bool = False) -> Any:
    """Return a JSON value as expressions see it: names escaped, numbers, times and durations typed."""
    if isinstance(value, dict):
        if root or schema.embedded:
            value = _named_only(value)
        if not schema.declared:
            return {name: value_of(child, schema.field(name) or Schema.ANY) for name, child in value.items()}
        seen = {}
        for name, child in value.items():
            spelled = escape(name) if schema.is_declared(name) else name
            if spelled is not None:
                seen[spelled] = value_of(child, schema.field(name) or Schema.ANY)
        return seen
    if isinstance(value, list):
        items = schema.items if schema.kind == "list" else Schema.ANY
        return [value_of(item, items) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and schema.raw.get("type") == "number":
        return float(value)
    if isinstance(value, str) and schema.raw.get("format") in _FORMATS:
        try:
            return _FORMATS[schema.raw["format"]](value)
        except ValueError:
            return value
    return value


def optional(value: Any, *, known: bool) -> cel.OptionalValue:
    """Wrap a value that may be absent."""
    return cel.OptionalValue.of(value) if known else cel.OptionalValue.none()


def _named_only(value: dict[str, Any]) -> dict[str, Any]:
    """Of an object's metadata expressions see its names alone."""
    meta = value.get("metadata")
    if not isinstance(meta, dict):
        return value
    return value | {"metadata": {name: meta[name] for name in ("name", "generateName") if name in meta}}


def _duration(text: str) -> timedelta:
    found: Any = cel.evaluate("duration(text)", {"text": text})
    if not isinstance(found, timedelta):
        raise ValueError(text)
    return found


_FORMATS: dict[str, Callable[[str], Any]] = {
    "date-time": datetime.fromisoformat,
    "date": datetime.fromisoformat,
    "duration": _duration,
}


def _said(text: str) -> str:
    """Find in the library's complaint what cel-go would say."""
    if found := re.search(r"Undefined variable or function: '([^']*)'", text):
        return f"undeclared reference to '{found[1]}' (in container '')"
    if "'duration'" in text:
        return "type conversion error from 'string' to 'google.protobuf.Duration'"
    if "'timestamp'" in text:
        return "type conversion error from 'string' to 'google.protobuf.Timestamp'"
    if found := re.search(r"no such key:? *'?([^']*)'?", text, re.IGNORECASE):
        return f"no such key: {found[1]}"
    return text.splitlines()[0]


def _is_sorted(values: Iterable[Any]) -> bool:
    return all(one <= other for one, other in pairwise(values))


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found[0] if found else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [match[0] for match in re.finditer(pattern, text)]
    return found if limit < 0 else found[:limit]


def _is_quantity(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


FUNCTIONS: dict[str, Callable[..., Any]] = dict(STDLIB_FUNCTIONS) | {
    "isSorted": _is_sorted,
    "find": _find,
    "findAll": _find_all,
    "isQuantity": _is_quantity,
}
