"""Pages, REST and the streams below /live/, for an ASGI server."""

from __future__ import annotations

import os
from typing import Any, cast

from django.conf import settings
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

pages = get_asgi_application()

from portal import long_forms  # noqa: E402
from portal.live.app import LiveApp  # noqa: E402 - its modules read settings that the line above has loaded
from portal.live.http import Message, Receive, Scope, Send  # noqa: E402

live = LiveApp()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """One origin: streams to the small application, everything else to Django."""
    if scope["type"] == "lifespan":
        await live.lifespan(receive, send)
    elif scope["type"] == "websocket":
        # There are none here: closed before it is accepted, the server answers the upgrade with 403.
        await receive()
        await send({"type": "websocket.close", "code": 1000})
    elif scope["type"] == "http" and live.serves(scope["path"]):
        await live(scope, receive, send)
    else:
        await pages(dict(scope), bounded(receive, most_of(scope)), cast(Any, send))


def most_of(scope: Scope) -> int:
    """Bytes of a body that are read at all."""
    kind = next((value for name, value in scope["headers"] if name.lower() == b"content-type"), b"")
    cuts = long_forms.takes(scope["path"], kind.decode("latin-1"))
    return long_forms.MOST if cuts else int(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)


def bounded(receive: Receive, most: int) -> Receive:
    """A request whose body ends just above what is read: Django writes all of it to disk before it looks at its size.

    One byte more than is allowed passes, so that what was cut is refused (portal.middleware.BodyMiddleware).
    """
    left = most + 1

    async def upto() -> Message:
        nonlocal left
        message = await receive()
        while message["type"] == "http.request" and left <= 0:
            # Whoever asks on waits for the end of the connection.
            message = await receive()
        if message["type"] != "http.request":
            return message
        body = message.get("body", b"")[:left]
        left -= len(body)
        return {**message, "body": body, "more_body": left > 0 and message.get("more_body", False)}

    return upto
