"""Events about pods, counted up when they repeat."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any

import httpx

from sandbox.client import ApiError, Client, resource_path

log = logging.getLogger(__name__)

FORGET_SECONDS = 600.0


def now_text() -> str:
    """The time as objects write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class EventRecorder:
    """Writes events in the background, in order."""

    def __init__(self, client: Client, node_name: str) -> None:
        self.client = client
        self.node_name = node_name
        self._queue: asyncio.Queue[tuple[dict[str, Any], str, str, str, str | None]] = asyncio.Queue()
        self._seen: dict[tuple[str, ...], tuple[str, int, float]] = {}

    def record(self, about: dict[str, Any], kind: str, reason: str, message: str, container: str | None = None) -> None:
        """Say something about an object; `kind` is Normal or Warning, `container` names the part meant."""
        field = f"spec.{container}" if container else None
        self._queue.put_nowait((about, kind, reason, message, field))

    async def run(self) -> None:
        """Write events until cancelled."""
        while True:
            entry = await self._queue.get()
            try:
                await self._write(*entry)
            except (ApiError, httpx.HTTPError) as error:
                log.warning("event %s of %s not written: %s", entry[2], entry[0]["metadata"]["name"], error)

    async def _write(self, about: dict[str, Any], kind: str, reason: str, message: str, field: str | None) -> None:
        meta = about["metadata"]
        namespace = meta.get("namespace", "default")
        key = (meta["uid"], reason, message, field or "")
        name, count, at = self._seen.get(key, ("", 0, 0.0))
        now = time.monotonic()
        if count and now - at < FORGET_SECONDS:
            self._seen[key] = (name, count + 1, now)
            path = resource_path("v1", "events", namespace, name)
            try:
                await self.client.patch(path, {"count": count + 1, "lastTimestamp": now_text()})
                return
            except ApiError as error:
                if error.status != 404:
                    raise
        name = f"{meta['name']}.{time.time_ns():x}"
        self._forget(now)
        self._seen[key] = (name, 1, now)
        await self.client.create(
            resource_path("v1", "events", namespace), self._body(about, name, kind, reason, message, field)
        )

    def _body(
        self, about: dict[str, Any], name: str, kind: str, reason: str, message: str, field: str | None
    ) -> dict[str, Any]:
        meta = about["metadata"]
        involved = {
            "apiVersion": about.get("apiVersion", "v1"),
            "kind": about.get("kind", "Pod"),
            "name": meta["name"],
            "uid": meta["uid"],
        }
        if "namespace" in meta:
            involved["namespace"] = meta["namespace"]
        if field:
            involved["fieldPath"] = field
        stamp = now_text()
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": meta.get("namespace", "default")},
            "involvedObject": involved,
            "reason": reason,
            "message": message[:1024],
            "type": kind,
            "count": 1,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "eventTime": None,
            "source": {"component": "kubelet", "host": self.node_name},
            "reportingComponent": "kubelet",
            "reportingInstance": self.node_name,
        }

    def _forget(self, now: float) -> None:
        old = [key for key, (_, _, at) in self._seen.items() if now - at > FORGET_SECONDS]
        for key in old:
            del self._seen[key]
