"""Print what the parser of `vllm serve` takes, as JSON; run it where vLLM is installed, a GPU is not needed.

    python record_flags.py > 0.32.0.json

It needs nothing of Slipway, so that it can be piped into a container of the image that is to be offered.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any

# Where releases keep the parser, newest first, and the class that it is made of.
PARSERS = tuple(f"vllm.entrypoints.{where}.cli_args" for where in ("common", "launchers", "openai"))
CLASSES = ("vllm.utils.argparse_utils", "vllm.utils")


def recorded() -> dict[str, Any]:
    """The version, and a row for every action of the parser: flags, dest, type, default, choices, nargs, action."""
    platform = importlib.import_module("vllm.platforms").current_platform
    # Without a GPU vLLM finds no platform, and its parser, which has defaults of one, would not be built.
    platform.device_type = platform.device_type or "cuda"
    parser = _first(PARSERS, "make_arg_parser")(_first(CLASSES, "FlexibleArgumentParser")(prog="vllm serve"))
    return {"vllm": importlib.import_module("vllm").__version__, "flags": list(_rows(parser))}


def _rows(parser: Any) -> Iterator[dict[str, Any]]:
    for action in parser._actions:  # argparse has no public list of them
        if not action.option_strings:
            continue  # the model in front is no flag
        kind = action.type
        yield {
            "flags": action.option_strings,
            "dest": action.dest,
            "type": kind if kind is None else getattr(kind, "__name__", str(kind)),
            "default": _plain(action.default),
            "choices": [str(choice) for choice in action.choices] if action.choices else None,
            "nargs": action.nargs,
            "action": type(action).__name__,
        }


def _plain(value: object) -> object:
    try:
        json.dumps(value)
    except TypeError:
        return str(value)
    return value


def _first(modules: tuple[str, ...], name: str) -> Any:
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as failure:
            print(f"{module} has no {name}: {failure}", file=sys.stderr)
    raise SystemExit(f"This release keeps {name} elsewhere.")


if __name__ == "__main__":
    made = recorded()
    rows = ",\n".join(f"  {json.dumps(row)}" for row in made["flags"])
    print(f'{{"vllm": "{made["vllm"]}",\n "flags": [\n{rows}\n]}}')
