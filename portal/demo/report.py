"""What a person at the terminal reads."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO


class Terminal:
    """Prints one line per event; a reader that has gone away (`| head`) ends the printing, not the demo."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out: TextIO | None = out or sys.stdout
        self.begun = time.monotonic()
        self.expected = 0
        self.count = 0

    def say(self, text: str = "") -> None:
        """Print `text` now."""
        if self.out is None:
            return
        try:
            print(text, file=self.out, flush=True)
        except OSError:
            self.out = None

    def started(self, name: str, seconds: float) -> None:
        """Say that a program is up, and how far the start is."""
        self.count += 1
        total = time.monotonic() - self.begun
        self.say(f"  [{self.count:>2}/{self.expected}] {name:<18} {seconds:5.1f} s   ({total:4.1f} s so far)")

    def notice(self, text: str) -> None:
        """Say what happened unasked."""
        self.say(f"{time.strftime('%H:%M:%S')}  {text}")

    def closing(self, description: Mapping[str, Any], kubeconfig: str, prometheus_url: str, mail: str) -> None:
        """Print where everything is and who can log in."""
        self.say()
        self.say(f"Slipway is up at {description['url']}  ({time.monotonic() - self.begun:.0f} s)")
        self.say()
        rows = [(a["username"], a["password"], a["role"], a.get("team") or "") for a in description["accounts"]]
        if rows:
            for line in table(("user", "password", "role", "team"), rows):
                self.say(f"  {line}")
            self.say()
        self.say(f"  cluster     kubectl --kubeconfig {kubeconfig} get inferenceservices,pods -A")
        self.say(f"  prometheus  {prometheus_url}")
        self.say(f"  mail        is written into {mail}")
        self.say()
        self.say("The GPUs are played by this machine; answers come from a small real model.")
        self.say("Ctrl-C stops everything.")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out `rows` below `head` in columns."""
    widths = [max(len(str(row[i])) for row in (head, *rows)) for i in range(len(head))]
    return [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, tuple("-" * width for width in widths), *rows)
    ]
