"""`manage.py spec check|render|fit FILE`: the pure core from the command line; needs no database, no cluster."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from deployments import commandline
from deployments.engine.measured import measured

ACTIONS = {
    "check": commandline.check_document,
    "render": commandline.render_document,
    "fit": commandline.fit_document,
}


class Command(BaseCommand):
    help = "Check a request, render its objects or estimate its memory. JSON in, JSON out."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=sorted(ACTIONS))
        parser.add_argument("file", help="a JSON file, or - for standard input")
        parser.add_argument("--facts", help="a JSON file with flavors, quotas, profiles and the model")
        parser.add_argument("--config", help="the model's config.json")
        parser.add_argument("--gpu", help="a GPU by name or product label, in place of the flavor")
        parser.add_argument("--log", help="the log of an engine of this shape: what it measured counts")
        parser.add_argument("--weights-bytes", type=int, help="the size of the model's safetensors")

    def handle(self, *args: Any, **options: Any) -> None:
        document = read_json(options["file"])
        facts = read_json(options["facts"]) if options["facts"] else None
        if options["config"]:
            document["model"] = {"config": read_json(options["config"])}
        if options["gpu"]:
            document["gpu"] = options["gpu"]
        if options["log"]:
            found = dataclasses.asdict(measured(read_text(options["log"])))
            document["measured"] = {name: value for name, value in found.items() if value is not None}
        if options["weights_bytes"]:
            document["weights_bytes"] = options["weights_bytes"]
        try:
            answer = ACTIONS[options["action"]](document, facts)
        except (commandline.DocumentError, ValueError) as failure:
            raise CommandError(str(failure), returncode=2) from failure
        self.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False))


def read_json(name: str) -> dict[str, Any]:
    """A JSON object from a file, or from standard input for “-”; raises CommandError with the cause."""
    try:
        data = json.loads(read_text(name))
    except ValueError as failure:
        raise CommandError(f"{name}: {failure}", returncode=2) from failure
    if not isinstance(data, dict):
        raise CommandError(f"{name}: a JSON object is needed.", returncode=2)
    return data


def read_text(name: str) -> str:
    """A file's text, or standard input for “-”; raises CommandError with the cause."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, ValueError) as failure:
        raise CommandError(f"{name}: {failure}", returncode=2) from failure
