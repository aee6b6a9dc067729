"""Trouble on demand: hooks that tests set to break requests on their way in or out.

The cluster's own controllers are spared: what is tested is how others take it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.lite import errors
from sandbox.lite.replies import Reply
from sandbox.lite.requests import Request


class ConnectionDropped(Exception):
    """Raised inside the server to close a connection without an answer."""


@dataclass(frozen=True)
class Fault:
    """What happens to a request: a delay in seconds, then a drop or an error status."""

    delay: float = 0.0
    drop: bool = False
    status: int = 0
    reason: str = ""
    message: str = "injected fault"
    retry_after: int | None = None


Hook = Callable[[Request], Fault | None]


class Faults:
    """Two hooks: `before` a request is carried out, and `after` it was (the client never learns that it was)."""

    def __init__(self) -> None:
        self.before_hook: Hook | None = None
        self.after_hook: Hook | None = None

    def clear(self) -> None:
        """Stop all trouble."""
        self.before_hook = self.after_hook = None

    async def before(self, request: Request) -> Reply | None:
        """Return an error in place of an answer, or None to carry on."""
        return await self._meet(self.before_hook, request)

    async def after(self, request: Request, reply: Reply) -> Reply:
        """Return the answer, or an error in its place."""
        return await self._meet(self.after_hook, request) or reply

    async def _meet(self, hook: Hook | None, request: Request) -> Reply | None:
        fault = hook(request) if hook else None
        if fault is None:
            return None
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.drop:
            raise ConnectionDropped(request.path)
        if not fault.status:
            return None
        reason = fault.reason or {429: "TooManyRequests", 503: "ServiceUnavailable"}.get(fault.status, "InternalError")
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        return Reply.error(errors.StatusError(fault.status, reason, fault.message, headers=headers))
