"""Engine flags as arguments of a container: always one word per flag, never a second word that could escape."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from decimal import Decimal

from deployments.engine.flags import FlagClass, flags_of
from deployments.spec import FLAG_NAME, ArgValue, hazard


class UnsafeValueError(ValueError):
    """A flag or value that must not reach a command line; the spec should have refused it before."""


def render_args(version: str, args: Mapping[str, ArgValue]) -> list[str]:
    """The flags as `--flag=value` words in order of their names; booleans become `--flag` or `--no-flag`.

    Raises UnsafeValueError for a flag that this version does not know or people may not set, and for a name or
    a value that Go templates, the kubelet or a shell would expand.
    """
    return [word for name in sorted(args) if (word := _word(version, name, args[name]))]


def quoted(words: Iterable[str]) -> str:
    """Words as one line for a shell that reads it once, as KServe's presets do in `eval "exec vllm serve … $@"`.

    Raises UnsafeValueError for a word that Go templates or the kubelet would expand before the shell sees it.
    """
    line = []
    for word in words:
        if reason := hazard(word.lstrip("-")):
            raise UnsafeValueError(f"The word “{word[:40]}” {reason}.")
        if "$" in word:
            raise UnsafeValueError(f"The word “{word[:40]}” may not contain “$”: the kubelet reads it first.")
        line.append(shlex.quote(word))
    return " ".join(line)


def _word(version: str, name: str, value: ArgValue) -> str:
    flag = flags_of(version).get(name)
    if not FLAG_NAME.fullmatch(name) or flag is None:
        raise UnsafeValueError(f"vLLM {version} does not know the flag “{name}”.")
    if flag.cls not in {FlagClass.OPEN, FlagClass.GUARDED}:
        raise UnsafeValueError(f"The flag “{name}” is not for people to set.")
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}" if flag.negatable else ""
    text = _number(value) if isinstance(value, int | float) else value
    if isinstance(value, str) and (reason := hazard(value)):
        raise UnsafeValueError(f"The value of “{name}” {reason}.")
    return f"--{name}={text}"


def _number(value: int | float) -> str:
    """A number the way a person writes it: never 1e-05, which not every flag accepts."""
    return str(value) if isinstance(value, int) else format(Decimal(repr(value)), "f")
