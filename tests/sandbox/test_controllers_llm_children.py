"""The children of an LLMInferenceService, field by field against those real KServe made.

| object | compared | left out, and why |
| --- | --- | --- |
| Deployment, Service, Role, RoleBinding, ServiceAccount | everything | status, addresses, uids, times: server-made |
| HTTPRoute, InferencePool, LeaderWorkerSet | everything | the same |
| ClusterRoleBinding, old pool | name, from the events | the recording holds no such objects |

Both sides are compared after our API server's own defaults were filled in, as the recording is what a server stored.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import sandbox.lite
from sandbox import definitions
from sandbox.lite.controllers import llm_routes as routes
from sandbox.lite.controllers import llm_scheduler as scheduler
from sandbox.lite.controllers import llm_workloads as workloads
from sandbox.lite.controllers.llm_config import Combined, ConfigNotFound, Settings, combine, notes
from sandbox.lite.controllers.llm_storage import Source, StorageError
from sandbox.lite.controllers.llm_template import TemplateError, child_name, fill_in
from sandbox.lite.defaults import fill_builtin
from sandbox.lite.resources import builtin_resources, crd_resources
from sandbox.lite.structural import fill_defaults
from tests.sandbox.recordings import comparable, read

SINGLE, DISAGGREGATED, MULTI = (
    f"objects/{name}.yaml" for name in ("07-llmisvc-single-node", "08-llmisvc-pd", "21-llmisvc-multinode")
)
EVERY = [SINGLE, DISAGGREGATED, MULTI]
LITE = Path(sandbox.lite.__file__).parent
PRESETS = {item["metadata"]["name"]: item for item in json.loads((LITE / "data" / "presets.json").read_text())}
SETTINGS = Settings()
MADE_BY_SERVER = ("internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy", "sessionAffinity")


def _resources() -> dict[str, Any]:
    found = {item.kind: item for item in builtin_resources()}
    for path in definitions.of_lite():
        for item in crd_resources(json.loads(path.read_text())):
            found.setdefault(f"{item.group}/{item.version}/{item.kind}", item)
    return found


RESOURCES = _resources()


def stored(obj: dict[str, Any]) -> dict[str, Any]:
    """Return an object as our API server would store it, in comparable form."""
    whole: dict[str, Any] = json.loads(json.dumps(obj))
    own = RESOURCES.get(f"{whole['apiVersion']}/{whole['kind']}")
    if own is not None:
        fill_defaults(whole, own.schema)
    else:
        fill_builtin(RESOURCES[whole["kind"]], whole, None)
    result: dict[str, Any] = comparable(whole)
    return result


def find(namespace: str, name: str) -> dict[str, Any] | None:
    return PRESETS.get(name) if namespace == "kserve" else None


def nothing(namespace: str, name: str) -> None:
    return None


def service(recording: str) -> dict[str, Any]:
    found: dict[str, Any] = next(o for o in read(recording)["objects"] if o["kind"] == "LLMInferenceService")
    del found["status"]
    return found


def combined(recording: str) -> Combined:
    return combine(service(recording), find, nothing, SETTINGS)


def source(svc: dict[str, Any]) -> Source:
    return Source(svc["spec"]["model"]["uri"])


def theirs(recording: str, kind: str) -> dict[str, dict[str, Any]]:
    found = {}
    for item in read(recording)["objects"]:
        if item["kind"] != kind:
            continue
        item.pop("status", None)
        (item["metadata"].get("annotations") or {}).pop("deployment.kubernetes.io/revision", None)
        if not item["metadata"].get("annotations"):
            item["metadata"].pop("annotations", None)
        for name in MADE_BY_SERVER:
            if kind == "Service":
                item["spec"].pop(name, None)
        found[item["metadata"]["name"]] = item
    return found


def ours(*objects: dict[str, Any]) -> dict[str, Any]:
    return {item["metadata"]["name"]: stored(item) for item in objects}


def expected(objects: dict[str, dict[str, Any]], names: Any) -> dict[str, Any]:
    return {name: stored(objects[name]) for name in names}


@pytest.mark.parametrize("recording", EVERY)
def test_presets_are_the_recorded_ones(recording: str) -> None:
    status = next(o for o in read(recording)["objects"] if o["kind"] == "LLMInferenceService")["status"]

    assert combined(recording).applied == status["appliedConfigs"]
    assert notes(service(recording)) == status["annotations"]


@pytest.mark.parametrize("recording", EVERY)
def test_deployments_are_the_recorded_ones(recording: str) -> None:
    svc, spec = service(recording), combined(recording).spec

    made = [scheduler.deployment(svc, spec, source(svc), None)]
    if "worker" not in spec:
        made.append(workloads.deployment(svc, spec, source(svc)))
    if "prefill" in spec:
        made.append(workloads.prefill_deployment(svc, spec, source(svc)))

    recorded = theirs(recording, "Deployment")
    assert ours(*made) == expected(recorded, recorded)


@pytest.mark.parametrize("recording", EVERY)
def test_services_are_the_recorded_ones(recording: str) -> None:
    svc, spec = service(recording), combined(recording).spec

    made = ours(scheduler.picker_service(svc, spec), workloads.service_in_front(svc, spec, SETTINGS))

    for item in made.values():
        for name in MADE_BY_SERVER:
            item["spec"].pop(name, None)
    wanted = expected(theirs(recording, "Service"), made)
    for item in wanted.values():
        for name in MADE_BY_SERVER:
            item["spec"].pop(name, None)
    assert made == wanted


@pytest.mark.parametrize("recording", EVERY)
def test_route_and_pool_are_the_recorded_ones(recording: str) -> None:
    svc, spec = service(recording), combined(recording).spec

    for made in (routes.http_route(svc, spec, None, SETTINGS), scheduler.inference_pool(svc, spec)):
        recorded = theirs(recording, made["kind"])
        assert ours(made) == expected(recorded, recorded)


@pytest.mark.parametrize("recording", EVERY)
def test_accounts_and_rights_are_the_recorded_ones(recording: str) -> None:
    svc, spec = service(recording), combined(recording).spec
    account = scheduler.account_name(svc, spec)
    made = [
        workloads.service_account(svc, account, scheduler.scheduler_labels(svc), None),
        scheduler.role(svc),
        scheduler.binding(svc, account),
    ]
    if "prefill" in spec:
        made.append(workloads.service_account(svc, workloads.main_name(svc), workloads.labels(svc), None))
        made += [workloads.sidecar_role(svc), workloads.sidecar_role_binding(svc, workloads.main_name(svc))]
    if "worker" in spec:
        name = workloads.account_name(svc, spec)
        made.append(workloads.service_account(svc, name, workloads.group_labels(svc), None))

    for kind in ("ServiceAccount", "Role", "RoleBinding"):
        recorded = theirs(recording, kind)
        assert ours(*(item for item in made if item["kind"] == kind)) == expected(recorded, recorded), kind
    told = [event["message"] for event in read(recording)["events"]]
    assert f"Created v1.ClusterRoleBinding /{scheduler.auth_binding_name(svc)}" in told


def test_leader_worker_set_is_the_recorded_one() -> None:
    svc, spec = service(MULTI), combined(MULTI).spec

    made = workloads.leader_worker_set(svc, spec, source(svc))

    recorded = theirs(MULTI, "LeaderWorkerSet")
    for name in ("rollingUpdateConfiguration",):  # the LWS webhook's defaults
        for item in recorded.values():
            item["spec"]["rolloutStrategy"].pop(name)
            item["spec"].pop("networkConfig")
    assert ours(made) == expected(recorded, recorded)


# What no recording shows ------------------------------------------------------------------------------------


def single(**spec: Any) -> dict[str, Any]:
    given = service(SINGLE)
    given["spec"].update(spec)
    return given


def test_a_missing_base_ref_is_named_with_both_namespaces() -> None:
    with pytest.raises(ConfigNotFound) as told:
        combine(single(baseRefs=[{"name": "nope"}]), find, nothing, SETTINGS)

    assert str(told.value) == 'LLMInferenceServiceConfig "nope" not found in namespaces [r2-07 kserve]'


def test_a_preset_of_the_namespace_goes_before_that_of_kserve() -> None:
    own = json.loads(json.dumps(PRESETS["kserve-config-llm-template"]))
    own["metadata"]["namespace"] = "r2-07"
    own["spec"]["template"]["containers"][0]["image"] = "registry.example/engine:1"

    def nearer(namespace: str, name: str) -> dict[str, Any] | None:
        return own if (namespace, name) == ("r2-07", own["metadata"]["name"]) else find(namespace, name)

    made = combine(single(), nearer, nothing, SETTINGS)

    assert made.spec["template"]["containers"][0]["image"] == "registry.example/engine:1"
    assert {"name": own["metadata"]["name"], "namespace": "r2-07", "source": "Preset"} in made.applied


def test_a_base_ref_goes_over_the_presets_and_under_the_service() -> None:
    base = {
        "metadata": {"name": "base", "namespace": "kserve"},
        "spec": {
            "replicas": 9,
            "template": {"containers": [{"name": "main", "image": "base:1", "env": [{"name": "A", "value": "1"}]}]},
        },
    }

    made = combine(
        single(baseRefs=[{"name": "base"}]),
        lambda namespace, name: base if name == "base" and namespace == "kserve" else find(namespace, name),
        nothing,
        SETTINGS,
    )

    main = made.spec["template"]["containers"][0]
    assert (made.spec["replicas"], main["image"]) == (2, "base:1")
    assert [item["name"] for item in main["env"]] == ["A", "HOME", "VLLM_LOGGING_LEVEL", "HF_HUB_CACHE"]
    assert made.applied[-1] == {"name": "base", "namespace": "kserve", "source": "UserRef"}


def test_without_a_scheduler_the_route_goes_to_the_service() -> None:
    given = single(router={"route": {}, "gateway": {}})

    made = combine(given, find, nothing, SETTINGS).spec

    backends = [item for rule in routes.route_spec(made)["rules"] for item in rule["backendRefs"]]  # type: ignore[index]
    assert {(item["kind"], item["name"]) for item in backends} == {("Service", "qwen25-7b-kserve-workload-svc")}
    assert not scheduler.wanted(made)


def test_the_route_moves_to_the_present_pool_once_the_old_one_is_refused() -> None:
    svc, spec = service(SINGLE), combined(SINGLE).spec
    known = routes.http_route(svc, spec, None, SETTINGS)
    refused = {"type": "ResolvedRefs", "status": "False", "reason": "InvalidKind"}
    known["status"] = {"parents": [{"parentRef": known["spec"]["parentRefs"][0], "conditions": [refused]}]}

    moved = routes.http_route(svc, spec, known, SETTINGS)

    groups = {item.get("group", "") for rule in moved["spec"]["rules"] for item in rule["backendRefs"]}
    assert groups == {"", "inference.networking.k8s.io"}
    again = routes.http_route(svc, spec, {**moved, "status": {}}, SETTINGS)
    assert again == moved, "it never goes back"


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("gs://bucket/m", "unsupported schema in model URI: gs://bucket/m"),
        ("models:/chat/3", "invalid model URI: models:/chat/3"),
        ("", "invalid model URI: "),
    ],
)
def test_a_source_that_cannot_be_loaded_is_refused(uri: str, told: str) -> None:
    svc, spec = service(SINGLE), combined(SINGLE).spec

    with pytest.raises(StorageError, match=f"^{re.escape(told)}$"):
        workloads.deployment(svc, spec, Source(uri))


def test_a_claim_is_mounted_without_an_initializer() -> None:
    svc, spec = service(SINGLE), combined(SINGLE).spec

    pod = workloads.deployment(svc, spec, Source("pvc://models/qwen/7b"))["spec"]["template"]["spec"]

    assert "initContainers" not in pod
    assert {"name": "kserve-pvc-source", "persistentVolumeClaim": {"claimName": "models"}} in pod["volumes"]
    mount = {"name": "kserve-pvc-source", "mountPath": "/mnt/models", "readOnly": True, "subPath": "qwen/7b"}
    assert mount in pod["containers"][0]["volumeMounts"]


def test_the_scheduler_keeps_the_configuration_it_runs_with() -> None:
    svc, spec = service(SINGLE), combined(SINGLE).spec
    running = scheduler.deployment(svc, spec, source(svc), None)
    main = running["spec"]["template"]["spec"]["containers"][0]
    main["args"][1] = "apiVersion: v1\nplugins: []\n"

    again = scheduler.deployment(svc, spec, source(svc), running)

    assert again["spec"]["template"]["spec"]["containers"][0]["args"][1] == "apiVersion: v1\nplugins: []\n"


# Names of Knative's kmeta.ChildName: joined where they fit, else with a hash of the parent in the middle.
@pytest.mark.parametrize(
    ("parent", "suffix", "name"),
    [
        ("chat", "-kserve", "chat-kserve"),
        ("a" * 56, "-kserve", "a" * 56 + "-kserve"),
        ("a" * 60, "-kserve", "a" * 24 + hashlib.md5(b"a" * 60).hexdigest()),
        ("a" * 60, "-kserve-workload-svc-of-prefill-x", "a" * 31),
    ],
)
def test_names_stay_within_one_dns_label(parent: str, suffix: str, name: str) -> None:
    made = child_name(parent, suffix)

    assert made.startswith(name)
    assert made.endswith(suffix) or len(suffix) > 31
    assert len(made) <= 63


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{ .Spec.Model.Name }}", "m"),
        (
            "a {{- if and .Spec.Parallelism .Spec.Parallelism.Tensor }} {{ .Spec.Parallelism.Tensor }}{{- end }} b",
            "a 2 b",
        ),
        ("{{ or .Spec.Parallelism.Data 1 }}", "1"),
        ("{{ if .GlobalConfig.EnableTLS }}S{{else}}P{{- end }}", "P"),
        ("{{ if .Spec.Prefill }}{{ shutdownTimeout .Spec.Prefill.Template 15 }}{{ else }}none{{ end }}", "none"),
        ("{{ shutdownTimeout .Spec.Template 15 }}", "40"),
        ("{{ shutdownTimeout .Spec.Worker 15 }}", "0"),
        ("{{ ChildName .ObjectMeta.Name `-x` }}", "n-x"),
        ("{{ if .Spec.Parallelism.DataRPCPort }}{{ .Spec.Parallelism.DataRPCPort }}{{ end }}", "5000"),
    ],
)
def test_templates_are_filled_in_as_go_does(text: str, filled: str) -> None:
    spec = {"model": {"name": "m"}, "parallelism": {"tensor": 2, "dataRPCPort": 5000}, "template": {},
            "worker": {"terminationGracePeriodSeconds": 10}}  # fmt: skip
    data = {"metadata": {"name": "n"}, "Spec": spec}

    assert fill_in({"text": text}, data, {"EnableTLS": False}) == {"text": filled}


@pytest.mark.parametrize("text", ["{{ .Spec.Prefill.Template }}", "{{ unknown 1 }}", "{{ if .Spec }}", "{{ end }}"])
def test_a_template_that_cannot_be_filled_in_says_so(text: str) -> None:
    with pytest.raises(TemplateError, match=r"^failed to "):
        fill_in({"text": text}, {"Spec": {}}, {})


def test_spilling_the_cache_is_written_for_two_shells() -> None:
    offload = {"cpu": "1Gi", "secondary": [{"fileSystem": {"emptyDir": {}}}]}

    made = fill_in(
        {"t": "{{ kvTransferConfig .Spec.KVCacheOffloading }}"}, {"Spec": {"kvCacheOffloading": offload}}, {}
    )

    told = json.loads(made["t"].removeprefix("--kv-transfer-config '").removesuffix("'").replace('\\"', '"'))
    assert told["kv_connector_extra_config"]["cpu_bytes_to_use"] == 2**30
    assert told["kv_connector_extra_config"]["secondary_tiers"] == [{"type": "fs", "root_dir": "/mnt/kv-cache-0"}]
