"""KServe's InferenceService controller, Standard mode: makes the children, copies their state, tells events.

What the children are: kserve_children. What the status says: kserve_status. What a pod gets on top: kserve_pods.
As in KServe, pods wake the controller only when an *init* container's state changes; an engine in crash loop
does not, which is why its failure is not reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers import kserve_children as children
from sandbox.lite.controllers import kserve_pods as pods
from sandbox.lite.controllers import kserve_status as described
from sandbox.lite.controllers.hpa import AUTOSCALERS
from sandbox.lite.controllers.keda_status import SCALED_OBJECTS
from sandbox.lite.controllers.kserve_admission import STANDARD, mode_of
from sandbox.lite.controllers.kserve_config import NAME, NAMESPACE, KServeConfig, read_config
from sandbox.lite.controllers.kserve_credentials import secret_names
from sandbox.lite.controllers.kserve_runtimes import find_runtime, pod_spec
from sandbox.lite.controllers.kserve_status import SpecError
from sandbox.lite.controllers.meta import (
    Key,
    annotations_of,
    controller_ref,
    controller_uid,
    deleting,
    key_of,
    labels_of,
    now,
    uid_of,
)
from sandbox.lite.controllers.pod_owner import PodRefused
from sandbox.lite.controllers.resources import (
    CLUSTER_SERVING_RUNTIMES,
    CLUSTER_STORAGE_CONTAINERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    HTTP_ROUTES,
    INFERENCE_SERVICES,
    INGRESSES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    SERVING_RUNTIMES,
    Resource,
)
from sandbox.lite.controllers.runtime import Manager, TryAgain

SOURCE = "v1beta1Controllers"
FINALIZER = "inferenceservice.finalizers"
STOP = "serving.kserve.io/stop"
NO_ISTIO = (
    "Istio VirtualService CRD not present; VirtualService reconciliation skipped. "
    "If you do not use Istio, set ingress.disableIstioVirtualHost=true."
)
_AUTOSCALERS = {item.kind: item for item in (AUTOSCALERS, SCALED_OBJECTS)}
_ROUTED = ("Predictor", "InferenceService")
_CHILDREN = (DEPLOYMENTS, SERVICES, INGRESSES, HTTP_ROUTES, AUTOSCALERS, SCALED_OBJECTS)


class InferenceServiceController:
    """Turns InferenceServices into Deployments and back into statuses."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._recorder = manager.recorder
        self._services = manager.informer(INFERENCE_SERVICES)
        self._local_runtimes = manager.informer(SERVING_RUNTIMES)
        self._cluster_runtimes = manager.informer(CLUSTER_SERVING_RUNTIMES)
        self._containers = manager.informer(CLUSTER_STORAGE_CONTAINERS)
        self._config_maps = manager.informer(CONFIG_MAPS)
        self._accounts = manager.informer(SERVICE_ACCOUNTS)
        self._secrets = manager.informer(SECRETS)
        self._pods = manager.informer(PODS)
        self._pods.index("app", lambda pod: [f"{pod['metadata']['namespace']}/{labels_of(pod).get('app', '')}"])
        self._children = {resource: manager.informer(resource) for resource in _CHILDREN}
        self._sent: dict[tuple[str, str, str], tuple[str, str]] = {}
        self._loop = manager.controller("inferenceservice", self.reconcile)
        self._services.on_change(lambda kind, item, old: self._loop.queue.add(key_of(item)))
        for informer in self._children.values():
            informer.on_change(self._child_changed)
        for informer in (self._local_runtimes, self._cluster_runtimes):
            informer.on_change(self._runtime_changed)
        self._pods.on_change(self._pod_changed)

    # What wakes it ------------------------------------------------------------------------------------------

    def _child_changed(self, kind: str, item: Obj, old: Obj | None) -> None:
        owner = controller_ref(item)
        if owner is not None and owner["kind"] == "InferenceService":
            self._loop.queue.add((item["metadata"]["namespace"], owner["name"]))

    def _runtime_changed(self, kind: str, runtime: Obj, old: Obj | None) -> None:
        if old is not None and kind != "DELETED" and old.get("spec") == runtime.get("spec"):
            return
        name = runtime["metadata"]["name"]
        for isvc in self._services.store.values():
            wanted = (isvc["spec"].get("predictor", {}).get("model") or {}).get("runtime")
            if wanted in (None, name):
                self._loop.queue.add(key_of(isvc))

    def _pod_changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        if not pods.is_predictor(pod) or kind == "DELETED":
            return
        before = (old or {}).get("status", {}).get("initContainerStatuses")
        if before != (pod.get("status") or {}).get("initContainerStatuses"):
            name = labels_of(pod)["serving.kserve.io/inferenceservice"]
            self._loop.queue.add((pod["metadata"]["namespace"], name))

    # What it does -------------------------------------------------------------------------------------------

    async def reconcile(self, key: Key) -> float | None:
        """Make children and status of one service agree with its spec."""
        isvc = self._services.get(*key)
        if isvc is None:
            return None
        if deleting(isvc):
            await self._let_go(isvc)
            return None
        if FINALIZER not in (isvc["metadata"].get("finalizers") or []):
            isvc = await self._hold(isvc)
        config = read_config(self._config_maps.get(NAMESPACE, NAME))
        mode = mode_of(isvc, config.default_mode)
        if mode != STANDARD:
            text = "It is not possible to use Knative deployment mode when Knative Services are not available"
            await self._say(isvc, "Warning", "ServerlessModeRejected", text)
            return None
        status = isvc.get("status") or described.empty_status(mode)
        status = {**status, "deploymentMode": mode}
        if annotations_of(isvc).get(STOP) == "true":
            await self._stop(isvc, status)
            return None
        return await self._serve(isvc, status, config)

    async def _serve(self, isvc: Obj, status: Obj, config: KServeConfig) -> float | None:
        namespace = isvc["metadata"]["namespace"]
        try:
            model = isvc["spec"]["predictor"].get("model")
            if model is None:
                raise SpecError("only predictors with a model are served here", "InvalidPredictorSpec")
            pods.check_uri(model.get("storageUri"), self._containers.store.values())
            runtime = find_runtime(
                isvc,
                lambda name: self._local_runtimes.get(namespace, name),
                self._cluster_runtimes.store.values(),
                [item for item in self._local_runtimes.store.values() if key_of(item)[0] == namespace],
            )
            spec = pod_spec(isvc, runtime)
        except SpecError as error:
            await self._write(isvc, described.invalid(status, error, now()))
            await self._say(isvc, "Warning", "InternalError", str(error))
            raise TryAgain(str(error)) from error
        status = described.runtime_named(
            status, runtime["metadata"]["name"], cluster=runtime["kind"] == "ClusterServingRuntime"
        )
        try:
            hosts = children.addresses(isvc, config)
            deployment = await self._put(DEPLOYMENTS, children.deployment(isvc, runtime, spec))
            await self._put(SERVICES, children.service(isvc, runtime, spec))
            await self._scale(isvc, children.autoscaler(isvc, runtime, config))
        except SpecError as error:
            return await self._fail(isvc, status, str(error))
        except ApiError as error:
            if error.status == 409 or error.status >= 500:
                raise
            text = f"fails to reconcile predictor: {error.body.get('message', error)}"
            return await self._fail(isvc, status, text)
        return await self._observe(isvc, status, deployment, config, hosts)

    async def _observe(
        self, isvc: Obj, status: Obj, deployment: Obj, config: KServeConfig, hosts: described.Addresses
    ) -> float | None:
        namespace = isvc["metadata"]["namespace"]
        published = config.create_ingress and not children.cluster_local(isvc)
        found = self._pods.by("app", f"{namespace}/{children.app_label(isvc)}")
        look = partial(described.observed, status, deployment, found, hosts, now(), published=published)
        fresh: Obj | None = look()
        if fresh is None:
            return 1.0
        serving = _is_true(fresh, "PredictorReady")
        if published and config.gateway_api:
            fresh = look(routes=await self._routes(isvc, config, hosts, serving=serving))
            assert fresh is not None
        elif published and serving:
            await self._put(INGRESSES, children.ingress(isvc, config, hosts))
        first = "conditions" not in (isvc.get("status") or {})
        await self._write(isvc, fresh)
        if first:
            await self._say(isvc, "Warning", "VirtualServiceCRDNotFound", NO_ISTIO)
        return None

    async def _routes(
        self, isvc: Obj, config: KServeConfig, hosts: described.Addresses, *, serving: bool
    ) -> list[described.Route]:
        """Return the routes to the predictor and to the service, made when the predictor serves."""
        found: list[described.Route] = []
        for part, wanted in zip(_ROUTED, reversed(children.http_routes(isvc, config, hosts)), strict=True):
            there = self._children[HTTP_ROUTES].get(*key_of(wanted))
            found.append((part, await self._put(HTTP_ROUTES, wanted) if serving else there))
        return found

    async def _fail(self, isvc: Obj, status: Obj, message: str) -> float | None:
        await self._write(isvc, described.failed(status, message, now()))
        await self._say(isvc, "Warning", "InternalError", message)
        raise TryAgain(message)

    async def _stop(self, isvc: Obj, status: Obj) -> None:
        """Remove everything that runs; the service itself and its address stay known by name only."""
        for resource in _CHILDREN:
            for child in list(self._children[resource].store.values()):
                if controller_uid(child) == uid_of(isvc) and not deleting(child):
                    await self._remove(resource, child)
        await self._write(isvc, described.stopped(status, now()))

    async def _remove(self, resource: Resource, child: Obj) -> None:
        options = {"preconditions": {"uid": uid_of(child)}, "propagationPolicy": "Background"}
        try:
            await self._client.delete(resource.of(child), options)
        except ApiError as error:
            if error.status != 404:
                raise

    async def _hold(self, isvc: Obj) -> Obj:
        finalizers = [*(isvc["metadata"].get("finalizers") or []), FINALIZER]
        body = {**isvc, "metadata": {**isvc["metadata"], "finalizers": finalizers}}
        held = await self._client.update(INFERENCE_SERVICES.of(isvc), body)
        self._services.remember(held)
        return held

    async def _let_go(self, isvc: Obj) -> None:
        finalizers = isvc["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            return
        left = [name for name in finalizers if name != FINALIZER]
        body = {**isvc, "metadata": {**isvc["metadata"], "finalizers": left}}
        await self._client.update(INFERENCE_SERVICES.of(isvc), body)

    async def _scale(self, isvc: Obj, wanted: Obj | None) -> None:
        """Keep the autoscaler of the class. An HPA goes with the classes that want none; a ScaledObject stays."""
        if wanted is not None:
            await self._put(_AUTOSCALERS[wanted["kind"]], wanted)
            return
        there = self._children[AUTOSCALERS].get(isvc["metadata"]["namespace"], children.predictor_name(isvc))
        if there is not None and controller_uid(there) == uid_of(isvc) and not deleting(there):
            await self._remove(AUTOSCALERS, there)

    # Children -----------------------------------------------------------------------------------------------

    async def _put(self, resource: Resource, wanted: Obj) -> Obj:
        """Create a child, or replace its spec when ours changed or somebody changed theirs."""
        informer, key = self._children[resource], key_of(wanted)
        there = informer.get(*key)
        mark = (resource.plural, *key)
        digest = json.dumps(wanted, sort_keys=True)
        if there is None:
            made = await self._client.create(resource.path(key[0]), wanted)
        elif self._sent.get(mark) == (digest, _edition(there)):
            return there
        else:
            made = await self._client.update(resource.of(wanted), _replacing(there, wanted))
        informer.remember(made)
        self._sent[mark] = (digest, _edition(made))
        return made

    # Status -------------------------------------------------------------------------------------------------

    async def _write(self, isvc: Obj, status: Obj) -> None:
        before = isvc.get("status") or {}
        if described.same(before, status):
            return
        body = {**isvc, "status": status}
        self._services.remember(await self._client.update(f"{INFERENCE_SERVICES.of(isvc)}/status", body))
        was, is_now = _is_true(before, "Ready"), _is_true(status, "Ready")
        name = isvc["metadata"]["name"]
        if is_now and not was:
            await self._say(isvc, "Normal", "InferenceServiceReady", f"InferenceService [{name}] is Ready")
        elif was and not is_now:
            text = f"InferenceService [{name}] is no longer Ready"
            await self._say(isvc, "Warning", "InferenceServiceNotReady", text)

    async def _say(self, isvc: Obj, kind: str, reason: str, message: str) -> None:
        await self._recorder.record(isvc, kind, reason, message, SOURCE)


def pod_hook(manager: Manager) -> Callable[[Obj], Obj]:
    """Return the pod webhook, reading what it looks up from the informers."""
    config_maps, accounts = manager.informer(CONFIG_MAPS), manager.informer(SERVICE_ACCOUNTS)
    secrets, containers = manager.informer(SECRETS), manager.informer(CLUSTER_STORAGE_CONTAINERS)

    def complete(pod: Obj) -> Obj:
        if not pods.is_predictor(pod):
            return pod
        namespace = pod["metadata"]["namespace"]
        account = accounts.get(namespace, pod["spec"].get("serviceAccountName") or "default")
        found = [secrets.get(namespace, name) for name in secret_names(pod, account)]
        around = pods.Surroundings(
            config=read_config(config_maps.get(NAMESPACE, NAME)),
            account=account,
            secrets=[secret for secret in found if secret is not None],
            storage_containers=list(containers.store.values()),
        )
        try:
            return pods.complete(pod, around)
        except SpecError as error:
            prefix = 'admission webhook "inferenceservice.kserve-webhook-server.pod-mutator" denied the request: '
            raise PodRefused(prefix + str(error)) from error

    return complete


def _replacing(there: Obj, wanted: Obj) -> Obj:
    """Return the body of an update: our spec, labels and annotations on their identity and bookkeeping."""
    meta = {**there["metadata"], "ownerReferences": wanted["metadata"]["ownerReferences"]}
    kept = {name: text for name, text in annotations_of(there).items() if "deployment.kubernetes.io/" in name}
    meta["annotations"] = {**kept, **(wanted["metadata"].get("annotations") or {})}
    meta["labels"] = wanted["metadata"].get("labels") or {}
    spec: dict[str, Any] = dict(wanted["spec"])
    for name in ("replicas", "clusterIP", "clusterIPs"):
        if name not in spec and name in there["spec"]:
            spec[name] = there["spec"][name]
    return {**there, "metadata": meta, "spec": spec}


def _edition(obj: Obj) -> str:
    """Return what changes with the spec: its generation or, where none is counted, the spec itself."""
    return str(obj["metadata"].get("generation") or json.dumps(obj["spec"], sort_keys=True))


def _is_true(status: Obj, kind: str) -> bool:
    return any(item["type"] == kind and item["status"] == "True" for item in status.get("conditions") or [])
