"""Logs of a deployment's pods: the end of one, or one as it is written. Read with the read-only account of `live`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from django.conf import settings

from deployments.kube.account import has_account
from deployments.kube.errors import ClusterError
from deployments.kube.logs import LogSource
from deployments.labels import ENGINE_CONTAINER, ENGINE_CONTAINERS
from deployments.models import Deployment
from deployments.services import states
from portal.live.callers import Caller
from portal.live.database import in_database
from portal.live.http import (
    Receive,
    Refused,
    Scope,
    Send,
    event,
    header_of,
    query_of,
    send_bytes,
    send_json,
    send_stream,
)

MOST_LINES = 20_000
DEFAULT_LINES = 500
FOLLOW_FROM = 200
# One event carries what came within this time: a chatty engine must not cost an event per line.
GATHER_SECONDS = 0.1
LONGEST_LINE = 8_000
SWITCH = {"1": True, "true": True, "0": False, "false": False}


class Source(Protocol):
    """What reads logs: the cluster, or a test."""

    async def tail(self, namespace: str, pod: str, container: str, *, previous: bool, lines: int) -> str:
        """The last lines; raises ClusterError."""
        ...

    def follow(self, namespace: str, pod: str, container: str, *, lines: int) -> AsyncIterator[str]:
        """Lines as they are written, after the last `lines`; raises ClusterError."""
        ...


@dataclass(frozen=True)
class Place:
    """One container's log."""

    namespace: str
    pod: str
    container: str
    name: str


class LogReader:
    """Serves the addresses of logs."""

    def __init__(self, source: Source | None = None) -> None:
        self._source = source

    async def follow(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        caller: Caller,
        pk: int,
        *,
        over: asyncio.Event,
        last: bytes,
    ) -> None:
        """Send lines as they are written, until the log ends or the caller's right to read it (`over`)."""
        query = query_of(scope, "pod", "container")
        place = await in_database(place_of, caller, pk, query.get("pod", ""), query.get("container", ""))
        await send_stream(receive, send, self._following(place), over=over, last=last)

    async def serve(self, scope: Scope, receive: Receive, send: Send, caller: Caller, pk: int) -> None:
        """Send the end of a log; a caller who may not see the deployment gets 404."""
        query = query_of(scope, "pod", "container", "previous", "tail", "download")
        previous, download = _switch(query, "previous"), _switch(query, "download")
        lines = _lines(query)
        place = await in_database(place_of, caller, pk, query.get("pod", ""), query.get("container", ""))
        try:
            text = await self.source.tail(place.namespace, place.pod, place.container, previous=previous, lines=lines)
        except ClusterError as error:
            raise Refused(*_refusal(error)) from None
        if scope["path"].startswith("/api/") and "text/plain" not in header_of(scope, b"accept"):
            answer = {"pod": place.pod, "container": place.container, "previous": previous, "lines": text.splitlines()}
            await send_json(send, 200, answer)
            return
        extra = []
        if download:
            extra = [(b"content-disposition", f'attachment; filename="{place.pod}-{place.container}.log"'.encode())]
        await send_bytes(send, 200, text.encode(), b"text/plain; charset=utf-8", extra)

    @property
    def source(self) -> Source:
        """The cluster, as the account of `live` sees it; Refused with 503 where none is set up."""
        if self._source is None:
            if not has_account(settings.KUBECONFIG_LIVE):
                raise Refused(503, "no_cluster", "Logs are not set up: this process has no account on the cluster.")
            self._source = LogSource(settings.KUBECONFIG_LIVE)
        return self._source

    async def _following(self, place: Place) -> AsyncIterator[bytes]:
        lines: asyncio.Queue[str | None] = asyncio.Queue(maxsize=5000)
        ending = ["— the log ended —"]

        async def read() -> None:
            try:
                async with aclosing(
                    self.source.follow(place.namespace, place.pod, place.container, lines=FOLLOW_FROM)
                ) as found:  # type: ignore[type-var]
                    async for line in found:
                        await lines.put(line[:LONGEST_LINE])
            except (ClusterError, Refused) as error:
                ending[0] = f"— {_refusal(error)[2] if isinstance(error, ClusterError) else error.message} —"
            finally:
                await lines.put(None)

        task = asyncio.ensure_future(read())
        try:
            while (first := await lines.get()) is not None:
                await asyncio.sleep(GATHER_SECONDS)
                batch, done = [first], False
                while not lines.empty() and len(batch) < 1000:
                    line = lines.get_nowait()
                    if line is None:
                        done = True
                        break
                    batch.append(line)
                yield event("lines", "\n".join(batch))
                if done:
                    break
            yield event("end", ending[0])
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def place_of(caller: Caller, pk: int, pod: str, container: str) -> Place:
    """The log that is meant: of a pod that the watcher saw for this very deployment. Runs in a database thread."""
    rows = Deployment.objects.visible_to(caller.principal).select_related("team", "status")
    row = rows.filter(pk=pk).first()
    if row is None:
        raise Refused(404, "not_found", "There is no such deployment.")
    observed = states.observed_of(row)
    pods = observed.pods if observed else ()
    newest = next((item for item in reversed(pods) if item.is_engine), None)
    chosen = next((item for item in pods if item.name == pod), None) if pod else newest
    if chosen is None:
        words = "This pod is not there any more." if pod else "There is no pod yet."
        raise Refused(404, "no_such_pod", words, pointer="?pod" if pod else "")
    names = [item.name for item in chosen.containers] or [ENGINE_CONTAINER]
    if container and container not in names:
        raise Refused(404, "no_such_container", "The pod has no such container.", pointer="?container")
    engine = next((name for name in names if name in ENGINE_CONTAINERS), names[-1])
    return Place(row.team.namespace, chosen.name, container or engine, row.name)


def _lines(query: dict[str, str]) -> int:
    """How many lines from the end are wanted."""
    text = query.get("tail")
    if text is None:
        return DEFAULT_LINES
    if not re.fullmatch("[0-9]{1,8}", text) or not 1 <= int(text) <= MOST_LINES:
        raise Refused(422, "invalid", f"“tail” must be a whole number from 1 to {MOST_LINES:,}.", pointer="?tail")
    return int(text)


def _switch(query: dict[str, str], name: str) -> bool:
    text = query.get(name, "0")
    if text not in SWITCH:
        raise Refused(422, "invalid", f"“{name}” takes one of: {', '.join(SWITCH)}.", pointer=f"?{name}")
    return SWITCH[text]


def _refusal(error: ClusterError) -> tuple[int, str, str]:
    """A cluster's refusal in words for people."""
    if error.status in {400, 404}:
        return 404, "no_log", "The cluster has no log of this container: it has not started, or its pod is gone."
    if error.status in {401, 403}:
        return 502, "cluster_refused", "The cluster does not let Slipway read this log."
    return 503, "cluster_unreachable", "The cluster cannot be reached just now."
