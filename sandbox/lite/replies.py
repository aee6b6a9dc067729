"""Answers on their way out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from sandbox.lite.errors import StatusError

JSON = "application/json"


@dataclass
class Reply:
    """One answer: a body, or a stream of pieces."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    stream: AsyncIterator[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # each is a header of its own

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Reply:
        """Answer with a value as JSON."""
        return cls(status, orjson.dumps(value))

    @classmethod
    def error(cls, error: StatusError) -> Reply:
        """Answer with a Status object."""
        return cls(error.code, orjson.dumps(error.status()), headers=dict(error.headers))

    @classmethod
    def text(cls, text: str, status: int = 200) -> Reply:
        """Answer in plain text."""
        return cls(status, text.encode(), "text/plain; charset=utf-8")


def success(group: str, kind: str, name: str, uid: str) -> dict[str, Any]:
    """Return the Status of a finished delete."""
    details = {key: value for key, value in (("name", name), ("group", group), ("kind", kind), ("uid", uid)) if value}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
