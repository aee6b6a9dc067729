"""Bad input leaves the tables that hold wishes as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

TABLES = "deployment", "revision", "approval", "reservation", "quotagrant", "apitoken", "membership", "team"


@contextmanager
def nothing_written(demo: dict[str, Any]) -> Iterator[None]:
    """Fail when a wish, a grant, a token or anything else of the domain came or went meanwhile."""
    lines = (Path(demo["data"]) / "env").read_text().splitlines()
    url = next(line for line in lines if line.startswith("DATABASE_URL=")).partition("=")[2].strip("'\"")
    with psycopg.connect(url, autocommit=True) as database:
        before = _counts(database)
        yield
        assert _counts(database) == before


def _counts(database: psycopg.Connection[Any]) -> dict[str, int]:
    query = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM deployments_{table}" for table in TABLES)
    return dict(database.execute(query.encode()).fetchall())
