"""What a `bash -c` script ends in: the command it hands its process to. No shell is run here.

KServe's presets start the engine by a script that works out some arguments and then says `eval "exec vllm serve ..."`.
This reads as much of the shell as those scripts use: assignments, if and else with the tests in them, the default of a
variable, arithmetic of two factors, and `eval`'s second reading. A test it cannot read is false, and a loop is passed
over: they look for network cards, which there are none of.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from sandbox.engine.builds import NEWEST_VERSION

SHELLS = ("bash", "sh")
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:(\w+|[@*])|\{(\w+)(?::-([^}]*))?\})")
_PRODUCT = re.compile(r"\$\(\(\s*(\S+)\s*\*\s*(\S+)\s*\)\)")
_AT_LEAST = re.compile(r'"\$\(printf .*? "([\d.]+)" .*\| sort -V .*\)" = "\1"')
_NOT_IN = re.compile(r'"(\$[^"]+)" != \*"([^"]*)"\*')
_EQUAL = re.compile(r'"(\$[^"]+)" = "([^"]*)"')
_LOOPS, _ENDS = ("for ", "while ", "until "), "done"


def script_of(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """Return the script and its arguments when the words are a shell's `-c`, else None."""
    if len(words) < 3 or words[0].rpartition("/")[2] not in SHELLS or words[1] != "-c":
        return None
    return words[2], list(words[4:])


def command(
    script: str, arguments: Sequence[str], environment: Mapping[str, str], version: str = NEWEST_VERSION
) -> list[str]:
    """Return the words of the command a script ends in; empty when it ends in none that can be read here.

    `version` is what `vllm --version` prints.
    """
    shell = _Shell({**environment, "VLLM_VERSION": version}, list(arguments))
    shell.variables.setdefault("DP_ADDRESS", environment.get("LWS_LEADER_ADDRESS", ""))
    for statement in _statements(script):
        try:
            words = shell.run(statement)
        except ValueError:
            return []  # a quote that never closes
        if words:
            return words
    return []


def _statements(script: str) -> list[str]:
    """Split a script at line ends that are outside quotes and not escaped; comments go."""
    found, current, quote, index = [], "", "", 0
    while index < len(script):
        letter = script[index]
        if letter == "\\" and quote != "'":
            current += script[index : index + 2]
            index += 2
            continue
        if letter == "#" and not quote and (not current.strip() or current[-1].isspace()):
            end = script.find("\n", index)
            index = len(script) if end < 0 else end
            continue
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        if letter == "\n" and not quote:
            found.append(current.strip())
            current = ""
        else:
            current += letter
        index += 1
    return [statement for statement in [*found, current.strip()] if statement]


class _Shell:
    def __init__(self, variables: dict[str, str], arguments: list[str]) -> None:
        self.variables = variables
        self.arguments = arguments
        self._branches: list[tuple[bool, bool]] = []  # of each open if: taken now, taken ever
        self._loops = 0

    def run(self, statement: str) -> list[str]:
        """Take one statement; returns the command when it is the one that replaces the shell."""
        if self._loops:
            self._loops += statement.startswith(_LOOPS)
            self._loops -= statement == _ENDS
            return []
        if self._branch(statement) or not all(now for now, _ in self._branches):
            return []
        if statement.startswith(_LOOPS):
            self._loops = 1
            return []
        if statement.startswith("eval "):
            return self._exec(self._expand(statement.removeprefix("eval ").strip()))
        assigned = _ASSIGNMENT.fullmatch(statement)
        if assigned is not None:
            if "$(" not in assigned[2] or _PRODUCT.fullmatch(assigned[2].strip()):
                self.variables[assigned[1]] = self._value(assigned[2].strip())
            return []
        return self._exec(self._expand(statement)) if statement.startswith(("exec ", "vllm ")) else []

    def _branch(self, statement: str) -> bool:
        """Follow if, elif, else and fi; tells whether the statement was one of them."""
        if statement.startswith("if "):
            reached = all(now for now, _ in self._branches)
            holds = reached and self._holds(statement)
            self._branches.append((holds, holds))
        elif statement.startswith("elif ") and self._branches:
            _, before = self._branches.pop()
            holds = not before and self._holds(statement)
            self._branches.append((holds, before or holds))
        elif statement == "else" and self._branches:
            _, before = self._branches.pop()
            self._branches.append((not before, True))
        elif statement == "fi" and self._branches:
            self._branches.pop()
        else:
            return False
        return True

    def _holds(self, statement: str) -> bool:
        test = statement.partition(" ")[2].rpartition(";")[0]
        return all(self._part_holds(part) for part in test.split(" && "))

    def _part_holds(self, part: str) -> bool:
        if "=~" in part:  # of these scripts' tests only the version is matched against an expression
            return "VLLM_VERSION" in part
        found = _AT_LEAST.search(part)
        if found is not None:
            return _numbers(found[1]) <= _numbers(self.variables["VLLM_VERSION"])
        found = _NOT_IN.search(part)
        if found is not None:
            return found[2] not in self._fill(found[1])
        found = _EQUAL.search(part)
        return found is not None and self._fill(found[1]) == found[2]

    def _value(self, text: str) -> str:
        product = _PRODUCT.fullmatch(text)
        if product is not None:
            factors = [self._fill(factor) for factor in product.groups()]
            return str(int(factors[0]) * int(factors[1])) if all(factor.isdigit() for factor in factors) else "0"
        return self._expand(text)

    def _fill(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name in ("@", "*"):
                return " ".join(self.arguments)
            return self.variables.get(name) or match[3] or ""

        return _VARIABLE.sub(value, text)

    def _expand(self, text: str) -> str:
        """Read words as the shell does once: quotes go, variables are filled in outside single quotes. ValueError."""
        made, quote, index = "", "", 0
        while index < len(text):
            letter = text[index]
            if quote == "'":
                made, quote = (made, "") if letter == "'" else (made + letter, quote)
                index += 1
            elif letter == "\\":
                following = text[index + 1 : index + 2]
                kept = quote == '"' and following not in ('"', "\\", "$", "`", "\n")
                made += ("\\" if kept else "") + ("" if following == "\n" else following)
                index += 2
            elif letter in "\"'" and (not quote or letter == quote):
                quote = "" if quote else letter
                index += 1
            elif letter == "$" and (found := _VARIABLE.match(text, index)) is not None:
                made += self._fill(found[0])
                index = found.end()
            else:
                made += letter
                index += 1
        if quote:
            raise ValueError(f"unclosed {quote}")
        return made

    def _exec(self, text: str) -> list[str]:
        words = shlex.split(text)
        return words[1:] if words[:1] == ["exec"] else words


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
