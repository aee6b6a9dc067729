"""Subcommands of the sandbox; each part is one operating system process.

A part is a module with `add_arguments(parser)` and `run(args)`, imported only when it is asked for, so that
one part never pays for the imports of another.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

PARTS: dict[str, tuple[str, str]] = {
    "apiserver": ("sandbox.lite.part", "API server and controllers of the lite cluster"),
    "install": ("sandbox.real.install", "first objects of the real control plane"),
    "node": ("sandbox.node", "node agent, engines and GPU exporter of one node"),
    "model": ("sandbox.model", "the one small language model that answers people"),
    "hub": ("sandbox.hub", "look-alike of a model hub"),
    "gateway": ("sandbox.gateway", "HTTP gateway in front of the engines"),
    "metrics": ("sandbox.metrics", "object metrics and scrape target discovery"),
    "traffic": ("sandbox.traffic", "background load through the gateway"),
    "images": ("sandbox.node.packaged", "list of the images with weights that the nodes can pull"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one part until it ends; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in PARTS:
        wanted = bool(words) and words[0] in ("-h", "--help")
        print(_overview(), file=sys.stdout if wanted else sys.stderr)
        return 0 if wanted else 2
    module_name, purpose = PARTS[words[0]]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(prog=f"python -m sandbox {words[0]}", description=purpose)
    module.add_arguments(parser)
    status: int | None = module.run(parser.parse_args(words[1:]))
    return status or 0


def _overview() -> str:
    lines = ["usage: python -m sandbox PART [options]", "", "parts:"]
    lines += [f"  {name:<10} {purpose}" for name, (_, purpose) in PARTS.items()]
    return "\n".join(lines)
