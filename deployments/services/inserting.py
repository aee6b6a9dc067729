"""New rows by a statement that is composed once per model.

Django composes it anew each time, which takes it longer than PostgreSQL takes to carry it out; lines of the audit,
notices and the ledger are written with every change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.db import connection, models

AT_ONCE = 500


@dataclass(frozen=True)
class _Shape:
    """What is sent of a row, and in `returned` what the database alone knows; `encoded` are columns of JSON."""

    into: str
    sent: tuple[str, ...]
    encoded: tuple[models.Field[Any, Any], ...]
    returned: tuple[str, ...]


def insert(rows: Sequence[models.Model], *, ignore_conflicts: bool = False) -> None:
    """Store new rows of one model, in the order given, and put on each its key and what the database filled in.

    The key is `id` and never sent, nor is what only the database has a default for. With `ignore_conflicts` rows that a
    constraint refuses are left out, and none gets its key. Nobody is sent a signal.
    """
    if not rows:
        return
    shape = _shape(type(rows[0]))
    one = f"({', '.join(['%s'] * len(shape.sent))})"
    end = "ON CONFLICT DO NOTHING" if ignore_conflicts else f"RETURNING {', '.join(map(_quoted, shape.returned))}"
    with connection.cursor() as cursor:
        for start in range(0, len(rows), AT_ONCE):
            batch = rows[start : start + AT_ONCE]
            values = [value for row in batch for value in _values(row, shape)]
            cursor.execute(f"{shape.into} VALUES {', '.join([one] * len(batch))} {end}", values)
            if ignore_conflicts:
                continue
            for row, found in zip(batch, cursor.fetchall(), strict=True):
                for name, value in zip(shape.returned, found, strict=True):
                    setattr(row, name, value)
                row._state.adding, row._state.db = False, connection.alias


@cache
def _shape(model: type[models.Model]) -> _Shape:
    key = model._meta.pk
    fields = [field for field in model._meta.concrete_fields if field is not key]
    sent = [field for field in fields if field.has_default() or not field.has_db_default()]
    columns = ", ".join(_quoted(str(field.column)) for field in sent)
    return _Shape(
        into=f"INSERT INTO {_quoted(model._meta.db_table)} ({columns})",
        sent=tuple(field.attname for field in sent),
        encoded=tuple(field for field in sent if isinstance(field, models.JSONField)),
        returned=("id", *(field.attname for field in fields if field not in sent)),
    )


def _values(row: models.Model, shape: _Shape) -> list[Any]:
    stored = row.__dict__
    json = {field.attname: field.get_db_prep_save(stored[field.attname], connection) for field in shape.encoded}
    return [json[name] if name in json else stored[name] for name in shape.sent]


def _quoted(name: str) -> str:
    return connection.ops.quote_name(name)
