"""`manage.py spec check|render|fit FILE`: the pure core from the command line; needs no database, no cluster.

Files are JSON, or YAML where their name ends so. `spec render FILE --yaml` prints manifests, with `--whole` also what
they stand on in namespace and cluster; `spec fit FILE --table` draws the memory of one GPU for each role.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from deployments import commandline, fitting
from deployments.engine.measured import measured
from deployments.findings import Severity
from deployments.manifests.text import all_as_yaml
from deployments.wish_text import WishTextError, parse
from deployments.working_sets import working_set

ACTIONS = {
    "check": commandline.check_document,
    "render": commandline.render_document,
    "fit": fitting.fit_document,
}


class Command(BaseCommand):
    help = "Check a request, render its objects or estimate its memory. JSON (or YAML) in, JSON out."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=sorted(ACTIONS))
        parser.add_argument("file", help="a JSON or YAML file, or - for JSON from standard input")
        parser.add_argument("--facts", help="a file with flavors, quotas, profiles and the model")
        parser.add_argument("--yaml", action="store_true", help="render: manifests as kubectl takes them")
        parser.add_argument("--whole", action="store_true", help="with --yaml: also namespace and cluster objects")
        parser.add_argument("--table", action="store_true", help="fit: a bar and its figures for each role, to read")
        parser.add_argument("--config", help="the model's config.json")
        parser.add_argument("--gpu", help="a GPU by name or product label, in place of the flavor")
        parser.add_argument("--log", help="the log of an engine of this shape: what it measured counts")
        parser.add_argument("--weights-bytes", type=int, help="the size of the model's safetensors")

    def handle(self, *args: Any, **options: Any) -> None:
        document = read_json(options["file"])
        facts = read_json(options["facts"]) if options["facts"] else None
        if origins := [*settings.DOWNLOAD_SERVERS, *settings.OBJECT_STORES]:
            facts = {"origins": origins, **(facts or {})}
        if settings.SLIPWAY_OCI_REGISTRIES or settings.OCI_REGISTRIES:
            # Only then: what asks servers takes its time to import.
            from deployments.services.source_checks import listed_registries

            facts = {"registries": list(listed_registries()), **(facts or {})}
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
            if options["action"] == "render" and (refused := commandline.refusals(document, facts)):
                if not options["yaml"]:
                    self._print({"ok": False, "findings": refused})
                raise CommandError(_said(refused), returncode=1)
            if options["action"] == "render" and options["yaml"]:
                self.stdout.write(_manifests(document, facts, whole=options["whole"]), ending="")
                return
            answer = ACTIONS[options["action"]](document, facts)
        except (commandline.DocumentError, ValueError) as failure:
            raise CommandError(str(failure), returncode=2) from failure
        if options["action"] == "fit" and options["table"]:
            self.stdout.write(fitting.fit_text(answer))
            return
        self._print(answer)
        if answer.get("ok") is False:
            raise CommandError(_said(answer["findings"]), returncode=1)

    def _print(self, answer: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False))


def _said(findings: list[dict[str, Any]]) -> str:
    """The errors among findings, one a line, each with its place and what to do."""
    wrong = [item for item in findings if item["severity"] == Severity.ERROR]
    lines = [f"{item['pointer'] or '/'}: {item['message']} {item['remedy']}".rstrip() for item in wrong]
    return "\n".join(["This request is refused.", *lines])


def _manifests(document: dict[str, Any], facts: dict[str, Any] | None, *, whole: bool) -> str:
    if whole:
        return all_as_yaml(working_set(document, facts))
    answer = commandline.render_document(document, facts)
    return all_as_yaml([answer["service_account"], *answer["objects"]])


def read_json(name: str) -> dict[str, Any]:
    """An object from a JSON or YAML file, or as JSON from standard input for “-”; CommandError with the cause."""
    try:
        text = read_text(name)
        data = parse(text).data if Path(name).suffix in {".yaml", ".yml"} else json.loads(text)
    except WishTextError as failure:
        where = f" line {failure.line}:" if failure.line else ""
        raise CommandError(f"{name}:{where} {failure.message}", returncode=2) from failure
    except (ValueError, RecursionError) as failure:
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
