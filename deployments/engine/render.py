"""Engine flags as arguments of a container: always one word per flag, never a second word that could escape."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from deployments.spec import FLAG_NAME, ArgValue, hazard


class UnsafeValueError(ValueError):
    """A flag or value that must not reach a command line; the spec should have refused it before."""


def render_args(args: Mapping[str, ArgValue]) -> list[str]:
    """The flags as `--flag=value` words in order of their names; booleans become `--flag` or `--no-flag`.

    Raises UnsafeValueError for a name or a value that Go templates, the kubelet or a shell would expand.
    """
    return [_word(name, args[name]) for name in sorted(args)]


def _word(name: str, value: ArgValue) -> str:
    if not FLAG_NAME.fullmatch(name):
        raise UnsafeValueError(f"“{name}” is not the name of a flag.")
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    text = _number(value) if isinstance(value, int | float) else value
    if isinstance(value, str) and (reason := hazard(value)):
        raise UnsafeValueError(f"The value of “{name}” {reason}.")
    return f"--{name}={text}"


def _number(value: int | float) -> str:
    """A number the way a person writes it: never 1e-05, which not every flag accepts."""
    return str(value) if isinstance(value, int) else format(Decimal(repr(value)), "f")
