"""The children of an InferenceService, field by field against those real KServe made."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.lite.controllers import kserve_children as children
from sandbox.lite.controllers import kserve_pods as pods
from sandbox.lite.controllers.kserve_admission import default, validate
from sandbox.lite.controllers.kserve_config import KServeConfig
from sandbox.lite.controllers.kserve_credentials import secret_names
from sandbox.lite.controllers.kserve_runtimes import find_runtime, image_for, pod_spec
from sandbox.lite.controllers.kserve_status import SpecError
from sandbox.lite.controllers.pod_owner import pod_from
from tests.sandbox.recordings import comparable, read, read_all, recorded

EXAMPLES = {
    "01-isvc-standard-vllm": "objects/01-isvc-standard-vllm.yaml",
    "02-isvc-hf-token": "objects/02-isvc-hf-token.yaml",
    "03-isvc-s3": "objects/03-isvc-s3.yaml",
    "04-isvc-pvc": "objects/04-isvc-pvc.yaml",
    "05-isvc-oci-modelcar": "objects/05-isvc-oci-modelcar.yaml",
}
EVERY = [*EXAMPLES.values(), "variants/cluster-local.yaml", "variants/ready-while-pending.yaml"]
CONFIG = KServeConfig()


def runtime() -> dict[str, Any]:
    return read("runtime.yaml")


def service(name: str) -> dict[str, Any]:
    found = recorded(name, "InferenceService")
    assert found is not None
    return found


def joined(isvc: dict[str, Any]) -> dict[str, Any]:
    return pod_spec(isvc, find_runtime(isvc, lambda name: None, [runtime()], []))


@pytest.mark.parametrize(("example", "recording"), EXAMPLES.items())
def test_the_webhook_completes_an_example_as_it_was_stored(example: str, recording: str) -> None:
    given = next(item for item in read_all(f"examples/{example}.yaml") if item["kind"] == "InferenceService")

    stored = default(given)

    theirs = service(recording)
    assert stored["spec"] == theirs["spec"]
    assert stored["metadata"]["annotations"] == theirs["metadata"]["annotations"]
    assert validate(stored, None) == []
    assert default(stored) == stored


@pytest.mark.parametrize("recording", EVERY)
def test_deployment_is_the_recorded_one(recording: str) -> None:
    isvc = service(recording)

    ours = children.deployment(isvc, runtime(), joined(isvc))

    theirs = recorded(recording, "Deployment")
    assert theirs is not None
    del theirs["status"], theirs["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
    assert comparable(ours) == comparable(theirs)


@pytest.mark.parametrize("recording", EVERY)
def test_service_is_the_recorded_one(recording: str) -> None:
    isvc = service(recording)

    ours = children.service(isvc, runtime(), joined(isvc))

    theirs = recorded(recording, "Service")
    assert theirs is not None
    del theirs["status"]
    for completed_by_server in ("internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy", "sessionAffinity"):
        del theirs["spec"][completed_by_server]
    assert comparable(ours) == comparable(theirs)


@pytest.mark.parametrize("recording", EVERY)
def test_ingress_is_the_recorded_one_or_none(recording: str) -> None:
    isvc = service(recording)

    theirs = recorded(recording, "Ingress")
    if theirs is None:
        unready = not any(c["type"] == "Ready" and c["status"] == "True" for c in isvc["status"]["conditions"])
        assert children.cluster_local(isvc) or unready
        return
    ours = children.ingress(isvc, CONFIG, children.addresses(isvc, CONFIG))
    del theirs["status"]
    assert comparable(ours) == comparable(theirs)


def test_gateway_api_gives_the_two_recorded_routes() -> None:
    isvc = service("variants/gateway-api.yaml")
    config = KServeConfig(gateway_api=True)

    ours = children.http_routes(isvc, config, children.addresses(isvc, config))

    theirs = [item for item in read("variants/gateway-api.yaml")["objects"] if item["kind"] == "HTTPRoute"]
    for route in theirs:
        route.pop("status", None)
    assert [comparable(route) for route in ours] == [comparable(route) for route in theirs]


@pytest.mark.parametrize("recording", EVERY)
def test_pod_gets_what_the_recorded_one_got(recording: str) -> None:
    isvc = service(recording)
    deployment = children.deployment(isvc, runtime(), joined(isvc))
    objects = read(recording)["objects"]
    replica_set = next(item for item in objects if item["kind"] == "ReplicaSet")
    replica_set["spec"]["template"]["spec"] = deployment["spec"]["template"]["spec"]
    bare = pod_from(replica_set)
    account = next((item for item in objects if item["kind"] == "ServiceAccount"), None)
    secrets = [item for item in objects if item["kind"] == "Secret"]

    ours = pods.complete(bare, pods.Surroundings(CONFIG, account, secrets))

    theirs = next(item for item in objects if item["kind"] == "Pod")
    assert comparable(ours) == comparable(_without_server_parts(theirs))
    assert secret_names(bare, account) == [item["metadata"]["name"] for item in secrets]


def _without_server_parts(pod: dict[str, Any]) -> dict[str, Any]:
    """Take off what the API server's own admission and the scheduler put on a recorded pod."""
    del pod["status"], pod["metadata"]["name"]
    spec = pod["spec"]
    for name in ("enableServiceLinks", "nodeName", "preemptionPolicy", "priority"):
        spec.pop(name, None)
    if spec["serviceAccountName"] == "default":
        del spec["serviceAccount"], spec["serviceAccountName"]
    spec["tolerations"] = [item for item in spec["tolerations"] if not item["key"].startswith("node.kubernetes.io/")]
    spec["volumes"] = [item for item in spec["volumes"] if not item["name"].startswith("kube-api-access-")]
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        mounts = container.get("volumeMounts", [])
        container["volumeMounts"] = [item for item in mounts if not item["name"].startswith("kube-api-access-")]
        if not container["volumeMounts"]:
            del container["volumeMounts"]
        if container["name"] != "kserve-container":
            del container["terminationMessagePath"]
            if container["imagePullPolicy"] == "Always":
                del container["imagePullPolicy"]
    return pod


