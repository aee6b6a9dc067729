"""Two roles of the database: an owner that migrates, and the one as which the site runs and which owns nothing.

Triggers keep the audit, the ledger and approvals as they were written. Who owns a table may switch its triggers off or
empty it, and who may make a table may run code in a trigger of their own; so the site's role may do neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core import checks
from django.db import connection
from psycopg import sql

# What the site only ever adds to.
APPENDED = ("deployments_event", "deployments_auditseal", "deployments_reservation", "deployments_approval")
READ = ("django_migrations",)


def give_rights(role: str, password: str = "") -> None:
    """Let `role` do what the site does and nothing more; called by the owner, after each migration.

    With a password the role is made where it is missing. A superuser takes over what the role owned so far.
    """
    name = sql.Identifier(role)
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolsuper, current_database() FROM pg_roles WHERE rolname = current_user")
        is_superuser, database = cursor.fetchone()
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
        if cursor.fetchone() is None:
            if not password:
                raise RuntimeError(f"There is no role “{role}”. Make it, or set SLIPWAY_APP_PASSWORD.")
            _run(cursor, "CREATE ROLE {} LOGIN NOSUPERUSER PASSWORD {}", name, sql.Literal(password))
        if is_superuser:
            _run(cursor, "ALTER DATABASE {} OWNER TO CURRENT_USER", sql.Identifier(database))
            _run(cursor, "REASSIGN OWNED BY {} TO CURRENT_USER", name)
        _run(cursor, "REVOKE ALL ON DATABASE {} FROM PUBLIC, {}", sql.Identifier(database), name)
        _run(cursor, "GRANT CONNECT ON DATABASE {} TO {}", sql.Identifier(database), name)
        _run(cursor, "REVOKE CREATE ON SCHEMA public FROM PUBLIC, {}", name)
        _run(cursor, "GRANT USAGE ON SCHEMA public TO {}", name)
        _run(cursor, "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, {}", name)
        _run(cursor, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}", name)
        for table in APPENDED:
            _run(cursor, "REVOKE UPDATE, DELETE ON {} FROM {}", sql.Identifier(table), name)
        for table in READ:
            _run(cursor, "REVOKE INSERT, UPDATE, DELETE ON {} FROM {}", sql.Identifier(table), name)
        _run(cursor, "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {}", name)


def after_migrations(**kwargs: Any) -> None:
    """Give the role of the settings its rights on what is there now."""
    if settings.APP_ROLE and kwargs.get("using", "default") == "default":
        give_rights(settings.APP_ROLE, settings.APP_PASSWORD)


@checks.register(checks.Tags.database)
def runs_without_ownership(databases: Sequence[str] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Warn where the site would run as a role that can undo its own audit."""
    if "default" not in (databases or ()) or settings.APP_ROLE:
        return []  # Who names the site's role is the owner, at a migration.
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.rolsuper, EXISTS (SELECT 1 FROM pg_class c WHERE c.relname = 'deployments_event'"
            " AND pg_has_role(current_user, c.relowner, 'USAGE')),"
            " has_database_privilege(current_database(), 'TEMPORARY') FROM pg_roles r WHERE r.rolname = current_user"
        )
        superuser, owner, temporary = cursor.fetchone()
    said = "is a superuser" if superuser else "owns the tables" if owner else "may make tables" if temporary else ""
    if not said:
        return []
    return [
        checks.Warning(
            f"The role of DATABASE_URL {said}: it can switch off what keeps the audit as it was written.",
            hint="Migrate as an owner with SLIPWAY_APP_ROLE, and run everything else as that role (docs/settings.md).",
            id="slipway.W001",
        )
    ]


def _run(cursor: Any, words: str, *parts: sql.Composable) -> None:
    cursor.execute(sql.SQL(words).format(*parts))
