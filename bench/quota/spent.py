"""Processor time, which says what a transaction costs also on a machine where others are at work."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg

TICKS = os.sysconf("SC_CLK_TCK")


def by_postgres(url: str) -> float:
    """Processor seconds of the server so far, connections that have ended included; it runs on this machine."""
    with psycopg.connect(url) as own:
        server = _fields(own.info.backend_pid)[1]
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    # What has ended, its parent has counted.
    return sum(_seconds(pid) for pid in children) + _seconds(server) + sum(_fields(server)[13:15]) / TICKS


def _seconds(pid: int | str) -> float:
    try:
        return sum(_fields(pid)[11:13]) / TICKS
    except FileNotFoundError:
        return 0.0  # gone between the list and the look


def _fields(pid: int | str) -> list[int]:
    """What /proc says of a process, without its name: the state as 0, then its parent; 11 and 12 are its ticks."""
    _, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [0, *map(int, numbers)]
