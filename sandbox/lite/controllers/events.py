"""Events for people: the same one again only counts up, and many alike become one.

As in client-go: ten events of one object and reason that differ in their text are kept, the following ones go
into a single "(combined from similar events)".
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass, field

import httpx

from sandbox.client import ApiError, Client, Obj, resource_path
from sandbox.lite.controllers.meta import now, stamp

log = logging.getLogger(__name__)

SIMILAR = 10  # events of one reason kept apart
MEMORY = 4096  # reasons remembered
COMBINED = "(combined from similar events): "


@dataclass
class _Kind:
    """What was already said about one object for one reason."""

    counts: dict[str, int] = field(default_factory=dict)  # by message; COMBINED stands for all later ones


class Recorder:
    """Writes core/v1 events; a refused event is logged and forgotten, as no work may fail for it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._said: OrderedDict[tuple[str, ...], _Kind] = OrderedDict()

    async def record(self, obj: Obj, kind: str, reason: str, message: str, source: str) -> None:
        """Say once more that `reason` happened to `obj`; `kind` is Normal or Warning."""
        said = self._remember((obj["metadata"]["uid"], kind, reason, source))
        slot, text = message, message
        if message not in said.counts and len(said.counts) >= SIMILAR - 1:
            slot, text = COMBINED, COMBINED + message
        count = said.counts.get(slot, 0) + 1
        said.counts[slot] = count
        body = event_body(obj, kind, reason, text, source, slot, count)
        try:
            await self._write(body, count)
        except (ApiError, httpx.HTTPError) as error:
            log.info("event %s of %s not written: %s", reason, obj["metadata"]["name"], error)

    async def _write(self, body: Obj, count: int) -> None:
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        events = resource_path("v1", "events", namespace)
        if count > 1:
            change = {key: body[key] for key in ("message", "count", "lastTimestamp")}
            try:
                await self._client.patch(f"{events}/{name}", change)
            except ApiError as error:
                if error.status != 404:
                    raise
            else:
                return
        try:
            await self._client.create(events, body)
        except ApiError as error:
            if error.status != 409:  # said before a restart
                raise
            change = {key: body[key] for key in ("message", "lastTimestamp")}
            await self._client.patch(f"{events}/{name}", change)

    def _remember(self, key: tuple[str, ...]) -> _Kind:
        said = self._said.setdefault(key, _Kind())
        self._said.move_to_end(key)
        while len(self._said) > MEMORY:
            self._said.popitem(last=False)
        return said


def event_body(obj: Obj, kind: str, reason: str, message: str, source: str, slot: str, count: int) -> Obj:
    """Return the Event object; its name follows from what it says, so that a restart does not say it twice."""
    meta = obj["metadata"]
    namespace = meta.get("namespace") or "default"
    digest = hashlib.sha256("\0".join((meta["uid"], kind, reason, source, slot)).encode()).hexdigest()[:16]
    moment = stamp(now())
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name'][:230]}.{digest}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "name": meta["name"],
            "uid": meta["uid"],
            "resourceVersion": meta.get("resourceVersion", ""),
            **({"namespace": meta["namespace"]} if meta.get("namespace") else {}),
        },
        "type": kind,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": source},
        "reportingComponent": source,
        "reportingInstance": "",
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": count,
    }
