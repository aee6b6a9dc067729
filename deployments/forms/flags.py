"""Engine flags as people write them: one `--flag=value` a line."""

from __future__ import annotations

import re
from collections.abc import Mapping

from deployments.spec import FLAG_NAME, MAX_LABEL, ArgValue

MAX_LINES = 64
# Python would read 1_0, nan and the digits of any script too.
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?", re.IGNORECASE)


class FlagTextError(ValueError):
    """A line that is not a flag; the message says which line and what is wrong."""


def parse_flags(text: str) -> dict[str, ArgValue]:
    """Read flags, one a line; blank lines and lines that begin with `#` are left out."""
    flags: dict[str, ArgValue] = {}
    lines = [line.strip() for line in text.splitlines()]
    if len(lines) > MAX_LINES:
        raise FlagTextError(f"At most {MAX_LINES} lines, this has {len(lines):,}.")
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        bare = name.strip().removeprefix("--").replace("_", "-")
        if not name.strip().startswith("--") or not FLAG_NAME.fullmatch(bare) or len(bare) > MAX_LABEL:
            raise FlagTextError(f"Line {number}: write “--flag=value”, as --stream-interval=8.")
        if bare in flags or (not equals and bare.removeprefix("no-") in flags):
            raise FlagTextError(f"Line {number}: “--{bare}” is given twice.")
        if equals and not value.strip():
            raise FlagTextError(f"Line {number}: “--{bare}=” has no value.")
        if not equals and bare.startswith("no-"):
            flags[bare.removeprefix("no-")] = False
        else:
            flags[bare] = value_of(value.strip()) if equals else True
    return flags


def value_of(text: str) -> ArgValue:
    """A number in the digits 0 to 9, true or false, or the text itself."""
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    for kind in (int, float) if NUMBER.fullmatch(text) else ():
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def has_line(text: str, flag: str) -> bool:
    """True when a line of the text says something of this flag."""
    return any(_is_of(line, flag) for line in text.splitlines())


def with_line(text: str, flag: str, value: str) -> str:
    """The text with one line for this flag, at its end; an empty value takes its line away."""
    lines = [line for line in text.splitlines() if not _is_of(line, flag)]
    return "\n".join([*lines, *([f"--{flag}={value}"] if value else [])]).strip()


def _is_of(line: str, flag: str) -> bool:
    bare = line.strip().partition("=")[0].strip().replace("_", "-")
    return bare in {f"--{flag}", f"--no-{flag}"}


def format_flags(flags: Mapping[str, object]) -> str:
    """Flags as lines of text, the way `parse_flags` reads them."""
    return "\n".join(_line(name, value) for name, value in flags.items())


def _line(name: str, value: object) -> str:
    if value is True:
        return f"--{name}"
    if value is False:
        return f"--no-{name}"
    return f"--{name}={value}"