def test_without_a_gpu_in_limits_the_image_turns_into_the_cpu_one() -> None:
    isvc = service(EXAMPLES["01-isvc-standard-vllm"])
    del isvc["spec"]["predictor"]["model"]["resources"]["limits"]["nvidia.com/gpu"]

    assert joined(isvc)["containers"][0]["image"] == "vllm/vllm-openai-cpu:latest"


@pytest.mark.parametrize(
    ("image", "limits", "version", "runs"),
    [
        ("vllm/vllm-openai:v1", {"nvidia.com/mig-1g.10gb": "1"}, None, "vllm/vllm-openai:v1"),
        ("vllm/vllm-openai:v1", {"nvidia.com/gpu.shared": "1"}, None, "vllm/vllm-openai-cpu:v1"),
        ("vllm/vllm-openai:v1", {}, "v2", "vllm/vllm-openai:v2"),
        ("vllm/vllm-openai@sha256:00", {}, None, "vllm/vllm-openai@sha256:00"),
    ],
)
def test_image_follows_limits_version_and_digest(
    image: str, limits: dict[str, str], version: str | None, runs: str
) -> None:
    assert image_for({"image": image, "resources": {"limits": limits}}, version, runtime()) == runs


def test_a_runtime_of_another_name_keeps_its_image() -> None:
    own = runtime()
    own["metadata"]["name"] = "slipway-vllm-0-32-0-abc"

    assert image_for({"image": "vllm/vllm-openai:v1"}, None, own) == "vllm/vllm-openai:v1"


def test_runtime_in_the_namespace_goes_before_the_cluster_wide_one() -> None:
    isvc = service(EXAMPLES["01-isvc-standard-vllm"])
    own = {**runtime(), "kind": "ServingRuntime"}

    assert find_runtime(isvc, {"kserve-vllmserver": own}.get, [runtime()], [own]) is own


def test_runtime_is_chosen_by_format_when_none_is_named() -> None:
    isvc = service(EXAMPLES["01-isvc-standard-vllm"])
    del isvc["spec"]["predictor"]["model"]["runtime"]
    low, high, off = runtime(), runtime(), runtime()
    low["metadata"]["name"], high["metadata"]["name"], off["metadata"]["name"] = "low", "high", "off"
    high["spec"]["supportedModelFormats"][0]["priority"] = 2
    off["spec"]["supportedModelFormats"][0]["priority"] = 9
    off["spec"]["disabled"] = True

    assert find_runtime(isvc, lambda name: None, [low, high, off], []) is high


def test_only_known_placeholders_are_filled() -> None:
    isvc = service(EXAMPLES["01-isvc-standard-vllm"])
    ours = runtime()
    ours["spec"]["containers"][0]["args"] = ["{{ .Name }}/{{.Namespace}}/{{.Labels.app}}"]
    assert joined(isvc)["containers"][0]["args"][1] == "--served-model-name=qwen25-7b"
    assert pod_spec(isvc, ours)["containers"][0]["args"][0] == "qwen25-7b/r2-01/"

    ours["spec"]["containers"][0]["args"] = ["{{ .Spec }}"]
    with pytest.raises(SpecError, match="failed to replace placeholders in serving runtime kserve-vllmserver"):
        pod_spec(isvc, ours)


def test_pinned_storage_container_replaces_the_built_in_one() -> None:
    isvc = service(EXAMPLES["01-isvc-standard-vllm"])
    isvc["spec"]["predictor"]["storageContainerName"] = "slipway"
    deployment = children.deployment(isvc, runtime(), joined(isvc))
    pod = {"kind": "Pod", "metadata": deployment["spec"]["template"]["metadata"],
           "spec": deployment["spec"]["template"]["spec"]}  # fmt: skip
    restricted = {"allowPrivilegeEscalation": False}
    ours = {
        "metadata": {"name": "slipway"},
        "spec": {"container": {"name": "storage-initializer", "image": "loader@sha256:1", "env": [],
                               "securityContext": restricted},
                 "supportedUriFormats": [{"prefix": "hf://"}]},
    }  # fmt: skip

    init = pods.complete(pod, pods.Surroundings(CONFIG, storage_containers=[ours]))["spec"]["initContainers"][0]

    assert (init["image"], init["securityContext"], init["env"]) == ("loader@sha256:1", restricted, [])
    assert init["args"] == ["hf://Qwen/Qwen2.5-7B-Instruct", "/mnt/models"]
    with pytest.raises(SpecError, match='ClusterStorageContainer "slipway" not found'):
        pods.complete(pod, pods.Surroundings(CONFIG))
    ours["spec"]["supportedUriFormats"] = [{"prefix": "s3://"}]
    with pytest.raises(SpecError, match='"slipway" does not support storageUri "hf://Qwen/'):
        pods.complete(pod, pods.Surroundings(CONFIG, storage_containers=[ours]))


def test_completing_a_pod_twice_changes_nothing() -> None:
    for recording in EVERY:
        pod = next(item for item in read(recording)["objects"] if item["kind"] == "Pod")
        if "storage-initializer" in str(pod["spec"].get("initContainers")):
            assert pods.complete(pod, pods.Surroundings(CONFIG)) == pod
