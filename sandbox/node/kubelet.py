"""The node's HTTP port that the API server asks for container logs."""

from __future__ import annotations

import time
from datetime import datetime

from sandbox.asgi import (
    Answer,
    Disconnected,
    Receive,
    Request,
    Scope,
    Send,
    end_stream,
    send_answer,
    send_chunk,
    start_stream,
    text_answer,
    while_connected,
)
from sandbox.node.agent import Agent
from sandbox.node.logs import LogFile, LogQuery


class Kubelet:
    """The ASGI application."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        match request.parts:
            case ["containerLogs", namespace, pod, container] if request.method == "GET":
                await self._logs(request, send, namespace, pod, container)
            case ["healthz"]:
                await send_answer(send, text_answer("ok"))
            case _:
                await send_answer(send, text_answer("404 page not found\n", 404))

    async def _logs(self, request: Request, send: Send, namespace: str, pod: str, name: str) -> None:
        try:
            query = read_query(request.query)
        except ValueError as error:
            await send_answer(send, text_answer(f"invalid log options: {error}\n", 400))
            return
        found = self._find(namespace, pod, name, previous=query.previous)
        if isinstance(found, Answer):
            await send_answer(send, found)
            return
        await request.body()
        try:
            await while_connected(request, _send_log(found, query, send))
        except Disconnected:
            return

    def _find(self, namespace: str, pod: str, name: str, *, previous: bool) -> LogFile | Answer:
        worker = self.agent.pod(namespace, pod)
        if worker is None:
            return text_answer(f'pod "{pod}" does not exist\n', 404)
        container = worker.container(name)
        if container is None:
            return text_answer(f'container "{name}" in pod "{pod}" is not available\n', 404)
        log = container.logs.previous if previous else container.logs.current
        if log is not None:
            return log
        if previous:
            return text_answer(f'previous terminated container "{name}" in pod "{pod}" not found\n', 400)
        state = container.state.state.get("waiting")
        if state is not None:
            reason = state.get("reason", "ContainerCreating")
            text = f'container "{name}" in pod "{pod}" is waiting to start: {reason}\n'
            return text_answer(text, 400)
        return text_answer("")


def read_query(query: dict[str, str]) -> LogQuery:
    """Read the log options of a URL; ValueError for a number that is none."""
    since: float | None = None
    if query.get("sinceSeconds"):
        since = time.time() - float(query["sinceSeconds"])
    elif query.get("sinceTime"):
        since = datetime.fromisoformat(query["sinceTime"].replace("Z", "+00:00")).timestamp()
    return LogQuery(
        follow=query.get("follow", "").lower() in ("1", "true"),
        previous=query.get("previous", "").lower() in ("1", "true"),
        timestamps=query.get("timestamps", "").lower() in ("1", "true"),
        tail_lines=int(query["tailLines"]) if query.get("tailLines") else None,
        since=since,
        limit_bytes=int(query["limitBytes"]) if query.get("limitBytes") else None,
    )


async def _send_log(log: LogFile, query: LogQuery, send: Send) -> None:
    await start_stream(send, "text/plain; charset=utf-8")
    start = log.end
    left = query.limit_bytes
    chunk = b"".join(query.render(line) for line in query.select(log.lines()))
    if left is not None:
        chunk, left = chunk[:left], left - len(chunk)
    if chunk:
        await send_chunk(send, chunk)
    if query.follow:
        async for line in log.follow(start):
            if left is not None and left <= 0:
                break
            piece = query.render(line)
            if left is not None:
                piece, left = piece[:left], left - len(piece)
            await send_chunk(send, piece)
    await end_stream(send)
