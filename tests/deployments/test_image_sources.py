"""Weights that come as an image: how it is named, where they lie in it, and how each cluster gets them into pods."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from deployments.commandline import render_document
from deployments.engine.profiles import EngineProfile
from deployments.findings import Finding, Severity
from deployments.kube.observe import observe
from deployments.kube.pod_causes import from_pod
from deployments.kube.reasons import Code
from deployments.manifests import Object, Wish, build, build_service_account, gpus_of, stopped
from deployments.manifests.images import ImageMode
from deployments.models import Cluster, Deployment
from deployments.preflight import check
from deployments.preflight.objects import check_objects
from deployments.services import requests
from deployments.services.errors import RefusedError
from deployments.sources.oci import Image, digest_of, parse_image
from deployments.sources.pinned import pinned
from deployments.spec import DeploymentSpec
from sandbox.lite.admission.podsecurity import violations
from tests.deployments import factories as make
from tests.deployments.preflighting import codes, said, the, with_cluster
from tests.deployments.wishes import roles_json, spec_json, spec_of, wish_of

GOLDEN = Path(__file__).parent.parent / "data" / "manifests" / "oci-volume.json"
DIGEST = "sha256:" + "c" * 64
NAME = "registry.example.com/models/granite"
URI = f"oci://{NAME}@{DIGEST}"


def wish(folder: str | None = None, mode: str = "volume", **changes: Any) -> Wish:
    source = {"uri": URI} | ({"folder": folder} if folder else {})
    plain = wish_of(spec_of(strategy="oci-volume", source=source, **changes))
    resolution = dataclasses.replace(plain.resolution, commit=DIGEST, storage_uri=URI, image_mode=mode)
    return dataclasses.replace(plain, resolution=resolution)


def parts(objects: list[Object]) -> tuple[Any, Any]:
    """Predictor and runtime."""
    found = {obj["kind"]: obj["spec"] for obj in objects}
    return found["InferenceService"]["predictor"], found["ServingRuntime"]


# References


@pytest.mark.parametrize(
    ("uri", "image"),
    [
        (f"oci://{NAME}:1.0", Image("registry.example.com", "models/granite", "1.0")),
        (URI, Image("registry.example.com", "models/granite", "", DIGEST)),
        (f"oci://{NAME}:1.0@{DIGEST}", Image("registry.example.com", "models/granite", "1.0", DIGEST)),
        ("oci://localhost:5000/m", Image("localhost:5000", "m")),
        ("oci://owner/model:2", Image("docker.io", "owner/model", "2")),
        ("oci://model", Image("docker.io", "library/model")),
    ],
)
def test_a_reference_is_read_as_runtimes_read_it(uri: str, image: Image):
    assert parse_image(uri) == image


@pytest.mark.parametrize(
    "uri",
    [
        "oci://",
        "oci://Registry/Model",
        "oci://host.x/",
        "oci://a/b:",
        "oci://a/b:-x",
        "oci://a/b@sha256:12",
        "oci://a//b",
    ],
)
def test_what_no_runtime_could_pull_is_refused_at_its_field(uri: str):
    finding = the("source_form", said(strategy="oci-volume", source={"uri": uri}))
    assert (finding.field, finding.is_error) == ("source_uri", True)


def test_an_image_is_pinned_by_its_digest_alone():
    assert digest_of(URI) == DIGEST
    assert digest_of(f"oci://{NAME}:1.0") == digest_of("hf://a/b") == ""
    assert pinned(f"oci://{NAME}:1.0@{DIGEST}", DIGEST) == URI


def test_a_spec_without_a_folder_has_the_digest_it_had_before():
    assert "folder" not in spec_of().to_json()["source"]
    spec = wish("/weights").spec
    assert spec.to_json()["source"]["folder"] == "/weights"
    assert DeploymentSpec.from_json(spec.to_json()) == spec


# What preflight says

AN_IMAGE = {"strategy": "oci-volume", "source": {"uri": URI}}


def test_weights_in_an_image_are_taken():
    assert said(with_cluster(version="v1.36.3"), **AN_IMAGE) == []


def test_an_older_kubernetes_has_the_images_shell_hand_over_the_weights():
    finding = the("image_volumes", said(with_cluster(version="v1.34.1"), **AN_IMAGE))
    assert (finding.severity, finding.field) == (Severity.WARNING, "strategy")
    assert "1.35" in finding.message
    for version in ("v1.35.0", "v1.36.3", ""):
        assert "image_volumes" not in codes(said(with_cluster(version=version), **AN_IMAGE))


def test_an_operator_may_have_switched_image_volumes_on():
    for version, able in (("v1.34.1", True), ("v1.33.0", True), ("v1.32.9", False)):
        found = codes(said(with_cluster(version=version, image_volumes=True), **AN_IMAGE))
        assert ("image_volumes" not in found) is able


def test_an_image_of_files_alone_needs_a_cluster_that_mounts_it():
    files = {"strategy": "oci-volume", "source": {"uri": URI, "folder": "/"}}
    finding = the("image_without_shell", said(with_cluster(version="v1.34.1"), **files))
    assert (finding.field, finding.value, finding.is_error) == ("source_folder", "/models", True)
    assert said(with_cluster(version="v1.36.3"), **files) == []


def test_prefill_and_decode_take_images_only_where_they_are_mounted():
    def of_roles(version: str, **source: Any) -> set[str]:
        spec = DeploymentSpec.from_json(roles_json(source={"uri": URI, **source}))
        found = check(spec, "chat", "search", with_cluster(version=version))
        return codes([item for item in found if item.is_error])

    assert of_roles("v1.36.3") == set()
    assert of_roles("v1.34.1") == {"image_volumes"}
    assert of_roles("v1.36.3", folder="/weights") == {"folder_fixed"}


def test_what_belongs_to_images_alone_is_refused_elsewhere_and_the_other_way_round():
    folder = the("folder_of_no_image", said(source={"uri": "hf://a/b", "folder": "/models"}))
    version = the("revision_of_image", said(**{**AN_IMAGE, "source": {"uri": URI, "revision": "main"}}))
    assert (folder.field, version.field) == ("source_folder", "source_revision")


def in_image(folder: str, version: str = "0.20.0", cluster: str = "v1.36.3", **spec: Any) -> list[Finding]:
    engine = EngineProfile("vllm", version, "vllm/vllm-openai@sha256:" + "0" * 64)
    facts = dataclasses.replace(with_cluster(version=cluster), profiles={"vllm": engine}, model=None)
    args = {"profile": "vllm", "args": {"max-model-len": 4096}}
    return said(facts, engine=args, **{**AN_IMAGE, "source": {"uri": URI, "folder": folder}, **spec})


def test_one_file_in_an_image_takes_an_engine_that_reads_it():
    file = "/m/chat.gguf"
    assert [finding for finding in in_image(file) if finding.is_error] == []
    assert the("gguf_engine", in_image(file, "0.32.0")).is_error
    assert "gguf_engine" not in codes(in_image("/m", "0.32.0"))
    roles: dict[str, Any] = {"strategy": "disaggregated", "prefill": {}, "decode": {}}
    assert {"file_and_strategy"} <= codes(in_image(file, **roles))
    assert "folder_fixed" not in codes(in_image(file, **roles))
    finding = the("image_without_shell", in_image("/chat.gguf", cluster="v1.34.1"))
    assert (finding.field, finding.value) == ("source_folder", None)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "pytorch_model.bin", "CHAT.GGUF"])
def test_a_file_that_is_no_model_of_its_own_is_refused_as_a_folder(name: str):
    finding = the("folder_is_file", in_image(f"/weights/{name}"))
    assert (finding.field, finding.value, finding.is_error) == ("source_folder", "/weights", True)
    assert "folder_is_file" not in codes(in_image("/weights/v1.5"))


# What is built


def test_kserve_itself_mounts_the_folder_that_it_knows():
    predictor, runtime = parts(build(wish()))
    assert predictor["model"]["storageUri"] == f"oci+native://{NAME}@{DIGEST}"
    # KServe refuses a pinned storage container where nothing is downloaded.
    assert "storageContainerName" not in predictor
    assert [volume["name"] for volume in runtime["volumes"]] == ["home"]


@pytest.mark.parametrize(
    ("made", "name"), [(wish(), "vLLM"), (wish("/"), "huggingface"), (wish(None, "modelcar"), "huggingface")]
)
def test_kserve_does_not_take_a_model_without_an_address_for_one_of_many(made: Wish, name: str):
    predictor, runtime = parts(build(made))
    assert ("storageUri" in predictor["model"]) is (name == "vLLM")
    assert predictor["model"]["modelFormat"]["name"] == name
    assert [item["name"] for item in runtime["supportedModelFormats"]] == [name]


@pytest.mark.parametrize(("folder", "below"), [("/", None), ("/weights/7b", "weights/7b")])
def test_another_folder_is_mounted_by_the_runtime(folder: str, below: str | None):
    predictor, runtime = parts(build(wish(folder)))
    assert "storageUri" not in predictor["model"]
    volume = next(item for item in runtime["volumes"] if item["name"] == "model")
    assert volume["image"] == {"reference": f"{NAME}@{DIGEST}", "pullPolicy": "IfNotPresent"}
    (container,) = runtime["containers"]
    mount = next(item for item in container["volumeMounts"] if item["name"] == "model")
    assert (mount["mountPath"], mount["readOnly"], mount.get("subPath")) == ("/mnt/models", True, below)


@pytest.mark.parametrize(
    ("folder", "below"),
    [("/chat.gguf", None), ("/m/chat.gguf", "m"), ("/m/7b/chat.gguf", "m/7b"), ("/models/chat.gguf", "")],
)
def test_of_one_file_in_an_image_its_folder_is_mounted_and_the_engine_is_given_the_file(folder: str, below: str | None):
    document = {"name": "chat", "team": "search", "spec": spec_json(flavor="h100-80gb", **AN_IMAGE)}
    document["spec"]["source"] = {"uri": URI, "folder": folder}
    predictor, runtime = parts(render_document(document)["objects"])
    (container,) = runtime["containers"]
    assert "--model=/mnt/models/chat.gguf" in container["args"]
    if below == "":  # The folder that KServe mounts by itself.
        assert predictor["model"]["storageUri"] == f"oci+native://{NAME}@{DIGEST}"
        return
    mount = next(item for item in container["volumeMounts"] if item["name"] == "model")
    assert (mount["mountPath"], mount.get("subPath")) == ("/mnt/models", below)


def test_a_sidecar_hands_over_the_folder_of_one_file():
    predictor, _ = parts(build(wish("/weights/chat.gguf", "modelcar")))
    (car,) = predictor["initContainers"]
    assert "ln -sf /proc/$$$$/root/weights /mnt/models" in car["command"][-1]


def test_where_images_are_not_mounted_a_sidecar_hands_over_the_weights():
    predictor, runtime = parts(build(wish("/weights", "modelcar")))
    (car,) = predictor["initContainers"]
    assert (car["image"], car["restartPolicy"]) == (f"{NAME}@{DIGEST}", "Always")
    assert "ln -sf /proc/$$$$/root/weights /mnt/models" in car["command"][-1]
    assert predictor["shareProcessNamespace"] is True
    assert "storageUri" not in predictor["model"]
    mounts = [item for container in (car, *runtime["containers"]) for item in container["volumeMounts"]]
    assert sum(item["mountPath"] == "/mnt" for item in mounts) == 2


@pytest.mark.parametrize("mode", list(ImageMode))
def test_pods_with_an_image_pass_the_restricted_level(mode: ImageMode):
    predictor, runtime = parts(build(wish("/weights", mode)))
    pod = {**predictor, "containers": runtime["containers"], "volumes": runtime["volumes"]}
    assert violations(pod, "restricted") == ""


def test_engines_whose_weights_the_node_fetches_reach_nothing_outside():
    objects = {obj["kind"]: obj for obj in build(wish())}
    assert objects["NetworkPolicy"]["spec"]["egress"] == []


def test_prefill_and_decode_have_kserve_mount_the_image():
    plain = wish_of(DeploymentSpec.from_json(roles_json(source={"uri": URI})))
    resolution = dataclasses.replace(plain.resolution, storage_uri=URI, image_mode="volume")
    objects = build(dataclasses.replace(plain, resolution=resolution))
    (spec,) = (obj["spec"] for obj in objects if obj["kind"] == "LLMInferenceService")
    assert spec["model"]["uri"] == f"oci+native://{NAME}@{DIGEST}"
    assert check_objects(objects) == []
    for template in (spec["template"], spec["prefill"]["template"], spec["router"]["scheduler"]["template"]):
        assert "initContainers" not in template


def test_an_image_adds_no_gpus_and_objects_are_as_kserve_starts_them():
    for each in (wish(), wish("/"), wish(None, "modelcar"), wish(replicas={"min": 1, "max": 3})):
        objects = build(each)
        assert gpus_of(objects) == each.spec.gpus
        assert check_objects(objects) == []


def test_objects_of_images_are_those_that_were_signed():
    made = {
        name: [build_service_account(each, ("login-x1",), pulls=True), *build(each), *stopped(build(each))]
        for name, each in {"models": wish(), "files": wish("/"), "modelcar": wish(None, "modelcar")}.items()
    }
    assert json.dumps(made, indent=1) + "\n" == GOLDEN.read_text()


# From the wish to what an approval signs


@pytest.mark.django_db
@pytest.mark.usefixtures("hub")
class TestAsking:
    @pytest.fixture(autouse=True)
    def listed(self, settings: Any) -> None:
        settings.SLIPWAY_OCI_REGISTRIES = ["registry.example.com"]

    def ask(self, ann: Any, team: Any, uri: str = URI) -> Deployment:
        spec = DeploymentSpec.from_json(make.a_spec(strategy="oci-volume", source={"uri": uri}))
        return requests.submit(principal=make.principal(ann), team=team, name="chat", spec=spec)

    def test_what_is_signed_names_the_image_by_digest(self, ann: Any, team: Any):
        revision = self.ask(ann, team, f"oci://{NAME}:1.0@{DIGEST}").latest
        assert revision is not None
        assert revision.resolution["commit"] == DIGEST
        assert revision.resolution["storage_uri"] == URI
        assert revision.resolution["image_mode"] == "volume"
        assert revision.guarded == []

    def test_a_tag_alone_is_refused_where_nobody_knows_its_digest(self, ann: Any, team: Any):
        with pytest.raises(RefusedError) as refused:
            self.ask(ann, team, f"oci://{NAME}:1.0")
        finding = next(item for item in refused.value.findings if item.is_error)
        assert (finding.code, finding.field) == ("source_not_pinned", "source_uri")

    def test_the_shell_of_an_image_has_to_be_let_in_by_an_admin(self, ann: Any, team: Any):
        make.make_cluster()
        Cluster.objects.update(version="v1.34.1")
        revision = self.ask(ann, team).latest
        assert revision is not None
        assert revision.resolution["image_mode"] == "modelcar"
        assert revision.guarded == ["modelcar"]


# What pods say


def a_pod(init: dict[str, Any] | None = None, engine: dict[str, Any] | None = None) -> Any:
    status = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "True"}],
        "initContainerStatuses": [{"name": "modelcar", **init}] if init else [],
        "containerStatuses": [{"name": "kserve-container", "image": "vllm/vllm-openai@" + DIGEST, **(engine or {})}],
    }
    return observe(pods=[{"metadata": {"name": "p", "namespace": "n"}, "spec": {}, "status": status}]).pods[0]


def waits(reason: str, message: str) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


@pytest.mark.parametrize(
    ("pod", "code", "field"),
    [
        (
            a_pod(engine=waits("ImagePullBackOff", f'Back-off pulling image "{NAME}@{DIGEST}": not found')),
            Code.IMAGE_PULL,
            "source_uri",
        ),
        (
            a_pod(engine=waits("ErrImagePull", f'failed to pull image "{NAME}@{DIGEST}": pull access denied')),
            Code.IMAGE_PULL,
            "credential",
        ),
        (
            a_pod(engine=waits("ErrImagePull", f'failed to pull image "docker.io/vllm/vllm-openai@{DIGEST}": x')),
            Code.IMAGE_PULL,
            "profile",
        ),
        (a_pod(init=waits("ErrImagePull", "not found")), Code.IMAGE_PULL, "source_uri"),
        (
            a_pod(init={"state": {"terminated": {"exitCode": 2, "message": "ls: /models: No such file"}}}),
            Code.MODEL_FILES,
            "source_folder",
        ),
        (
            a_pod(engine=waits("CreateContainerError", 'image volume "model": sub path "models": no such file')),
            Code.MODEL_FILES,
            "source_folder",
        ),
    ],
)
def test_what_keeps_the_weights_away_is_said_at_the_field_that_mends_it(pod: Any, code: Code, field: str):
    reason = from_pod(pod)
    assert reason is not None
    assert (reason.code, reason.field) == (code, field)
