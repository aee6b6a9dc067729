"""Objects in SQLite, with one global resourceVersion and a bounded log of changes.

Everything is kept in memory as well, so reads never touch the disk. A write is one SQLite transaction in WAL mode:
it survives a killed process. The change log lets watches resume, after a restart too; a watch from before its
oldest entry gets 410.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

Obj = dict[str, Any]
Key = tuple[str, str]  # namespace ("" when cluster-wide) and name

LOG_LENGTH = 4096
TRIM_EVERY = 512

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, rv INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (
    rv INTEGER PRIMARY KEY, type TEXT NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL, previous BLOB
);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass
class Stored:
    """One object: decoded for reading (never change it in place) and encoded for sending."""

    obj: Obj
    body: bytes
    rv: int


@dataclass
class Change:
    """One entry of the log. `previous` is the object before, None when it was created."""

    rv: int
    type: str
    kind: str
    obj: Obj
    body: bytes
    previous: Obj | None
    encoded: dict[tuple[Any, ...], bytes] = field(default_factory=dict)


class Storage:
    """All objects of the cluster. Not thread-safe: one event loop owns it."""

    def __init__(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._kinds: dict[str, dict[Key, Stored]] = {}
        self._listeners: list[Callable[[Change], None]] = []
        self._since_trim = 0
        for kind, namespace, name, rv, body in self._db.execute("SELECT kind, namespace, name, rv, body FROM objects"):
            self._kinds.setdefault(kind, {})[namespace, name] = Stored(orjson.loads(body), body, rv)
        self.rv = int(self.meta("rv") or 1)
        self.compacted = int(self.meta("compacted") or 0)

    def meta(self, key: str) -> str | None:
        """Return a value kept beside the objects."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def set_meta(self, key: str, value: str) -> None:
        """Keep a value beside the objects."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def get(self, kind: str, namespace: str, name: str) -> Stored | None:
        """Return one object."""
        return self._kinds.get(kind, {}).get((namespace, name))

    def all(self, kind: str, namespace: str = "") -> list[Stored]:
        """Return the objects of one kind in order of namespace and name; of all namespaces when it is empty."""
        kept = self._kinds.get(kind, {})
        keys = sorted(key for key in kept if not namespace or key[0] == namespace)
        return [kept[key] for key in keys]

    def kinds(self) -> list[str]:
        """Return the kinds of which there is an object."""
        return [kind for kind, kept in self._kinds.items() if kept]

    def put(self, kind: str, obj: Obj) -> Stored:
        """Create or replace an object under the next resourceVersion and tell the listeners."""
        key = _key(obj)
        before = self._kinds.get(kind, {}).get(key)
        rv = self.rv + 1
        obj["metadata"]["resourceVersion"] = str(rv)
        stored = Stored(obj, orjson.dumps(obj), rv)
        change = Change(rv, "MODIFIED" if before else "ADDED", kind, obj, stored.body, before.obj if before else None)
        self._commit(
            change,
            before,
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)",
            (kind, *key, rv, stored.body),
        )
        self._kinds.setdefault(kind, {})[key] = stored
        self._tell(change)
        return stored

    def remove(self, kind: str, obj: Obj) -> Obj:
        """Remove an object; returns its last state, under the resourceVersion of the removal."""
        key = _key(obj)
        before = self._kinds[kind][key]
        rv = self.rv + 1
        last = obj | {"metadata": obj["metadata"] | {"resourceVersion": str(rv)}}
        change = Change(rv, "DELETED", kind, last, orjson.dumps(last), before.obj)
        self._commit(change, before, "DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?", (kind, *key))
        del self._kinds[kind][key]
        self._tell(change)
        return last

    def reread(self, kind: str, complete: Callable[[Obj], None]) -> None:
        """Complete all objects of a kind as decoding them anew would: their resourceVersion stays, nobody is told."""
        kept = self._kinds.get(kind, {})
        for key, stored in kept.items():
            obj = orjson.loads(stored.body)
            complete(obj)
            if obj != stored.obj:
                kept[key] = Stored(obj, orjson.dumps(obj), stored.rv)

    def changes(self, kind: str, since: int) -> Iterator[Change]:
        """Return the changes of one kind after a resourceVersion, oldest first."""
        rows = self._db.execute(
            "SELECT rv, type, body, previous FROM changes WHERE rv > ? AND kind = ? ORDER BY rv", (since, kind)
        ).fetchall()
        for rv, type_, body, previous in rows:
            yield Change(rv, type_, kind, orjson.loads(body), body, orjson.loads(previous) if previous else None)

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` after each committed change."""
        self._listeners.append(listener)

    def compact(self, keep: int = LOG_LENGTH) -> None:
        """Forget all but the newest `keep` changes."""
        oldest = self.rv - keep
        if oldest > self.compacted:
            with self._transaction():
                self._db.execute("DELETE FROM changes WHERE rv <= ?", (oldest,))
                self.set_meta("compacted", str(oldest))
            self.compacted = oldest

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def _commit(self, change: Change, before: Stored | None, statement: str, values: tuple[Any, ...]) -> None:
        with self._transaction():
            self._db.execute(statement, values)
            self._db.execute(
                "INSERT INTO changes VALUES (?, ?, ?, ?, ?)",
                (change.rv, change.type, change.kind, change.body, before.body if before else None),
            )
            self.set_meta("rv", str(change.rv))
        self.rv = change.rv

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def _tell(self, change: Change) -> None:
        self._since_trim += 1
        if self._since_trim >= TRIM_EVERY:
            self._since_trim = 0
            self.compact()
        for listener in self._listeners:
            listener(change)


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("ROLLBACK" if kind else "COMMIT")


def _key(obj: Obj) -> Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
