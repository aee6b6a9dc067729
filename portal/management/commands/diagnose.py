"""`manage.py diagnose`: the typed reason of a pod from its status, events and log; needs no cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from deployments.commandline import diagnose_documents


class Command(BaseCommand):
    help = "Say why a pod does not serve: typed reason, form field and proposed value as JSON."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--pod", help="the pod as JSON, or a list of pods")
        parser.add_argument("--events", help="its events as JSON: a list or an EventList")
        parser.add_argument("--log", help="the log of the failing container as text")
        parser.add_argument("--service", help="its InferenceService as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if not any(options[name] for name in ("pod", "events", "log", "service")):
            raise CommandError("Give at least one of --pod, --events, --log and --service.", returncode=2)
        answer = diagnose_documents(
            _json(options["pod"]), _json(options["events"]), _text(options["log"]), _json(options["service"])
        )
        self.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False))


def _text(name: str | None) -> str:
    if not name:
        return ""
    try:
        return Path(name).read_text(errors="replace")
    except OSError as failure:
        raise CommandError(f"{name}: {failure}", returncode=2) from failure


def _json(name: str | None) -> Any:
    if not name:
        return None
    try:
        return json.loads(_text(name))
    except ValueError as failure:
        raise CommandError(f"{name}: {failure}", returncode=2) from failure
