"""Defaults of custom resources' schemas; each answer was seen from kube-apiserver 1.36.3."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.sandbox.conftest import MERGE, Api, Obj, named

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "defaults.slipway.dev"
TEXT = {"type": "string"}


def text(default: str, **more: Any) -> Obj:
    return {**TEXT, "default": default, **more}


SPEC: Obj = {
    "type": "object",
    "properties": {
        "plain": TEXT,
        "nullable": text("N", nullable=True),
        "word": text("W"),
        "number": {"type": "integer", "default": 3},
        "filled": {"type": "object", "default": {}, "properties": {"x": text("X"), "y": {"type": "integer"}}},
        "empty": {"type": "object", "properties": {"x": text("X")}},
        "items": {"type": "array", "items": {"type": "object", "properties": {"p": text("P"), "q": TEXT}}},
        "words": {"type": "array", "items": text("S")},
        "map": {"type": "object", "additionalProperties": text("M")},
        "bare": {"type": "object", "additionalProperties": TEXT},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"k": text("K")}},
        "needed": {"type": "object", "required": ["r"], "properties": {"r": text("R")}},
    },
}
STATUS: Obj = {
    "type": "object",
    "default": {"phase": "New"},
    "properties": {"phase": TEXT, "seen": {"type": "integer", "default": 1}},
}
ALWAYS: Obj = {"word": "W", "number": 3, "nullable": "N", "filled": {"x": "X"}}


def definition() -> Obj:
    """Return the CustomResourceDefinition of the kind all tests here use."""
    schema = copy.deepcopy({"type": "object", "properties": {"spec": SPEC, "status": STATUS}})
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    spec = {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "givens", "kind": "Given"},
        "versions": [version | {"schema": {"openAPIV3Schema": schema}}],
    }
    return named("CustomResourceDefinition", f"givens.{GROUP}", "apiextensions.k8s.io/v1", spec=spec)


@pytest.fixture(scope="module")
def givens(api: Api) -> str:
    """The path of the collection."""
    assert api.post(CRDS, definition()).status_code == 201
    team = api.namespace("team-defaults")
    return f"/apis/{GROUP}/v1{team.removeprefix('/api/v1')}/givens"


def given(name: str, **spec: Any) -> Obj:
    return named("Given", name, f"{GROUP}/v1", spec=spec)


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({}, {}),
        ({"word": "mine", "filled": {"y": 1}}, {"word": "mine", "filled": {"x": "X", "y": 1}}),
        ({"word": None, "plain": None, "nullable": None, "empty": None}, {"nullable": None}),
        ({"empty": {}}, {"empty": {"x": "X"}}),
        ({"items": [{}, {"p": None, "q": "1"}]}, {"items": [{"p": "P"}, {"p": "P", "q": "1"}]}),
        ({"words": ["a", None]}, {"words": ["a", "S"]}),
        ({"map": {"a": None}, "bare": {"a": None, "b": "1"}}, {"map": {"a": "M"}, "bare": {"b": "1"}}),
        ({"free": {"u": None, "z": 1}}, {"free": {"k": "K", "u": None, "z": 1}}),
        ({"needed": {}}, {"needed": {"r": "R"}}),
    ],
)
def test_a_create_is_completed(api: Api, givens: str, sent: Obj, stored: Obj) -> None:
    answer = api.post(givens, given("", **sent) | {"metadata": {"generateName": "made-"}})

    assert answer.status_code == 201, answer.text
    assert answer.json()["spec"] == ALWAYS | stored
    assert answer.json()["status"] == {"phase": "New", "seen": 1}


def test_a_creator_owns_defaults_and_an_applier_does_not(api: Api, givens: str) -> None:
    created = api.post(givens, given("owned")).json()["metadata"]["managedFields"]
    applied = api.apply(f"{givens}/applied", given("applied", filled={"y": 2})).json()

    assert created[0]["fieldsV1"]["f:spec"]["f:filled"] == {".": {}, "f:x": {}}
    assert applied["spec"] == ALWAYS | {"filled": {"x": "X", "y": 2}}
    assert [entry["fieldsV1"] for entry in applied["metadata"]["managedFields"]] == [
        {"f:spec": {"f:filled": {"f:y": {}}}}
    ]


def test_what_is_removed_comes_back_as_its_default(api: Api, givens: str) -> None:
    api.post(givens, given("removed", word="mine", filled={"x": "mine"}))

    answer = api.patch(f"{givens}/removed", {"spec": {"word": None, "filled": None}}, MERGE)
    status = api.patch(f"{givens}/removed/status", {"status": {"phase": None}}, MERGE)

    assert answer.json()["spec"] == ALWAYS
    assert status.json()["status"] == {"seen": 1}


def test_a_default_added_later_is_read_from_older_objects(api: Api, givens: str) -> None:
    made = api.post(givens, given("older")).json()
    crd = api.get(f"{CRDS}/givens.{GROUP}").json()
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"]["late"] = text("L")
    assert api.put(f"{CRDS}/givens.{GROUP}", crd).status_code == 200

    found = api.get(f"{givens}/older").json()
    listed = next(item for item in api.get(givens).json()["items"] if item["metadata"]["name"] == "older")
    untouched = api.patch(f"{givens}/older", {"spec": {}}, MERGE).json()
    changed = api.patch(f"{givens}/older", {"spec": {"number": 8}}, MERGE).json()

    assert found["spec"] == listed["spec"] == ALWAYS | {"late": "L"}
    assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert untouched["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert changed["metadata"]["generation"] == 2
    assert "f:late" not in changed["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
