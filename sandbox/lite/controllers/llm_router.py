"""The way to the engines of one LLMInferenceService, made to agree: scheduler, pool, route, addresses."""

from __future__ import annotations

from sandbox.client import Obj
from sandbox.lite.controllers import llm_routes as routes
from sandbox.lite.controllers import llm_scheduler as scheduler
from sandbox.lite.controllers import llm_status as described
from sandbox.lite.controllers import llm_workloads as workloads
from sandbox.lite.controllers.llm_config import gateway_refs, pool_ref, route_spec, workload_service
from sandbox.lite.controllers.llm_look import Look
from sandbox.lite.controllers.llm_status import STOPPED
from sandbox.lite.controllers.llm_storage import StorageError
from sandbox.lite.controllers.llm_template import child_name
from sandbox.lite.controllers.llm_writer import Failure
from sandbox.lite.controllers.meta import Key, condition
from sandbox.lite.controllers.resources import (
    CLUSTER_ROLE_BINDINGS,
    DEPLOYMENTS,
    GATEWAYS,
    HTTP_ROUTES,
    INFERENCE_POOLS,
    OLD_INFERENCE_POOLS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SERVICES,
)


class Router(Look):
    """The networking half of one look."""

    async def networking(self) -> None:
        """Make scheduler and route agree. Failure in KServe's words."""
        self._check_references()
        try:
            await self._scheduler()
        except Failure as failure:
            text = f"Failed to reconcile scheduler: {failure}"
            self.draft.mark("SchedulerWorkloadReady", ("SchedulerReconcileError", text))
            raise Failure(f"failed to reconcile scheduler: {failure}") from failure
        try:
            gateways = await self._route()
        except Failure as failure:
            text = f"Failed to reconcile HTTPRoute: {failure}"
            self.draft.mark("HTTPRoutesReady", ("HTTPRouteReconcileError", text))
            raise Failure(f"failed to reconcile HTTP routes: {failure}") from failure
        self._judge_pool(gateways)
        self._judge_gateways(gateways)
        self._judge_routes()

    def _check_references(self) -> None:
        """Every Gateway and route named must be there."""
        missing = [
            f"Gateway {namespace}/{item['name']} does not exist"
            for item in gateway_refs(self.combined)
            if self.writer.get(GATEWAYS, namespace := item.get("namespace") or self.namespace, item["name"]) is None
        ]
        self._refuse("GatewaysReady", missing)
        missing = [
            f"HTTPRoute {self.namespace}/{item['name']} does not exist"
            for item in self._route_refs()
            if self.writer.get(HTTP_ROUTES, self.namespace, item["name"]) is None
        ]
        self._refuse("HTTPRoutesReady", missing)
        missing = [
            f"Managed HTTPRoute references non-existent Gateway {namespace}/{item['name']}"
            for item in (route_spec(self.combined) or {}).get("parentRefs") or []
            if self.writer.get(GATEWAYS, namespace := item.get("namespace") or self.namespace, item["name"]) is None
        ]
        self._refuse("HTTPRoutesReady", missing)

    def _refuse(self, kind: str, missing: list[str]) -> None:
        if missing:
            self.draft.mark(kind, ("RefsInvalid", "; ".join(missing)))
            raise Failure("; ".join(missing))

    def _route_refs(self) -> list[Obj]:
        route = (self.combined.get("router") or {}).get("route") or {}
        return (route.get("http") or {}).get("refs") or []

    async def _scheduler(self) -> None:
        service, combined = self.service, self.combined
        kept = scheduler.wanted(combined) and not self.stopped
        if not kept:
            await self._no_scheduler()
            return
        name = scheduler.account_name(service, combined)
        own = child_name(service["metadata"]["name"], "-epp-sa")
        account = workloads.service_account(
            service, own, scheduler.scheduler_labels(service), self._scheduler_default()
        )
        if name == own:
            await self.writer.put(service, SERVICE_ACCOUNTS, account)
        else:
            account = self._account(name, "scheduler")
        await self.writer.put(service, CLUSTER_ROLE_BINDINGS, scheduler.auth_binding(service, name))
        await self.writer.put(service, ROLES, scheduler.role(service))
        await self.writer.put(service, ROLE_BINDINGS, scheduler.binding(service, name))
        known = self.writer.get(DEPLOYMENTS, self.namespace, scheduler.deployment_name(service))
        try:
            made = scheduler.deployment(service, combined, self._source(account), known)
        except StorageError as error:
            text = "failed to build expected scheduler deployment: "
            raise Failure(f"{text}failed to attach model artifacts to scheduler deployment: {error}") from error
        stored = await self.writer.put(service, DEPLOYMENTS, made)
        self.draft.mark("SchedulerWorkloadReady", described.scheduler_trouble(stored))
        await self.writer.put(service, SERVICES, scheduler.picker_service(service, combined))
        await self.writer.put(service, INFERENCE_POOLS, scheduler.inference_pool(service, combined))
        await self.writer.put(service, OLD_INFERENCE_POOLS, scheduler.old_inference_pool(service, combined))

    def _scheduler_default(self) -> Obj | None:
        """The scheduler inherits from the engines' account when they have one of their own."""
        named = (self.combined.get("template") or {}).get("serviceAccountName")
        return self.writer.get(SERVICE_ACCOUNTS, self.namespace, named) if named else self._default_account()

    async def _no_scheduler(self) -> None:
        service = self.service
        name = service["metadata"]["name"]
        if self.stopped:
            self.draft.mark("SchedulerWorkloadReady", STOPPED)
            self.draft.mark("InferencePoolReady", STOPPED)
        else:
            self.draft.clear("SchedulerWorkloadReady")
        for resource, suffix in (
            (SERVICE_ACCOUNTS, "-epp-sa"),
            (ROLES, "-epp-role"),
            (ROLE_BINDINGS, "-epp-rb"),
            (DEPLOYMENTS, "-kserve-router-scheduler"),
            (SERVICES, "-epp-service"),
            (INFERENCE_POOLS, "-inference-pool"),
            (OLD_INFERENCE_POOLS, "-inference-pool"),
        ):
            await self.writer.remove(service, resource, child_name(name, suffix))
        await self.writer.remove(service, CLUSTER_ROLE_BINDINGS, scheduler.auth_binding_name(service))

    async def _route(self) -> list[Key]:
        """Write or remove the route, and say where the service is reached; returns its Gateways."""
        status, name = self.draft.status, routes.route_name(self.service)
        route = (self.combined.get("router") or {}).get("route")
        if self.stopped or route is None:
            status.pop("router", None)
            status.pop("addresses", None)
            if not self.stopped:
                host = f"{workload_service(self.service)}.{self.namespace}.svc.cluster.local"
                status["addresses"] = [{"url": f"{'https' if self.world.settings.tls else 'http'}://{host}"}]
            await self.writer.remove(self.service, HTTP_ROUTES, name)
            return []
        found = [self.writer.get(HTTP_ROUTES, self.namespace, item["name"]) for item in self._route_refs()]
        used = [item for item in found if item is not None]
        if used:
            await self.writer.remove(self.service, HTTP_ROUTES, name)
        if route_spec(self.combined) is not None:
            known = self.writer.get(HTTP_ROUTES, self.namespace, name)
            wanted = routes.http_route(self.service, self.combined, known, self.world.settings)
            await self.writer.put(self.service, HTTP_ROUTES, wanted)
            used.append(wanted)
        return self._address(used)

    def _address(self, used: list[Obj]) -> list[Key]:
        status, keys, found = self.draft.status, dict[Key, Obj](), list[Obj]()
        for item in used:
            behind = []
            for reference in item["spec"].get("parentRefs") or []:
                key = routes.parent_key(reference, item)
                gateway = self.writer.get(GATEWAYS, *key)
                if gateway is not None:
                    keys[key] = gateway
                    behind.append(gateway)
            found += routes.addresses(self.service, self.model, item, behind, self.world.settings)
        found.sort(key=lambda item: str(item["url"]))
        status["addresses"] = found
        url = routes.best_url(self.service, found)
        if url is None:
            status.pop("url", None)
        else:
            status["url"] = url
        status["router"] = {**(status.get("router") or {}), "gateways": routes.observed_gateways(used)}
        return list(keys)

    def _judge_pool(self, gateways: list[Key]) -> None:
        status = self.draft.status
        if self.stopped:
            return
        if (self.combined.get("router") or {}).get("scheduler") is None:
            self.draft.clear("InferencePoolReady")
            (status.get("router") or {}).pop("scheduler", None)
            return
        if status.get("router"):
            status["router"]["scheduler"] = described.observed_pool(self.service, self.combined)
        name = pool_ref(self.combined) or child_name(self.service["metadata"]["name"], "-inference-pool")
        pool = self.writer.get(INFERENCE_POOLS, self.namespace, name)
        if pool is None:
            text = f"failed to fetch referenced Inference Pool {self.namespace}/{name}: not found"
            self.draft.mark("InferencePoolReady", ("InferencePoolFetchError", text))
            raise Failure(f"failed to evaluate Inference Pool conditions: {text}")
        old = self.writer.get(OLD_INFERENCE_POOLS, self.namespace, name)
        trouble = routes.pool_trouble(pool, gateways)
        if trouble is not None and old is not None and routes.pool_trouble(old, gateways) is None:
            trouble = None
        self.draft.mark("InferencePoolReady", trouble)

    def _judge_gateways(self, gateways: list[Key]) -> None:
        if self.stopped:
            self.draft.mark("GatewaysReady", STOPPED)
        elif not gateway_refs(self.combined):
            self.draft.clear("GatewaysReady")
        else:
            unready = [f"{key[0]}/{key[1]}" for key in gateways if not self._programmed(key)]
            text = f"The following Gateways are not ready: [{' '.join(unready)}]"
            self.draft.mark("GatewaysReady", ("GatewaysNotReady", text) if unready else None)

    def _programmed(self, key: Key) -> bool:
        gateway = self.writer.get(GATEWAYS, *key) or {}
        found = condition((gateway.get("status") or {}).get("conditions"), "Programmed")
        return found is not None and found["status"] == "True"

    def _judge_routes(self) -> None:
        route = (self.combined.get("router") or {}).get("route") or {}
        if self.stopped:
            self.draft.mark("HTTPRoutesReady", STOPPED)
            return
        if route.get("http") is None:
            self.draft.clear("HTTPRoutesReady")
            return
        names = [item["name"] for item in self._route_refs()]
        if route_spec(self.combined) is not None:
            names.append(routes.route_name(self.service))
        found = [self.writer.get(HTTP_ROUTES, self.namespace, name) for name in names]
        troubles = [text for text in (routes.route_trouble(item) for item in found if item is not None) if text]
        told = f"The following HTTPRoutes are not ready: [{' '.join(troubles)}]"
        self.draft.mark("HTTPRoutesReady", ("HTTPRoutesNotReady", told) if troubles else None)
