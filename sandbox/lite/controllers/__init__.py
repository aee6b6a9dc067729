"""The controllers of the lite cluster. Each is an ordinary API client; together they are what a real cluster's
controller manager, scheduler and KServe do, as far as the portal meets it.

Where a rule lives (pure modules decide, the loops beside them act):

| subject | decides | acts |
| --- | --- | --- |
| Deployment → ReplicaSet | `deployment_plan`, `deployment_status` | `deployment` |
| ReplicaSet → Pod | `replicaset` (functions) | `replicaset` |
| where a pod runs, and why it does not | `scheduling` | `scheduler` |
| silent nodes, taints, evictions, orphaned pods | `node_health` | `nodes` |
| HorizontalPodAutoscaler: what a metric asks for | `hpa_replicas` | `hpa_reading`, `hpa_metrics` |
| HorizontalPodAutoscaler: what is done and told | `hpa_limits`, `hpa_status`, `hpa_admission` | `hpa` |
| ScaledObject: webhook | `keda_admission` | the API server |
| ScaledObject: its autoscaler | `keda_objects`, `keda_triggers` | `keda` |
| ScaledObject: polls, zero, fallback | `keda_decision`, `keda_fallback` | `keda_poll`, `keda_scalers`, `keda_status` |
| what nobody owns any more | `garbage` | `garbage` |
| birth and death of namespaces | | `namespaces` |
| when a claim may go | | `claims` |
| claims and volumes that belong together | `volumes` (functions) | `volumes` |
| Job → Pod | `job` (functions) | `job` |
| PodDisruptionBudget status | `disruption` (functions) | `disruption` |
| InferenceService: webhooks | `kserve_admission` | the API server, through ADMISSION |
| InferenceService: runtime and pod spec | `kserve_runtimes` | `kserve` |
| InferenceService: children | `kserve_children` | `kserve` |
| InferenceService: status, with its lies | `kserve_status`, `kserve_conditions` | `kserve` |
| LLMInferenceService: webhooks | `llm_admission` | the API server, through ADMISSION |
| LLMInferenceService: presets, template language, merging | `llm_config`, `llm_template`, `llm_merge` | `llm` |
| LLMInferenceService: engines and their model | `llm_workloads`, `llm_storage`, `llm_certificates` | `llm_engines` |
| LLMInferenceService: scheduler, pool, route, addresses | `llm_scheduler`, `llm_routes` | `llm_router` |
| LLMInferenceService: status | `llm_status`, `llm_routes` | `llm` |
| LeaderWorkerSet → StatefulSets, and its pods' webhook | `lws_plan`, `lws_rollout`, `lws_admission` | `lws` |
| StatefulSet → Pod | `statefulset_plan` | `statefulset` |
| predictor pods: storage initializer, credentials | `kserve_pods`, `kserve_credentials` | `kserve.pod_hook` |

`runtime` holds informers, work queue and loop; `events` the event recorder; `meta` and `resources` small helpers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sandbox.client import Client, Obj
from sandbox.lite.controllers import kserve_admission
from sandbox.lite.controllers.claims import ClaimProtection
from sandbox.lite.controllers.deployment import DeploymentController
from sandbox.lite.controllers.disruption import DisruptionController
from sandbox.lite.controllers.garbage import GarbageCollector
from sandbox.lite.controllers.hpa import HorizontalPodAutoscalerController
from sandbox.lite.controllers.hpa_metrics import Metrics
from sandbox.lite.controllers.job import JobController
from sandbox.lite.controllers.keda import ScaledObjectController
from sandbox.lite.controllers.kserve import InferenceServiceController, pod_hook
from sandbox.lite.controllers.llm import LLMInferenceServiceController
from sandbox.lite.controllers.lws import LeaderWorkerSetController
from sandbox.lite.controllers.lws_plan import complete_pod
from sandbox.lite.controllers.namespaces import NamespaceController
from sandbox.lite.controllers.nodes import NodeController
from sandbox.lite.controllers.replicaset import ReplicaSetController
from sandbox.lite.controllers.runtime import Manager
from sandbox.lite.controllers.scaling import REAL_TIME, Scaling
from sandbox.lite.controllers.scaling_prometheus import Prometheus
from sandbox.lite.controllers.scheduler import Scheduler
from sandbox.lite.controllers.statefulset import StatefulSetController
from sandbox.lite.controllers.volumes import VolumeBinder

Admission = tuple[Callable[[Obj], Obj], Callable[[Obj, Obj | None], list[str]]]

# By (group, plural): what completes an object before it is stored, and what says why it is refused.
ADMISSION: dict[tuple[str, str], Admission] = {
    ("serving.kserve.io", "inferenceservices"): (kserve_admission.default, kserve_admission.validate),
}


async def start(client: Client, *, authority: str = "", scaling: Scaling = REAL_TIME) -> list[asyncio.Task[None]]:
    """Start all controllers; cancel the tasks to stop them. `authority` is the CA pods are given, as PEM."""
    manager = Manager(client)
    DeploymentController(manager)
    ReplicaSetController(manager, [pod_hook(manager)])
    StatefulSetController(manager, [pod_hook(manager), complete_pod])
    JobController(manager)
    Scheduler(manager)
    NodeController(manager)
    GarbageCollector(manager)
    NamespaceController(manager, authority)
    DisruptionController(manager)
    ClaimProtection(manager)
    VolumeBinder(manager)
    InferenceServiceController(manager)
    LLMInferenceServiceController(manager)
    LeaderWorkerSetController(manager)
    prometheus = Prometheus(scaling.prometheus_url)
    metrics = Metrics(prometheus)
    HorizontalPodAutoscalerController(manager, scaling, metrics)
    metrics.source = ScaledObjectController(manager, scaling, prometheus).scalers.external
    return manager.start()
