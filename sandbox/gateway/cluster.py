"""What the gateway knows of the cluster: reflectors of what it routes by, and the statuses it writes.

The stores stay as they are while the API server is away, so serving goes on; the reflectors list again when it
is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

import httpx

from sandbox.client import ApiError, Client, Obj, Reflector, resource_path
from sandbox.gateway.attachment import (
    CONTROLLER,
    GROUP,
    POOL_GROUP,
    Known,
    class_status,
    gateway_status,
    our_gateways,
    pool_status,
    route_status,
    served,
)
from sandbox.gateway.endpoints import Endpoint, pool_endpoints, ready_endpoints
from sandbox.gateway.routes import Backend, Rule, table

log = logging.getLogger(__name__)

API, POOL_API = f"{GROUP}/v1", f"{POOL_GROUP}/v1"
CALM = 0.05  # seconds to gather changes before statuses are looked at
RETRY_FIRST, RETRY_MOST = 0.5, 15.0
MODEL_LABEL = "serving.kserve.io/inferenceservice"
NAME_LABEL, PART_LABEL, LLM = "app.kubernetes.io/name", "app.kubernetes.io/part-of", "llminferenceservice"


class Cluster:
    """Routes, Services, pools and pods as last seen."""

    def __init__(self, client: Client, address: str = "127.0.0.1") -> None:
        self._client = client
        self._address = address
        self._routing_changed = asyncio.Event()
        self._routing_changed.set()
        self._rules: list[Rule] | None = None
        self._endpoints: dict[Backend, list[Endpoint]] = {}
        self._pods_by_namespace: dict[str, dict[str, Obj]] = {}
        self._classes = self._follow(API, "gatewayclasses", self._route_changed)
        self._gateways = self._follow(API, "gateways", self._route_changed)
        self._routes = self._follow(API, "httproutes", self._route_changed)
        self._namespaces = self._follow("v1", "namespaces", self._route_changed)
        self._services = self._follow("v1", "services", self._service_changed)
        self._pods = self._follow("v1", "pods", self._pod_changed)
        self._pools = self._follow(POOL_API, "inferencepools", self._pool_changed)  # may not be installed
        self._reflectors = [
            self._classes, self._gateways, self._routes, self._namespaces, self._services, self._pods,
        ]  # fmt: skip

    async def run(self) -> None:
        """Follow the cluster and write statuses until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in (*self._reflectors, self._pools):
                group.create_task(reflector.run())
            group.create_task(self._write_statuses())

    async def synced(self) -> None:
        """Wait until everything was listed once."""
        for reflector in self._reflectors:
            await reflector.synced.wait()

    def ready(self) -> bool:
        """Tell whether everything was listed once."""
        return all(reflector.synced.is_set() for reflector in self._reflectors)

    def rules(self) -> list[Rule]:
        """Return the rules of all routes our Gateways take, first match first."""
        if self._rules is None:
            self._rules = table(served(self._routes.store.values(), self._known()))
        return self._rules

    def endpoints(self, backend: Backend) -> list[Endpoint]:
        """Return the ready pods behind a backend."""
        if backend not in self._endpoints:
            self._endpoints[backend] = self._find_endpoints(backend)
        return self._endpoints[backend]

    def _find_endpoints(self, backend: Backend) -> list[Endpoint]:
        pods = self._pods_by_namespace.get(backend.namespace, {}).values()
        if backend.kind == "Service":
            service = self._services.store.get((backend.namespace, backend.name))
            return ready_endpoints(service, backend.port, pods) if service else []
        pool = self._pools.store.get((backend.namespace, backend.name))
        if pool is None:
            return []
        reference = pool["spec"].get("endpointPickerRef") or {}
        picker = self._services.store.get((backend.namespace, reference.get("name", "")))
        port = int((reference.get("port") or {}).get("number") or 0)
        up = picker is not None and bool(ready_endpoints(picker, port, pods))
        return pool_endpoints(pool, pods, picker=up)

    def model_name(self, rule: Rule) -> str:
        """Return the name of the service a rule leads to: KServe's label on the first backend, or the route's name."""
        for backend in rule.backends:
            store = self._services.store if backend.kind == "Service" else self._pools.store
            labels = (store.get((backend.namespace, backend.name)) or {}).get("metadata", {}).get("labels") or {}
            label = labels.get(MODEL_LABEL) or (labels.get(NAME_LABEL) if labels.get(PART_LABEL) == LLM else None)
            if label:
                return str(label)
        return rule.backends[0].name.removesuffix("-predictor") if rule.backends else rule.route

    def _follow(self, api_version: str, plural: str, on_change: Callable[[str, Obj], None]) -> Reflector:
        return Reflector(self._client, resource_path(api_version, plural), on_change=on_change)

    def _known(self) -> Known:
        return Known(
            gateways=our_gateways(self._classes.store.values(), self._gateways.store.values()),
            services=self._services.store,
            pools=self._pools.store,
            namespace_labels={
                name: item["metadata"].get("labels") or {} for (_, name), item in self._namespaces.store.items()
            },
        )

    # Changes ------------------------------------------------------------------------------------------------

    def _route_changed(self, kind: str, obj: Obj) -> None:
        self._rules = None
        self._routing_changed.set()

    def _service_changed(self, kind: str, obj: Obj) -> None:
        self._forget_endpoints(obj["metadata"]["namespace"])
        if kind != "MODIFIED":
            self._routing_changed.set()  # whether a route's backend exists is part of its status

    def _pool_changed(self, kind: str, obj: Obj) -> None:
        self._forget_endpoints(obj["metadata"]["namespace"])
        self._routing_changed.set()

    def _pod_changed(self, kind: str, obj: Obj) -> None:
        meta = obj["metadata"]
        pods = self._pods_by_namespace.setdefault(meta["namespace"], {})
        if kind == "DELETED":
            pods.pop(meta["name"], None)
        else:
            pods[meta["name"]] = obj
        self._forget_endpoints(meta["namespace"])

    def _forget_endpoints(self, namespace: str) -> None:
        for key in [key for key in self._endpoints if key.namespace == namespace]:
            del self._endpoints[key]

    # Statuses -----------------------------------------------------------------------------------------------

    async def _write_statuses(self) -> None:
        await self.synced()
        pause = RETRY_FIRST
        while True:
            await self._routing_changed.wait()
            await asyncio.sleep(CALM)
            self._routing_changed.clear()
            try:
                await self._write_all()
                pause = RETRY_FIRST
            except (ApiError, httpx.HTTPError) as error:
                log.info("statuses: %s; again in %.1f s", error or type(error).__name__, pause)
                self._routing_changed.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_MOST)

    async def _write_all(self) -> None:
        known, moment = self._known(), datetime.now(UTC)
        for item in list(self._classes.store.values()):
            if item["spec"].get("controllerName") == CONTROLLER:
                await self._write("gatewayclasses", item, class_status(item, moment))
        routes = list(self._routes.store.values())
        for route in routes:
            status = route_status(route, known, moment)
            if status is not None:
                await self._write("httproutes", route, status)
        for pool in list(self._pools.store.values()):
            status = pool_status(pool, routes, known, moment)
            if status is not None:
                await self._write("inferencepools", pool, status, POOL_API)
        for gateway in known.gateways.values():
            fresh = gateway_status(gateway, routes, known, self._address, moment)
            await self._write("gateways", gateway, fresh)

    async def _write(self, plural: str, obj: Obj, status: Obj, api: str = API) -> None:
        if obj.get("status") == status:
            return
        meta = obj["metadata"]
        path = resource_path(api, plural, meta.get("namespace"), meta["name"])
        change = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": status}
        try:
            await self._client.patch_status(path, change)
        except ApiError as error:
            if error.status not in (404, 409):  # gone or changed meanwhile: the watch brings it, and us back here
                raise
