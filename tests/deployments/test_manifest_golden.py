"""Objects byte for byte: what was signed is rendered again, wherever builders stand; and valid for every API server."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml

from deployments.manifests import Object, gpus_of
from deployments.manifests.text import all_as_yaml
from deployments.preflight.objects import check_objects
from tests.deployments import manifest_cases as cases
from tests.deployments.schemas import complaints, rules_of


@pytest.mark.parametrize("name", cases.NAMES)
def test_objects_are_those_that_were_signed(name: str):
    golden = (cases.FOLDER / f"{name}.yaml").read_text()
    assert all_as_yaml(cases.case(name)) == golden, "`python -m tests.deployments.manifest_cases` writes them anew"
    assert list(yaml.safe_load_all(golden)) == cases.case(name)


def test_every_file_belongs_to_a_case():
    assert {path.stem for path in cases.FOLDER.glob("*.yaml")} == set(cases.NAMES)


@pytest.mark.parametrize("name", cases.NAMES)
def test_every_object_is_valid_for_its_kind(name: str):
    wrong = {f"{obj['kind']} {obj['metadata']['name']}": said for obj in cases.case(name) if (said := complaints(obj))}
    assert wrong == {}


def test_rules_in_cel_are_among_what_is_checked():
    counted = {obj["kind"]: rules_of(obj) for name in cases.WISHES for obj in cases.case(name)}
    assert {kind for kind, count in counted.items() if count} >= {"HTTPRoute", "LLMInferenceService"}


def one(name: str, kind: str) -> Any:
    (found,) = [obj for obj in cases.case(name) if obj["kind"] == kind]
    return copy.deepcopy(found)


def twice_in_a_route(route: Any) -> None:
    """Allowed by the schema, refused by a rule."""
    filters = route["spec"]["rules"][0]["filters"]
    filters.append(copy.deepcopy(filters[0]))


def both_at_once(service: Any) -> None:
    service["spec"]["scaling"] = {"minReplicas": 1, "maxReplicas": 2, "wva": {"hpa": {}}}


def put(*path: Any, value: Any) -> Any:
    def change(obj: Any) -> None:
        for step in path[:-1]:
            obj = obj[step]
        obj[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("name", "kind", "change", "words"),
    [
        ("one-gpu", "InferenceService", put("spec", "predictor", "storageInitializer", value={}), "unknown field"),
        ("one-gpu", "InferenceService", put("spec", "predictor", "minReplicas", value="one"), "minReplicas"),
        ("one-gpu", "HTTPRoute", twice_in_a_route, "cannot be repeated"),
        ("one-gpu", "HTTPRoute", put("spec", "rules", 0, "backendRefs", 0, "port", value=0), "port"),
        ("one-gpu", "PodMonitor", put("spec", "podMetricsEndpoints", 0, "interval", value="soon"), "interval"),
        ("disaggregated", "LLMInferenceService", both_at_once, "mutually exclusive"),
        ("one-gpu", "ServiceAccount", put("secretz", value=[]), "secretz"),
        ("one-gpu", "NetworkPolicy", put("spec", "egress", 0, "ports", 0, "port", value=70000), "port"),
        ("one-gpu", "PodDisruptionBudget", put("metadata", "labels", "a b", value="c"), "labels"),
        ("team", "ResourceQuota", put("spec", "hard", "requests.nvidia.com/gpu", value="-1"), "greater than"),
    ],
)
def test_the_check_itself_refuses(name: str, kind: str, change: Any, words: str):
    obj = one(name, kind) if name != "team" else copy.deepcopy(cases.case("team")[1])
    change(obj)
    assert words in " ".join(complaints(obj))


@pytest.mark.parametrize("name", list(cases.WISHES))
def test_slipways_own_rules_find_nothing_and_no_image_can_move(name: str):
    objects: list[Object] = cases.case(name)
    assert check_objects(objects) == []
    images = re.findall(r'"image": "([^"]+)"', json.dumps(objects))
    assert [image for image in images if not re.search(r"@sha256:[0-9a-f]{64}$", image)] == []


@pytest.mark.parametrize(
    ("name", "gpus"), [("one-gpu", 1), ("split", 8), ("stages", 4), ("scaled-by-keda", 10), ("time-slice", 1)]
)
def test_gpus_of_a_case(name: str, gpus: int):
    assert gpus_of(cases.case(name)) == gpus


def test_secrets_are_named_and_never_there():
    for name in cases.NAMES:
        assert [obj for obj in cases.case(name) if obj["kind"] == "Secret"] == []
    account, *_ = cases.case("gated")
    assert account["secrets"] == [{"name": "hf-x1"}]
