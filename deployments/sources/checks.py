"""Typed results of looking a source up: what is there, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from deployments.engine.facts import ModelFacts


class SourceCode(StrEnum):
    """How looking a source up ended."""

    FOUND = "found"
    GATED = "gated"
    NOT_FOUND = "not_found"
    BAD_TOKEN = "bad_token"  # noqa: S105 - a result, no secret
    UNREACHABLE = "unreachable"
    UNUSABLE = "unusable"


@dataclass(frozen=True)
class SourceCheck:
    """The result of looking a source up; `model` is there when something was learnt about it."""

    code: SourceCode
    message: str
    remedy: str = ""
    model: ModelFacts | None = None

    @property
    def found(self) -> bool:
        """True when the cluster can be expected to load this source."""
        return self.code is SourceCode.FOUND


@dataclass(frozen=True)
class Reply:
    """An answer of a hub: status and decoded JSON, headers in lower case. Status 0 means no answer."""

    status: int
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
