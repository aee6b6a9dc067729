"""Engine flags as people write them: one `--flag=value` or `--flag value` a line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from deployments.spec import FLAG_NAME, MAX_LABEL, ArgValue

MAX_LINES = 64
# Python would read 1_0, nan and the digits of any script too.
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?", re.IGNORECASE)


# A flag and what is written behind it, as a command line has it too.
LINE = re.compile(r"(?P<name>--?[A-Za-z0-9][\w-]*)(?:(?P<sign>\s*=\s*|\s+)(?P<value>.*))?", re.DOTALL)
ANOTHER = re.compile(r"(?:\A|\s)--?[A-Za-z]")
# A command with all its flags, as pages about vLLM and its models show it: prompt, variables and program in front.
COMMAND = re.compile(r"(?:\$\s+)?(?:\w+=\S*\s+)*(?:\S*vllm\s+serve|\S*python[0-9.]*\s+-m\s+vllm\.\S+)(?=\s|\Z)")
SHORT = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-q": "--quantization",
}
LONGEST_SAID = 400


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
        if COMMAND.match(line):
            flags_of_it = _said(_apart(COMMAND.sub("", _joined(lines[number - 1 :]))))
            here = f"Write its flags alone, one to a line: {flags_of_it}." if flags_of_it else "It has no flags."
            raise FlagTextError(f"Line {number}: this is a whole command. {here} Its model is named under Model.")
        name, equals, value = _taken_apart(number, line)
        bare = name.removeprefix("--").replace("_", "-")
        if bare in flags or (not equals and bare.removeprefix("no-") in flags):
            raise FlagTextError(f"Line {number}: “--{bare}” is given twice.")
        if equals and not value:
            raise FlagTextError(f"Line {number}: “--{bare}=” has no value.")
        if not equals and bare.startswith("no-"):
            flags[bare.removeprefix("no-")] = False
        else:
            flags[bare] = value_of(value) if equals else True
    return flags


def _taken_apart(number: int, line: str) -> tuple[str, bool, str]:
    """Name, whether it has a value, and the value of the one flag in a line; FlagTextError where it is not one."""
    line = line.removesuffix("\\").rstrip()  # as lines of a command end
    found = LINE.fullmatch(line)
    value = (found["value"] or "").strip() if found else ""
    if found and (line.count(" -") or "\t" in line) and ANOTHER.search(value):
        raise FlagTextError(f"Line {number}: one flag to a line. Write {_said(_apart(line))}, each on its own.")
    name = SHORT.get(found["name"], found["name"]) if found else ""
    if found and name != found["name"]:
        raise FlagTextError(f"Line {number}: write “{name}={value or '…'}”; short names are not taken.")
    bare = name.removeprefix("--").replace("_", "-")
    if not found or not name.startswith("--") or not FLAG_NAME.fullmatch(bare) or len(bare) > MAX_LABEL:
        raise FlagTextError(f"Line {number}: write “--flag=value”, as --stream-interval=8.")
    if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]:
        value = value[1:-1]  # a shell takes them off
    return name, found["sign"] is not None, value


def _apart(command: str) -> Iterator[str]:
    """The flags of a command line, each as a line of the box has it."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation that does not end
        words = command.split()
    flag, values = "", list[str]()
    for word in [*words, "--end"]:
        if ANOTHER.match(word):
            if flag:
                yield f"{flag}={' '.join(values)}" if values else flag
            name, equals, value = word.partition("=")
            flag, values = SHORT.get(name, name), [value] if equals else []
        elif flag and (word != "\\"):
            values.append(word)


def _joined(lines: list[str]) -> str:
    """Lines of a command as one."""
    return " ".join(line.removesuffix("\\") for line in lines)


def _said(flags: Iterator[str]) -> str:
    text = ", ".join(f"“{flag}”" for flag in flags)
    return text if len(text) <= LONGEST_SAID else f"{text[:LONGEST_SAID]}…"


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
    found = LINE.fullmatch(line.strip())
    if found is None or ANOTHER.search(found["value"] or ""):
        return False  # No flag, or several of which the others would be lost.
    bare = found["name"].replace("_", "-")
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
