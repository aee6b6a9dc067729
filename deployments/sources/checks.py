"""Typed results of looking a source up: what is there, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from deployments.engine.facts import ModelFacts

LONGEST_SAID = 2000


class SourceCode(StrEnum):
    """How looking a source up ended."""

    FOUND = "found"
    GATED = "gated"
    NOT_FOUND = "not_found"
    BAD_TOKEN = "bad_token"  # noqa: S105 - a result, no secret
    UNREACHABLE = "unreachable"
    UNUSABLE = "unusable"


def plain(value: object, longest: int = 100) -> str:
    """Text of somebody else's server as far as people can read it; what is no text says nothing."""
    return "".join(char for char in value[:longest] if char.isprintable()) if isinstance(value, str) else ""


@dataclass(frozen=True)
class SourceCheck:
    """The result of looking a source up; `model` is there when something was learnt about it.

    `loads` is the address that the cluster loads, where it is another than the one asked for: a registry's entry
    resolved, a folder told from a file. Names of files stand in what is said, so it is made readable here.
    """

    code: SourceCode
    message: str
    remedy: str = ""
    model: ModelFacts | None = None
    loads: str = ""
    # Of a credential's test: what was learnt of LoRA adapters, as their facts are kept (sources.adapters).
    adapters: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)

    def __post_init__(self) -> None:
        for name in ("message", "remedy"):
            object.__setattr__(self, name, plain(getattr(self, name), LONGEST_SAID))

    @property
    def found(self) -> bool:
        """True when the cluster can be expected to load this source."""
        return self.code is SourceCode.FOUND


@dataclass(frozen=True)
class Reply:
    """An answer of a server: status and decoded JSON, headers in lower case. Status 0 means no answer."""

    status: int
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    body: bytes = b""
    # Not asked at all: no such address is called for users.
    forbidden: bool = False

    @property
    def said(self) -> str:
        """What kept an answer from being one, in a few words."""
        return f"status {self.status}" if self.status else (self.error or "no answer")[:120]


class Ask(Protocol):
    """Sends one request through the outbound door; whoever calls a source's check brings it."""

    def __call__(self, url: str, *, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        """The answer, whatever it is; never raises for what a server does."""
