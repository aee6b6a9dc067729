"""Passwords for commands: from a file, or typed twice."""

from __future__ import annotations

from getpass import getpass
from pathlib import Path

from django.core.management.base import CommandError


def password_from(file: Path | None) -> str:
    """The first line of a file, or what is typed at the terminal; CommandError when there is none."""
    if file is None:
        first = getpass("Password: ")
        if first != getpass("Password (again): "):
            raise CommandError("The passwords are not the same.")
        return first
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CommandError(f"The password cannot be read: {error}") from None
    if not lines or not lines[0]:
        raise CommandError(f"There is no password in {file}.")
    return lines[0]
