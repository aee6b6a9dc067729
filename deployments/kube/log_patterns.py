"""How a log becomes a typed cause: a list of patterns, tried in order. Pure: text in, reason out.

Logs are hostile: only numbers, flag names and short words of fixed alphabets are taken from them into sentences;
the line itself goes into `evidence`, which pages escape.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

from deployments.kube.reasons import Code, Reason, Weight

MAX_LOG = 400_000
MAX_EVIDENCE = 600
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
PREFIX = re.compile(r"^(\([A-Za-z0-9_]+ pid=\d+\) )?((ERROR|WARNING|INFO) \d\d-\d\d [\d:]+ \[[^\]]+\] ?)?")
# In patterns `<name:n>` is a whole number and `<name:f>` a decimal one, both of bounded length.
NUMBERS = {"n": r"\d[\d,]{0,17}", "f": r"-?\d[\d,]{0,17}(?:\.\d{1,9})?"}
ERROR_LINE = re.compile(r"[\w.]*(Error|Exception|error)\b.*?: ")

Parser = Callable[[re.Match[str]], Reason]


class Patterns(list[tuple[re.Pattern[str], Parser]]):
    """Patterns of one subject, each with the function that reads its match."""

    def on(self, *alternatives: str) -> Callable[[Parser], Parser]:
        """Register a parser for any of these patterns, in which numbers are written `<name:n>` and `<name:f>`."""

        def register(parser: Parser) -> Parser:
            self.extend((re.compile(with_numbers(pattern)), parser) for pattern in alternatives)
            return parser

        return register

    def first(self, text: str) -> Reason | None:
        """The reason of the first pattern that is found in `text`; None when none is."""
        clean = plain(text)
        for pattern, parser in self:
            if match := pattern.search(clean):
                return dataclasses.replace(parser(match), evidence=_line_of(clean, match))
        return None


def failed(
    code: Code,
    title: str,
    remedy: str,
    *,
    field: str = "",
    value: int | float | bool | str | None = None,
    numbers: Mapping[str, int | float | str] | None = None,
) -> Reason:
    """A reason that a person has to do something about."""
    return Reason(code, Weight.FAILED, title, remedy, field, value, numbers or {})


def last_error(text: str) -> str:
    """The last line that looks like an error, without prefixes; empty when there is none."""
    for line in reversed(plain(text).splitlines()):
        bare = PREFIX.sub("", line).strip()
        if ERROR_LINE.match(bare):
            return bare[:MAX_EVIDENCE]
    return ""


def plain(text: str) -> str:
    """The end of a log, without terminal colours."""
    return ANSI.sub("", text[-MAX_LOG:])


def with_numbers(pattern: str) -> str:
    """A pattern with its `<name:n>` and `<name:f>` written out as groups."""
    return re.sub(r"<(\w+):([nf])>", lambda found: f"(?P<{found[1]}>{NUMBERS[found[2]]})", pattern)


def decimal(text: str) -> float:
    """A number as logs write it: “1,024.5” is 1024.5."""
    return float(text.replace(",", ""))


def whole(text: str) -> int:
    """A whole number as logs write it: “40,208” is 40208."""
    return int(text.replace(",", ""))


def _line_of(text: str, match: re.Match[str]) -> str:
    start = text.rfind("\n", 0, match.start()) + 1
    end = text.find("\n", match.end())
    return PREFIX.sub("", text[start : end if end >= 0 else len(text)]).strip()[:MAX_EVIDENCE]
