"""The reference manifests in `k8s/llm-serving`: what the command makes of the wishes there, whole and valid."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.management import call_command

from deployments.manifests import gpus_of
from tests.deployments.schemas import complaints

FOLDER = Path(settings.BASE_DIR) / "k8s" / "llm-serving"
NAMES = sorted(path.stem for path in (FOLDER / "wishes").glob("*.yaml"))


def rendered(name: str) -> str:
    out = StringIO()
    facts = str(FOLDER / "facts.yaml")
    call_command(
        "spec", "render", str(FOLDER / "wishes" / f"{name}.yaml"), "--facts", facts, "--yaml", "--whole", stdout=out
    )
    return out.getvalue()


def objects(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_what_the_command_makes_of_its_wish(name: str):
    assert (FOLDER / f"{name}.yaml").read_text() == rendered(name), f"make it again as {FOLDER.name}/README.md says"


@pytest.mark.parametrize("name", NAMES)
def test_what_belongs_to_an_installation_is_told_apart_as_its_page_says(name: str):
    described = (FOLDER / "README.md").read_text()
    label, team = re.search(r"-l (\S+)=(\S+) -f", described).groups()  # type: ignore[union-attr]
    made = objects(name)
    left = {obj["kind"] for obj in made if obj["metadata"]["labels"].get(label) != team}
    assert left - {"ConfigMap"} == {"ClusterStorageContainer"}
    assert all("namespace" in obj["metadata"] or obj["kind"] in {"Namespace", *left} for obj in made)


def test_every_file_has_a_wish_and_is_described():
    files = {path.stem for path in FOLDER.glob("*.yaml")} - {"facts"}
    assert files == set(NAMES)
    described = (FOLDER / "README.md").read_text()
    assert [name for name in NAMES if f"`{name}.yaml`" not in described] == []


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_working_set_for_llm_service_in_production(name: str):
    found = objects(name)
    kinds = [obj["kind"] for obj in found]
    services = [obj for obj in found if obj["kind"] in {"InferenceService", "LLMInferenceService"}]
    assert [(obj["metadata"]["name"], obj["metadata"]["namespace"]) for obj in services] == [
        ("llm-service", "production")
    ]
    assert {obj["metadata"].get("namespace") for obj in found} <= {None, "production", "gpu-operator"}
    # Applied from above: the namespace before what is in it, guards before what runs.
    assert kinds.index("Namespace") < kinds.index("ResourceQuota") < kinds.index("ServiceAccount")
    assert kinds.index("ServiceAccount") < kinds.index("PodDisruptionBudget") < kinds.index(services[0]["kind"])
    quota = next(obj for obj in found if obj["kind"] == "ResourceQuota")["spec"]["hard"]
    assert sum(map(int, quota.values())) == gpus_of(found)


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_valid_for_its_kind(name: str):
    assert {key: said for obj in objects(name) if (said := complaints(obj)) for key in [obj["kind"]]} == {}


@pytest.mark.parametrize("name", NAMES)
def test_what_an_object_names_is_in_the_set(name: str):
    found = objects(name)
    names = {(obj["kind"], obj["metadata"]["name"]) for obj in found}
    for obj in found:
        if obj["kind"] == "InferenceService":
            predictor = obj["spec"]["predictor"]
            assert ("ServingRuntime", predictor["model"]["runtime"]) in names
            assert ("ServiceAccount", predictor["serviceAccountName"]) in names
            assert ("ClusterStorageContainer", predictor.get("storageContainerName", "slipway-hf")) in names
        if obj["kind"] == "LLMInferenceService":
            assert {("LLMInferenceServiceConfig", ref["name"]) for ref in obj["spec"]["baseRefs"]} <= names
            assert ("HTTPRoute", obj["spec"]["router"]["route"]["http"]["refs"][0]["name"]) in names
            assert ("ServiceAccount", obj["spec"]["template"]["serviceAccountName"]) in names


def test_slices_are_what_nodes_are_told_to_offer():
    found = objects("gpu-operator")
    (config,) = [obj for obj in found if obj["kind"] == "ConfigMap"]
    (service,) = [obj for obj in found if obj["kind"] == "InferenceService"]
    predictor = service["spec"]["predictor"]
    label = predictor["nodeSelector"]["nvidia.com/device-plugin.config"]
    slicing = yaml.safe_load(config["data"][label])["sharing"]["timeSlicing"]
    assert slicing["renameByDefault"] is True
    assert f"{slicing['resources'][0]['name']}.shared" in predictor["model"]["resources"]["limits"]
    share = float(re.search(r"gpu-memory-utilization=([\d.]+)", str(predictor["model"]["args"]))[1])  # type: ignore[index]
    assert share * slicing["resources"][0]["replicas"] < 1, "slices of one GPU share its memory"
