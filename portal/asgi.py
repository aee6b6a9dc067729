"""Pages, REST and the streams below /live/, for an ASGI server."""

from __future__ import annotations

import os
from typing import Any, cast

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

pages = get_asgi_application()

from portal.live.app import LiveApp  # noqa: E402 - its modules read settings that the line above has loaded
from portal.live.http import Receive, Scope, Send  # noqa: E402

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
        await pages(dict(scope), receive, cast(Any, send))
