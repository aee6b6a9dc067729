"""The API server as a raw ASGI application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from sandbox.lite import applying, discovery, errors, reading, removing, reviews, subresources, writing
from sandbox.lite.cluster import Cluster
from sandbox.lite.faults import ConnectionDropped, Faults
from sandbox.lite.logs import Logs
from sandbox.lite.replies import Reply
from sandbox.lite.requests import Request, parse
from sandbox.lite.resources import Resource

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Handler = Callable[[Cluster, Resource, Request], Reply]

BODY_LIMIT = 3 * 1024 * 1024
MAIN: dict[str, Handler] = {
    "get": reading.get,
    "list": reading.list_,
    "watch": reading.watch,
    "create": writing.create,
    "update": writing.update,
    "patch": applying.patch_object,
    "delete": removing.delete,
    "deletecollection": removing.delete_collection,
}
STATUS: dict[str, Handler] = {"get": reading.get, "update": writing.update, "patch": applying.patch_object}
SUBRESOURCES: dict[str, dict[str, Handler]] = {
    "status": STATUS,
    "finalize": {"update": writing.update},
    "ephemeralcontainers": STATUS,
    "scale": {"get": subresources.scale, "update": subresources.scale, "patch": subresources.scale},
    "binding": {"create": subresources.bind},
    "eviction": {"create": subresources.evict},
    "token": {"create": subresources.token},
}


class ApiServer:
    """Answers requests about one cluster."""

    def __init__(self, cluster: Cluster, faults: Faults | None = None) -> None:
        self.cluster = cluster
        self.faults = faults or Faults()
        self.logs = Logs()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request = parse(scope["method"], scope["path"], scope["query_string"].decode(), headers)
        try:
            body = await _body(receive)
            if body is None:
                return
            request.body = body
            if scope.get("in_process"):
                reply = await self.answer(request)
            else:
                reply = await self.faults.before(request) or await self.answer(request)
                reply = await self.faults.after(request, reply)
        except errors.StatusError as error:
            reply = Reply.error(error)
        except ConnectionDropped:
            await _drop(receive, send)
            return
        await _send(reply, receive, send, headless=scope["method"] == "HEAD")

    async def answer(self, request: Request) -> Reply:
        """Authenticate, authorise and carry out one request; what it was warned of goes along, refusals too."""
        reply = await self._answer(request)
        if request.warnings:
            reply.warnings = [f'299 - "{_quoted(text)}"' for text in request.warnings]
        return reply

    async def _answer(self, request: Request) -> Reply:
        cluster = self.cluster
        try:
            request.user = cluster.authorizer.authenticate(cluster.tokens, request)
            cluster.authorizer.check(request)
            if not request.resource:
                if request.method not in ("GET", "HEAD"):
                    raise errors.method_not_allowed()
                return discovery.answer(cluster, request)
            resource = cluster.resource(request)
            if request.subresource == "log" and resource.storage_key == "/pods" and request.verb == "get":
                return await self.logs.read(cluster, resource, request)
            return _handler(resource, request)(cluster, resource, request)
        except errors.StatusError as error:
            return Reply.error(error)
        except Exception:
            log.exception("%s %s", request.method, request.path)
            return Reply.error(errors.internal("Internal error occurred: see the log of the API server"))

    async def close(self) -> None:
        """Close what was opened for requests."""
        await self.logs.close()


def _handler(resource: Resource, request: Request) -> Handler:
    if resource.plural.endswith("reviews") and resource.group.startswith("auth"):
        if request.verb != "create":
            raise errors.method_not_allowed()
        return lambda cluster, _, asked: reviews.review(cluster, asked)
    if resource.plural == "bindings" and request.verb == "create":
        return subresources.bind
    handlers = MAIN
    if request.subresource:
        if request.subresource not in resource.subresources:
            raise _no_subresource(resource, request)
        handlers = SUBRESOURCES.get(request.subresource, {})
    handler = handlers.get(request.verb)
    if handler is None or (request.verb == "create" and request.name and not request.subresource):
        raise errors.method_not_allowed()
    return handler


def _no_subresource(resource: Resource, request: Request) -> errors.StatusError:
    """404. Custom resources are served by one handler for every path below them: it misses the object, not the path."""
    custom = resource.crd is not None
    return errors.not_found(resource.group, resource.plural, request.name) if custom else errors.unknown_path()


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


async def _body(receive: Receive) -> bytes | None:
    """Return the whole body; None when the client went away before it was sent."""
    parts = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_LIMIT:
            text = f"Request entity too large: limit is {BODY_LIMIT}"
            raise errors.StatusError(413, "RequestEntityTooLarge", text)
        if not message.get("more_body"):
            return b"".join(parts)


async def _send(reply: Reply, receive: Receive, send: Send, *, headless: bool) -> None:
    headers = [(b"content-type", reply.content_type.encode()), (b"cache-control", b"no-cache, private")]
    more = [*reply.headers.items(), *(("Warning", text) for text in reply.warnings)]
    headers += [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in more]
    if reply.stream is None:
        headers.append((b"content-length", str(len(reply.body)).encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if headless else reply.body})
        return
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    # an empty piece makes the server send the headers at once: clients wait for them
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    pump = asyncio.create_task(_pump(reply, send))
    gone = asyncio.create_task(_disconnected(receive))
    done, pending = await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    if pump in done:
        pump.result()


async def _drop(receive: Receive, send: Send) -> None:
    """Close the connection without an answer. ASGI has no word for it: uvicorn's own object is reached for."""
    send.__self__.transport.abort()  # type: ignore[attr-defined]
    await _disconnected(receive)


async def _pump(reply: Reply, send: Send) -> None:
    assert reply.stream is not None
    async for piece in reply.stream:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
