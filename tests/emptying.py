"""Empties the database after a test that committed: only tables that hold something, at a tenth of Django's `flush`."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.apps import apps
from django.db import connection
from django.test import TransactionTestCase

# What migrations make and no test changes: `flush` would make it anew each time.
KEPT = {"django_content_type", "auth_permission"}
_flush = TransactionTestCase._fixture_teardown  # type: ignore[attr-defined]


def install() -> None:
    """Have Django's test case empty tables this way."""
    TransactionTestCase._fixture_teardown = empty  # type: ignore[attr-defined]


@cache
def _tables() -> list[str]:
    models = apps.get_models(include_auto_created=True)
    return sorted({model._meta.db_table for model in models if model._meta.managed} - KEPT)


def empty(case: Any) -> None:
    """Empty the tables after a test case."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT usesuper FROM pg_user WHERE usename = current_user")
        if cursor.fetchone() != (True,):  # a server from outside: Django's way takes no rights but the owner's
            return _flush(case)
        cursor.execute(" UNION ALL ".join(f"(SELECT '{name}' FROM \"{name}\" LIMIT 1)" for name in _tables()))
        held = [name for (name,) in cursor.fetchall()]
        # No trigger and no foreign key looks: with the rows of all tables goes all that they could guard.
        deleted = "".join(f'DELETE FROM "{name}"; ' for name in held)
        cursor.execute(f"BEGIN; SET LOCAL session_replication_role = replica; {deleted}COMMIT")
    return None
