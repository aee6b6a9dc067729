"""Where a demo keeps its things, and the secrets that it makes once."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
SECRETS = "secret_key", "postgres", "postgres_admin", "redis", "gateway"


@dataclass(frozen=True)
class Layout:
    """The paths of one data folder."""

    data: Path

    def __post_init__(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)

    def __truediv__(self, name: str) -> Path:
        return self.data / name

    @property
    def description(self) -> Path:
        return self.data / "demo.json"

    @property
    def status(self) -> Path:
        return self.data / "processes.json"

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold the folder's lock; False when another start holds it."""
        with (self.data / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def keep_mail(self) -> None:
        """Make the folder of mails, for this account alone: they hold links that let somebody in."""
        (self.data / "mail").mkdir(mode=0o700, exist_ok=True)

    def ground(self, wanted: str) -> str:
        """Keep to the ground that this folder's cluster was begun on; ValueError when that was another."""
        self.fits(wanted)
        (self.data / "ground").write_text(wanted)
        return wanted

    def fits(self, ground: str) -> None:
        """ValueError when this folder's cluster was begun on another ground. Writes nothing."""
        path = self.data / "ground"
        known = path.read_text().strip() if path.exists() else ""
        if known and known != ground:
            raise ValueError(
                f"This data belongs to a demo with CLUSTER={known}: start it so, or clear it with make demo-reset."
            )

    def secrets(self) -> dict[str, str]:
        """Return the passwords and keys of this folder, made at the first call."""
        path = self.data / "secrets.json"
        known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        missing = {name: secrets.token_hex(24) for name in SECRETS if name not in known}
        if missing:
            write_private(path, json.dumps(known | missing))
        return known | missing

    def write_environment(self, environment: Mapping[str, str]) -> None:
        """Write the environment of the portal's processes as lines that a shell can read."""
        lines = [f"{key}={shlex.quote(value)}\n" for key, value in sorted(environment.items())]
        write_private(self.data / "env", "".join(lines))

    def write_description(self, description: Mapping[str, Any]) -> None:
        """Write demo.json, by which programs find the running demo."""
        write_private(self.description, json.dumps(description, indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace `path` by a file that only its owner reads (0600)."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
