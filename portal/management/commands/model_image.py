"""`manage.py model_image PATH`: whether an image with weights is packaged so that clusters can serve it.

Takes an OCI layout (a folder or an archive) or what `docker save` writes, before it is pushed; needs no database.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from deployments.findings import Severity
from deployments.sources.image_layers import contents_of
from deployments.sources.image_limits import ImageError, harmless
from deployments.sources.packaging import Packaged, packaged

SIGNS = {Severity.ERROR: "wrong", Severity.WARNING: "mind", Severity.INFO: "note"}


class Command(BaseCommand):
    help = "Check an image with weights before it is pushed: OCI layout, its archive, or docker save's."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", type=Path, help="the folder or archive")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            folders = packaged(contents_of(options["path"]))
        except ImageError as failure:
            raise CommandError(harmless(str(failure)), returncode=2) from failure
        ok = any(folder.serves for folder in folders)
        if options["json"]:
            answer = {"ok": ok, "folders": [folder.as_json() for folder in folders]}
            # Names are whoever's made the image: in JSON of ASCII alone nothing moves a terminal.
            self.stdout.write(json.dumps(answer, indent=2))
        else:
            for folder in folders:
                self._tell(folder)
        if not folders:
            raise CommandError("No folder of this image holds weights: safetensors, GGUF or PyTorch files.")
        if not ok:
            raise CommandError("No folder of this image can be served as it is.")

    def _say(self, line: str) -> None:
        self.stdout.write(harmless(line))

    def _tell(self, folder: Packaged) -> None:
        self._say(f"{folder.folder}: {folder.format.value}, {folder.size / 2**30:.2f} GiB")
        for finding in folder.findings:
            self._say(f"  {SIGNS[finding.severity]}: {finding.message} {finding.remedy}")
        if folder.serves:
            self._say(f"  can be served by: {', '.join(folder.ways)}")
