"""Watches the cluster, answers /metrics as kube-state-metrics does, and writes what Prometheus is to scrape."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import orjson

from sandbox.asgi import Receive, Request, Scope, Send, send_answer, text_answer
from sandbox.client import Client, Reflector, resource_path
from sandbox.metrics import kube_state
from sandbox.metrics.exposition import CONTENT_TYPE
from sandbox.metrics.rules import RuleFolder, write_by_rename
from sandbox.metrics.targets import Target, kube_state_target, limits, node_targets, pod_targets

log = logging.getLogger(__name__)

Obj = dict[str, Any]
QUIET = 0.25  # seconds of calm awaited, so that a burst of events is one file
RETRY = 5.0
WATCHED = {
    "pods": resource_path("v1", "pods"),
    "nodes": resource_path("v1", "nodes"),
    "quotas": resource_path("v1", "resourcequotas"),
    "deployments": resource_path("apps/v1", "deployments"),
    "monitors": resource_path("monitoring.coreos.com/v1", "podmonitors"),
    "rules": resource_path("monitoring.coreos.com/v1", "prometheusrules"),
}
DISCOVERY = "pods", "nodes", "monitors"


class Metrics:
    """Plays kube-state-metrics and prometheus-operator for one cluster and one Prometheus."""

    def __init__(self, client: Client, *, targets: Path, rules: Path, prometheus_url: str, address: str) -> None:
        self.targets = targets
        self.address = address
        self._dirty = {"targets": asyncio.Event(), "rules": asyncio.Event()}
        self.reflectors = {
            name: Reflector(client, path, on_change=self._marker(name)) for name, path in WATCHED.items()
        }
        self._http = httpx.AsyncClient(base_url=prometheus_url, timeout=15.0, trust_env=False)
        self.rules = RuleFolder(rules, self._reload)
        self._said: set[str] = set()
        (targets / "honor").mkdir(parents=True, exist_ok=True)

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for reflector in self.reflectors.values():
                tasks.create_task(reflector.run())
            tasks.create_task(self._keep_targets())
            tasks.create_task(self._keep_rules())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer /metrics and /healthz."""
        request = Request(scope, receive)
        if request.path == "/metrics":
            await send_answer(send, text_answer(self.page(), content_type=CONTENT_TYPE))
        elif request.path == "/healthz":
            synced = all(reflector.synced.is_set() for reflector in self.reflectors.values())
            await send_answer(send, text_answer("ok" if synced else "not synced yet", 200 if synced else 503))
        else:
            await send_answer(send, text_answer("not found", 404))

    def page(self) -> str:
        """Return the metrics of the objects as they are now."""
        return kube_state.page(**{name: self._all(name) for name in ("pods", "nodes", "deployments", "quotas")})

    def write_targets(self) -> None:
        """Write the target files that changed."""
        monitors = self._all("monitors")
        found, wrong = pod_targets(monitors, self._all("pods"))
        found += node_targets(self._all("nodes"))
        self._write("discovered.json", [target for target in found if not target.honor_labels])
        own = kube_state_target(self.address)
        self._write("honor/discovered.json", [own, *(target for target in found if target.honor_labels)])
        for name, complaint in wrong.items():
            self._say_once(f"PodMonitor {name} yields no targets: {complaint}")
        for monitor in monitors:
            for key in limits(monitor):
                meta = monitor["metadata"]
                self._say_once(f"PodMonitor {meta['namespace']}/{meta['name']}: {key} is not carried out here")

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.warning("%s", text)

    def _write(self, name: str, targets: list[Target]) -> None:
        path = self.targets / name
        content = orjson.dumps([target.group() for target in targets], option=orjson.OPT_INDENT_2)
        if not path.exists() or path.read_bytes() != content:
            write_by_rename(path, content)
            log.info("%s: %d targets", name, len(targets))

    async def _keep_targets(self) -> None:
        for name in DISCOVERY:
            await self.reflectors[name].synced.wait()
        while True:
            self.write_targets()
            await self._calm("targets")

    async def _keep_rules(self) -> None:
        await self.reflectors["rules"].synced.wait()
        while True:
            try:
                await self.rules.sync(list(self._all("rules")))
            except httpx.HTTPError as error:
                log.warning("Prometheus does not reload: %s", error or type(error).__name__)
                await asyncio.sleep(RETRY)
                continue
            await self._calm("rules")

    async def _reload(self) -> str | None:
        answer = await self._http.post("/-/reload")
        return None if answer.is_success else answer.text.strip()

    async def _calm(self, what: str) -> None:
        """Wait for a change, then until no more came for a moment."""
        event = self._dirty[what]
        await event.wait()
        await asyncio.sleep(QUIET)
        event.clear()

    def _marker(self, name: str) -> Any:
        event = self._dirty["rules" if name == "rules" else "targets"]
        return (lambda kind, obj: event.set()) if name in (*DISCOVERY, "rules") else None

    def _all(self, name: str) -> list[Obj]:
        return list(self.reflectors[name].store.values())
