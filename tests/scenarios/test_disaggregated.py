"""A disaggregated deployment through its life: prefill and decode as KServe makes them of what Slipway signed."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from deployments.labels import LABEL_INSTALL
from deployments.models import AppliedObject
from deployments.services import facts, probes
from tests.scenarios.grounds import Ground, Object
from tests.scenarios.stage import Says, Stage, engine, portal_says

pytestmark = pytest.mark.django_db

KINDS = {
    "ServiceAccount",
    "NetworkPolicy",
    "LLMInferenceServiceConfig",
    "PodDisruptionBudget",
    "PodMonitor",
    "HTTPRoute",
    "LLMInferenceService",
}
CHILDREN = {"chat-kserve", "chat-kserve-prefill", "chat-kserve-router-scheduler"}
ENGINES = "chat-kserve", "chat-kserve-prefill"
# What each ground scales by, and how it calls the fewest and the most. The real one has no KEDA.
SCALERS = {
    "lite": ("ScaledObject", ("minReplicaCount", "maxReplicaCount")),
    "real": ("HorizontalPodAutoscaler", ("minReplicas", "maxReplicas")),
}
ONE_EACH = {"decode": 1, "prefill": 1, "scheduler": 1}
READY = {"Ready", "MainWorkloadReady", "PrefillWorkloadReady", "RouterReady", "PresetsCombined"}


def roles(**changes: Any) -> dict[str, Any]:
    """A wish for one pod of each role; what is not given of the usual wish is left out."""
    one = {"replicas": {"min": 1, "max": 1}, "args": {}}
    return {"strategy": "disaggregated", "prefill": one, "decode": one, "engine": engine(max_model_len=2048), **changes}


@pytest.mark.timeout(300)
def test_disaggregated_from_wish_to_answer(stage: Stage, settings: Any):
    row = stage.comes_to(stage.ask(**roles()), Says("Running"), within=90)

    assert set(AppliedObject.objects.filter(deployment=row).values_list("kind", flat=True)) == KINDS
    # The scheduler comes up by itself: nobody waits for it to call the service running.
    stage.until(row, lambda: by_role(stage) == ONE_EACH, what="a pod of each role")
    assert {item["metadata"]["name"] for item in stage.ground.list("Deployment", stage.namespace)} == CHILDREN
    # KServe's presets lie under it as the team's empty ones: what runs is what was signed.
    applied = stage.ground.read("LLMInferenceService", "chat", stage.namespace)["status"]["appliedConfigs"]
    assert {item["namespace"] for item in applied} == {stage.namespace}
    # One way in, and that is Slipway's.
    assert [item["metadata"]["name"] for item in stage.ground.list("HTTPRoute", stage.namespace)] == ["chat-slipway"]
    stage.see(lambda: conditions(stage), dict.fromkeys(READY, "True"), within=60, note="KServe says ready")
    # One GPU for each role, and one each for the pod that comes before the old one goes.
    assert (row.applied.gpus, row.applied.surge, stage.held(row)) == (2, 2, 2)

    settings.GATEWAY_URL = stage.ground.environment["GATEWAY_URL"]
    with admitting(stage.ground):
        answer = probes.ask(row)
    assert (answer["ok"], answer["model"]) == (True, "chat"), answer
    # The sidecar of decode had the prompt computed by the other role.
    assert handed_over(stage) == {"decode": True, "prefill": True}


@pytest.mark.timeout(400)
def test_disaggregated_is_scaled_changed_stopped_started_and_deleted(stage: Stage, settings: Any):
    # What a cluster scales by is decided when somebody asks, from what the watcher knows of it.
    stage.driven.until(lambda: (cluster := facts.main_cluster()) and cluster.seen_at and not cluster.trouble)
    settings.PROMETHEUS_URL = f"http://127.0.0.1:{port_of(stage.ground, 'prometheus')}"
    apart = {role: {"replicas": {"min": 1, "max": 2}, "args": {}} for role in ("prefill", "decode")}
    row = stage.running(**roles(**apart))
    assert scalers(stage) == {
        "chat-slipway-decode": ("chat-kserve", 1, 2),
        "chat-slipway-prefill": ("chat-kserve-prefill", 1, 2),
    }
    assert (row.applied.gpus, stage.held(row)) == (4, 4)  # for the most, whatever runs now

    with loaded(stage, "decode"):
        stage.until(row, lambda: by_role(stage) == {**ONE_EACH, "decode": 2}, within=90, what="one more that decodes")
    row = stage.revise(row, **roles(**apart, engine=engine(max_model_len=4096)))
    row = stage.comes_to_pass(row, lambda: stage.newest_serves(row, 2), within=120, note="change")
    # How many there are is the autoscaler's: a new revision does not set it back.
    assert [stage.ground.read("Deployment", name, stage.namespace)["spec"]["replicas"] for name in ENGINES] == [2, 1]
    stage.until(row, lambda: stage.held(row) == 4, within=30, what="the surge given back")

    row = stage.comes_to(stage.stop(row), Says("Stopped"), within=90, note="stop")
    assert stage.pods() == []
    stage.until(row, lambda: stage.held(row) == 0, what="GPUs given back")
    stage.until(row, lambda: scalers(stage) == {}, what="nothing left to scale")

    row = stage.comes_to(stage.start(row), Says("Running"), within=90, note="start")
    # The scheduler comes up by itself: nobody waits for it to call the service running.
    stage.until(row, lambda: by_role(stage) == ONE_EACH, what="a pod of each role")
    stage.until(row, lambda: stage.held(row) == 4, what="no more held than may run")
    stage.until(row, lambda: len(scalers(stage)) == 2, what="the autoscalers back")

    row = stage.delete(row)
    row = stage.until(row, lambda: stage.fresh(row).deleted_at, within=90, what="deleted")
    assert stage.held(row) == 0
    assert portal_says(row).state == "Deleted"
    assert stage.ground.list("Deployment", stage.namespace) == []
    assert scalers(stage) == {}
    # What only such deployments need goes when a pass looks at the team again.
    stage.sweep(row)
    assert stage.ground.list("LLMInferenceServiceConfig", stage.namespace) == []


def by_role(stage: Stage) -> dict[str, int]:
    """Running pods of the namespace by role."""
    found: dict[str, int] = {}
    for pod in stage.pods():
        role = pod["metadata"]["labels"].get("llm-d.ai/role", "scheduler")
        found[role] = found.get(role, 0) + (pod["status"]["phase"] == "Running")
    return found


def scalers(stage: Stage) -> dict[str, tuple[str, int, int]]:
    """The autoscalers that Slipway made, by name: what each scales, and between which numbers."""
    kind, (least, most) = SCALERS[stage.ground.name]
    found = stage.ground.list(kind, stage.namespace, LABEL_INSTALL)
    specs = {item["metadata"]["name"]: item["spec"] for item in found}
    return {name: (spec["scaleTargetRef"]["name"], spec[least], spec[most]) for name, spec in specs.items()}


@contextmanager
def loaded(stage: Stage, role: str) -> Iterator[None]:
    """Give the pods of one role more to do than one of them may have.

    The real ground has nobody who measures: there the scale is set as its autoscaler would set it.
    """
    if stage.ground.name == "real":
        stage.ground.resize("Deployment", "chat-kserve", stage.namespace, 2)
        yield
        return

    def told(query: str) -> float:
        return 12.0 if f'llm_d_ai_role="{role}"' in query and "num_requests" in query else 0.0

    class Prometheus(Quiet):
        def do_GET(self) -> None:
            [query] = parse_qs(urlsplit(self.path).query)["query"]
            value = {"metric": {}, "value": [time.time(), str(told(query))]}
            self.answer({"status": "success", "data": {"resultType": "vector", "result": [value]}})

    with serving(Prometheus, port_of(stage.ground, "prometheus")):
        yield


def conditions(stage: Stage) -> dict[str, str]:
    """What KServe says of the service: the status of each condition, and in place of False what is said about it."""
    service = stage.ground.read("LLMInferenceService", "chat", stage.namespace) or {}
    found = service.get("status", {}).get("conditions", [])
    return {
        item["type"]: item.get("message", "False") if item["status"] == "False" else item["status"] for item in found
    }


def handed_over(stage: Stage) -> dict[str, bool]:
    """By the engines' own counters: prefill answered a request, and decode took tokens from elsewhere."""
    found = {}
    for pod in stage.pods():
        role = pod["metadata"]["labels"].get("llm-d.ai/role", "")
        if role == "prefill":
            found[role] = _counted(pod, 8000, "vllm:request_success_total") > 0
        elif role == "decode":
            found[role] = _counted(pod, 8001, "vllm:prompt_tokens_by_source_total", "external_kv_transfer") > 0
    return found


def _counted(pod: Object, port: int, name: str, *labels: str) -> float:
    with urllib.request.urlopen(f"http://{pod['status']['podIP']}:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    mine = [line for line in lines if line.startswith(name) and all(label in line for label in labels)]
    return sum(float(line.rpartition(" ")[2]) for line in mine)


@contextmanager
def admitting(ground: Ground) -> Iterator[None]:
    """Play the portal, which no scenario runs, where the gateway asks it whether a caller may use a model: all may."""

    class Admits(Quiet):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.answer({})

    with serving(Admits, port_of(ground, "web")):
        yield


def port_of(ground: Ground, program: str) -> int:
    """Where a program of the demo would listen."""
    ports: dict[str, int] = json.loads((ground.data / "ports.json").read_text())
    return ports[program]


class Quiet(BaseHTTPRequestHandler):
    """Answers in JSON, and says nothing."""

    def answer(self, what: Object) -> None:
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(handler: type[Quiet], port: int) -> Iterator[None]:
    """Play a program that no scenario runs."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(5)
