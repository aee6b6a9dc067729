"""KServe's LLMInferenceService controller: when it looks, and what it writes back.

What the presets make of a spec: llm_config. The children: llm_workloads, llm_scheduler, llm_routes. One look at one
service: llm_reconcile. As in KServe, pods wake the controller only when an init container's state or an address
changes: an engine in crash loop shows as a Deployment that is not available, and its cause in the pod alone.
"""

from __future__ import annotations

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers import llm_scheduler as scheduler
from sandbox.lite.controllers.kserve_config import NAME, NAMESPACE
from sandbox.lite.controllers.llm_config import (
    PART_OF,
    CombineError,
    ConfigNotFound,
    Find,
    Settings,
    combine,
    notes,
    read_settings,
)
from sandbox.lite.controllers.llm_look import World
from sandbox.lite.controllers.llm_lora import AdapterError
from sandbox.lite.controllers.llm_reconcile import Reconciliation, is_of
from sandbox.lite.controllers.llm_status import Draft, failing
from sandbox.lite.controllers.llm_template import TemplateError
from sandbox.lite.controllers.llm_writer import Failure, Writer
from sandbox.lite.controllers.meta import (
    Key,
    annotations_of,
    controller_ref,
    deleting,
    is_true,
    key_of,
    labels_of,
    now,
)
from sandbox.lite.controllers.resources import (
    CLUSTER_ROLE_BINDINGS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    GATEWAYS,
    HTTP_ROUTES,
    INFERENCE_POOLS,
    LEADER_WORKER_SETS,
    LLM_INFERENCE_SERVICE_CONFIGS,
    LLM_INFERENCE_SERVICES,
    OLD_INFERENCE_POOLS,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from sandbox.lite.controllers.runtime import Manager, TryAgain

FINALIZER = "serving.kserve.io/llmisvc-finalizer"
STOP = "serving.kserve.io/stop"
_WATCHED = (DEPLOYMENTS, SECRETS, SERVICES, HTTP_ROUTES, INFERENCE_POOLS, OLD_INFERENCE_POOLS, LEADER_WORKER_SETS)
_UNWATCHED = (SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS, GATEWAYS)
_BY_NAME = "llm"


class LLMInferenceServiceController:
    """Turns LLMInferenceServices into their children and back into statuses."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._services = manager.informer(LLM_INFERENCE_SERVICES)
        self._configs = manager.informer(LLM_INFERENCE_SERVICE_CONFIGS)
        self._config_maps = manager.informer(CONFIG_MAPS)
        self._pods = manager.informer(PODS)
        self._pods.index(_BY_NAME, _service_of)
        children = {resource: manager.informer(resource) for resource in (*_WATCHED, *_UNWATCHED)}
        children[SERVICES].index(_BY_NAME, _service_of)
        self._fronts = children[SERVICES]
        self._writer = Writer(manager.client, manager.recorder, children)
        self._loop = manager.controller("llminferenceservice", self.reconcile)
        self._services.on_change(lambda kind, item, old: self._loop.queue.add(key_of(item)))
        for resource in _WATCHED:
            children[resource].on_change(self._child_changed)
        children[GATEWAYS].on_change(self._gateway_changed)
        self._configs.on_change(self._config_changed)
        self._config_maps.on_change(self._settings_changed)
        self._pods.on_change(self._pod_changed)

    # What wakes it ------------------------------------------------------------------------------------------

    def _child_changed(self, kind: str, item: Obj, old: Obj | None) -> None:
        owner = controller_ref(item)
        if owner is not None and owner["kind"] == "LLMInferenceService":
            self._loop.queue.add((item["metadata"]["namespace"], owner["name"]))
        elif item["kind"] == "HTTPRoute":
            for service in self._services.store.values():
                refs = (((service["spec"].get("router") or {}).get("route") or {}).get("http") or {}).get("refs") or []
                if any(reference["name"] == item["metadata"]["name"] for reference in refs):
                    self._loop.queue.add(key_of(service))

    def _gateway_changed(self, kind: str, item: Obj, old: Obj | None) -> None:
        for service in self._services.store.values():
            if (service["spec"].get("router") or {}).get("route") is not None:
                self._loop.queue.add(key_of(service))

    def _config_changed(self, kind: str, item: Obj, old: Obj | None) -> None:
        if old is not None and kind != "DELETED" and old.get("spec") == item.get("spec"):
            return
        namespace = item["metadata"]["namespace"]
        for service in self._services.store.values():
            if namespace in (NAMESPACE, service["metadata"]["namespace"]):
                self._loop.queue.add(key_of(service))

    def _settings_changed(self, kind: str, item: Obj, old: Obj | None) -> None:
        changed = old is None or old.get("data") != item.get("data")
        if key_of(item) == (NAMESPACE, NAME) and changed:
            for service in self._services.store.values():
                self._loop.queue.add(key_of(service))

    def _pod_changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        if old is None or kind == "DELETED":
            return
        before, after = (old.get("status") or {}), (pod.get("status") or {})
        if any(before.get(name) != after.get(name) for name in ("initContainerStatuses", "podIPs")):
            for name in _service_of(pod):
                namespace, _, service = name.partition("/")
                self._loop.queue.add((namespace, service))

    # What it does -------------------------------------------------------------------------------------------

    async def reconcile(self, key: Key) -> float | None:
        """Make children and status of one service agree with its spec."""
        service = self._services.get(*key)
        if service is None:
            return None
        if deleting(service):
            await self._let_go(service)
            return None
        if FINALIZER not in (service["metadata"].get("finalizers") or []):
            service = await self._hold(service)
        draft = Draft(service, now())
        try:
            await self._look(service, draft)
        except Failure as failure:
            await self._writer.say(service, "Warning", "Error", f"Reconciliation failed: {failure}")
            await self._write(service, draft.done())
            raise TryAgain(str(failure)) from failure
        await self._write(service, draft.done())
        return None

    async def _look(self, service: Obj, draft: Draft) -> None:
        settings = read_settings(self._config_maps.get(NAMESPACE, NAME))
        stopped = annotations_of(service).get(STOP) == "true"
        draft.status["annotations"] = notes(service)
        found = self._combine(service, draft, settings, stopped=stopped)
        if found is None:
            return
        spec, model = found
        name = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
        world = World(
            writer=self._writer,
            settings=settings,
            moment=draft.moment,
            pods=[pod for pod in self._pods.by(_BY_NAME, name) if is_of(service, pod)],
            services=[item for item in self._fronts.by(_BY_NAME, name) if is_of(service, item)],
        )
        await Reconciliation(service, spec, model, draft, world, stopped=stopped).take()

    def _combine(self, service: Obj, draft: Draft, settings: Settings, *, stopped: bool) -> tuple[Obj, str] | None:
        """Return the combined spec and the model's name; None when a preset is missing, which the status says."""
        try:
            made = combine(service, self._finder(LLM_INFERENCE_SERVICE_CONFIGS), self._finder(CONFIG_MAPS), settings)
        except (ConfigNotFound, CombineError, TemplateError, AdapterError) as error:
            if stopped:
                draft.mark("PresetsCombined", ("Stopped", f"Service is stopped with warning: {error}"))
                return service["spec"], service["metadata"]["name"]
            draft.status.pop("appliedConfigs", None)
            missing = isinstance(error, ConfigNotFound)
            draft.mark("PresetsCombined", ("ConfigNotFound" if missing else "CombineBaseError", str(error)))
            if missing:
                return None
            raise Failure(f"failed to combine base-configurations: {error}") from error
        draft.status["appliedConfigs"] = made.applied
        draft.mark("PresetsCombined", None)
        return made.spec, made.model_name

    def _finder(self, resource: Resource) -> Find:
        return (self._configs if resource == LLM_INFERENCE_SERVICE_CONFIGS else self._config_maps).get

    async def _hold(self, service: Obj) -> Obj:
        finalizers = [*(service["metadata"].get("finalizers") or []), FINALIZER]
        body = {**service, "metadata": {**service["metadata"], "finalizers": finalizers}}
        held = await self._client.update(LLM_INFERENCE_SERVICES.of(service), body)
        self._services.remember(held)
        return held

    async def _let_go(self, service: Obj) -> None:
        """Remove what nobody owns, then let the service go; the rest is the garbage collector's."""
        finalizers = service["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            return
        await self._writer.remove(service, CLUSTER_ROLE_BINDINGS, scheduler.auth_binding_name(service))
        left = [name for name in finalizers if name != FINALIZER]
        body = {**service, "metadata": {**service["metadata"], "finalizers": left}}
        await self._client.update(LLM_INFERENCE_SERVICES.of(service), body)

    # Status -------------------------------------------------------------------------------------------------

    async def _write(self, service: Obj, status: Obj) -> None:
        before = service.get("status") or {}
        if _bare(before) == _bare(status):
            return
        body = {**service, "status": status}
        try:
            written = await self._client.update(f"{LLM_INFERENCE_SERVICES.of(service)}/status", body)
        except ApiError as error:
            if error.status == 404:
                return
            raise
        self._services.remember(written)
        was, is_now = (is_true(item.get("conditions"), "Ready") for item in (before, status))
        name = service["metadata"]["name"]
        if is_now and not was:
            text = f"LLMInferenceService [{name}] is Ready"
            await self._writer.say(service, "Normal", "LLMInferenceServiceReady", text)
        elif was and not is_now:
            text = f"LLMInferenceService [{name}] is no longer Ready because of: {failing(status)}"
            await self._writer.say(service, "Warning", "LLMInferenceServiceNotReady", text)


def _service_of(item: Obj) -> list[str]:
    """Index pods and Services by the LLMInferenceService their labels name."""
    of = labels_of(item)
    name = of.get("app.kubernetes.io/name")
    if of.get("app.kubernetes.io/part-of") != PART_OF or not name:
        return []
    return [f"{item['metadata']['namespace']}/{name}"]


def _bare(status: Obj) -> Obj:
    items = [{k: v for k, v in item.items() if k != "lastTransitionTime"} for item in status.get("conditions", [])]
    return {**status, "conditions": items}
