"""JSON patch and what else a PATCH may bring; each answer was seen from kube-apiserver 1.36.3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sandbox.lite.json_patch import PatchFailed, json_patch
from tests.sandbox.conftest import JSON_PATCH, MERGE, STRATEGIC, Api, Obj, config_map, named

UNMARSHAL = "json: cannot unmarshal"
MEDIA = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"


@pytest.fixture(scope="module")
def team(api: Api) -> str:
    return api.namespace("team-patches")


@pytest.fixture
def cm(api: Api, team: str) -> Iterator[str]:
    """A ConfigMap that each test has for itself."""
    path = f"{team}/configmaps"
    made = api.post(path, config_map("patched", labels={"x": "1"}, k="1", l="2"), fieldManager="slipway")
    assert made.status_code == 201, made.text
    yield f"{path}/patched"
    api.delete(f"{path}/patched")


def step(op: str, path: str, *value: Any, **more: Any) -> Obj:
    """Return one operation; without a third argument it has no value."""
    return {"op": op, "path": path} | ({"value": value[0]} if value else {}) | more


def refused(answer: httpx.Response) -> None:
    """Check that an operation did not apply: kube-apiserver does not say which."""
    assert answer.status_code == 422
    assert answer.json()["reason"] == "Invalid"
    assert answer.json()["message"] == "the server rejected our request due to an error in our request"
    assert answer.json()["details"] == {}


@pytest.mark.parametrize(
    ("operations", "data"),
    [
        ([step("replace", "/data/k", "2")], {"k": "2", "l": "2"}),
        ([step("replace", "/data/new", "2")], {"k": "1", "l": "2", "new": "2"}),
        ([step("add", "/data/new", "2")], {"k": "1", "l": "2", "new": "2"}),
        ([step("remove", "/data/k")], {"l": "2"}),
        ([step("move", "/data/m", **{"from": "/data/k"})], {"l": "2", "m": "1"}),
        ([step("copy", "/data/m", **{"from": "/data/k"})], {"k": "1", "l": "2", "m": "1"}),
        ([step("copy", "/data/m", **{"from": "/data/nope"})], {"k": "1", "l": "2", "m": ""}),
        ([step("test", "/data/k", "1"), step("replace", "/data/k", "3")], {"k": "3", "l": "2"}),
        ([step("test", "/data/nope", None)], {"k": "1", "l": "2"}),
        ([step("replace", "/data/k")], {"k": "", "l": "2"}),
        ([], {"k": "1", "l": "2"}),
    ],
)
def test_operations(api: Api, cm: str, operations: list[Obj], data: dict[str, str]) -> None:
    answer = api.patch(cm, operations, JSON_PATCH)

    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == data


@pytest.mark.parametrize(
    "operation",
    [
        step("test", "/data/k", "9"),
        step("test", "/data/nope", "9"),
        step("test", "/metadata/resourceVersion", "1"),
        step("remove", "/data/nope"),
        step("add", "/nope/deep", "1"),
        step("move", "/data/m", **{"from": "/data/nope"}),
        step("frob", "/data/k", "1"),
        {"path": "/data/k", "value": "1"},
        {"op": "replace", "value": "1"},
        step("add", "", {}),
        step("remove", ""),
    ],
)
def test_an_operation_that_does_not_apply_is_invalid_and_changes_nothing(api: Api, cm: str, operation: Obj) -> None:
    refused(api.patch(cm, [step("replace", "/data/k", "changed"), operation], JSON_PATCH))

    assert api.get(cm).json()["data"]["k"] == "1"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[{", "error decoding patch: unexpected end of JSON input"),
        (b"{}", "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
        (b"[1]", "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp"),
    ],
)
def test_a_malformed_patch_is_a_bad_request(api: Api, cm: str, body: bytes, message: str) -> None:
    answer = api.http.patch(cm, content=body, headers={"Content-Type": JSON_PATCH})

    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")
    assert answer.json()["message"] == message


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (step("replace", "/data/k", 1), f"{UNMARSHAL} number into Go struct field ConfigMap.data of type string"),
        (step("add", "/nope", 1), 'strict decoding error: unknown field "nope"'),
        (step("add", "/data/m", "1", valeu=1), 'strict decoding error: json patch unknown field "[0].valeu"'),
        (step("replace", "/kind", "Pod"), "converting (v1.Pod) to (core.ConfigMap): unknown conversion"),
    ],
)
def test_a_result_that_cannot_be_decoded_is_shown(api: Api, cm: str, operation: Obj, why: str) -> None:
    answer = api.patch(cm, [operation], JSON_PATCH, fieldValidation="Strict")

    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")
    message = answer.json()["message"]
    assert message.startswith(' "" is invalid: patch: Invalid value: "{\\"apiVersion\\":\\"v1\\",\\"data\\":{')
    assert message.endswith(f'}}": {why}')


def test_an_unknown_field_is_warned_of(api: Api, cm: str) -> None:
    answer = api.patch(cm, [step("add", "/nope", 1), step("add", "/data/m", "1", valeu=1)], JSON_PATCH)

    assert answer.status_code == 200
    assert answer.headers["warning"] == (
        '299 - "json patch unknown field \\"[1].valeu\\"", 299 - "unknown field \\"nope\\""'
    )


def test_a_name_cannot_be_patched(api: Api, cm: str) -> None:
    renamed = api.patch(cm, [step("replace", "/metadata/name", "other")], JSON_PATCH)
    nameless = api.patch(cm, [step("replace", "", {})], JSON_PATCH)

    assert renamed.json()["message"] == "the name of the object (other) does not match the name on the URL (patched)"
    assert nameless.json()["message"] == (
        "the name of the object (patched based on URL) was undeterminable: name must be provided"
    )
    assert (renamed.status_code, nameless.status_code) == (400, 400)


def test_a_dry_run_answers_and_stores_nothing(api: Api, cm: str) -> None:
    answer = api.patch(cm, [step("replace", "/data/k", "dry")], JSON_PATCH, dryRun="All")

    assert answer.json()["data"]["k"] == "dry"
    assert api.get(cm).json()["data"]["k"] == "1"


def test_what_nobody_owns_is_owned_by_nobody_after_an_update(api: Api, cm: str) -> None:
    api.patch(cm, [step("replace", "/metadata/managedFields", [{}])], JSON_PATCH)

    answer = api.patch(cm, {"data": {"k": "2"}}, STRATEGIC)

    assert "managedFields" not in answer.json()["metadata"]


@pytest.mark.parametrize(
    ("operation", "args"),
    [
        (step("add", "/0", "w"), "wxy"),
        (step("add", "/-", "z"), "xyz"),
        (step("add", "/2", "z"), "xyz"),
        (step("replace", "/1", "z"), "xz"),
        (step("remove", "/-1"), "x"),
        (step("remove", "/0"), "y"),
        (step("move", "/0", **{"from": "/1"}), "yx"),
        (step("copy", "/-", **{"from": "/0"}), "xyx"),
    ],
)
def test_lists_are_addressed_by_index(operation: Obj, args: str) -> None:
    assert "".join(json_patch(list("xy"), [operation])) == args  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "operation",
    [
        step("add", "/3", "z"),
        step("replace", "/2", "z"),
        step("remove", "/x"),
        step("remove", "/2"),
        step("test", "/9"),
    ],
)
def test_an_index_must_be_there(operation: Obj) -> None:
    with pytest.raises(PatchFailed):
        json_patch(list("xy"), [operation])  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "other"), [(1, 1.0), (1, True), (0, False), ("1", 1), ([1], [1, 2]), ({}, [])])
def test_a_test_tells_types_apart(value: Any, other: Any) -> None:
    assert json_patch({"a": value}, [step("test", "/a", value)]) == {"a": value}
    with pytest.raises(PatchFailed):
        json_patch({"a": value}, [step("test", "/a", other)])


def test_slashes_and_tildes_in_names_are_escaped() -> None:
    assert json_patch({"a/b": 1, "c~d": 2}, [step("remove", "/a~1b"), step("replace", "/c~0d", 3)]) == {"c~d": 3}


@pytest.fixture(scope="module")
def scaled(api: Api, team: str) -> str:
    """The path of a Deployment."""
    path = team.replace("/api/v1", "/apis/apps/v1") + "/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    assert api.post(path, named("Deployment", "scaled", "apps/v1", spec=spec)).status_code == 201
    return f"{path}/scaled"


def test_scale_takes_every_patch(api: Api, scaled: str) -> None:
    replicas = step("replace", "/spec/replicas", 3)
    assert api.patch(f"{scaled}/scale", [replicas], JSON_PATCH).json()["spec"] == {"replicas": 3}
    assert api.patch(f"{scaled}/scale", {"spec": {"replicas": 4}}, MERGE).json()["spec"] == {"replicas": 4}
    assert api.patch(f"{scaled}/scale", {"spec": {"replicas": 5}}, STRATEGIC).json()["spec"] == {"replicas": 5}
    refused(api.patch(f"{scaled}/scale", [step("test", "/spec/replicas", 9), replicas], JSON_PATCH))
    dry = api.patch(f"{scaled}/scale", [replicas], JSON_PATCH, dryRun="All")

    assert dry.json()["spec"] == {"replicas": 3}
    assert api.get(scaled).json()["spec"]["replicas"] == 5


def test_scale_can_be_applied_and_its_manager_owns_the_replicas(api: Api, scaled: str) -> None:
    body = named("Scale", "scaled", "autoscaling/v1", spec={"replicas": 6})

    answer = api.apply(f"{scaled}/scale", body, "scaler", force=True)

    assert answer.json()["spec"] == {"replicas": 6}
    owners = [
        (entry["manager"], entry["operation"], entry["subresource"], entry["fieldsV1"])
        for entry in api.get(scaled).json()["metadata"]["managedFields"]
        if entry["manager"] == "scaler"
    ]
    assert owners == [("scaler", "Apply", "scale", {"f:spec": {"f:replicas": {}}})]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([step("replace", "/spec/replicas", -7)], "replicas: Invalid value: -7: must be greater than or equal to 0"),
        ([step("add", "/spec/nope", 1)], 'strict decoding error: unknown field "spec.nope"'),
        (
            [step("replace", "/spec/replicas", "many")],
            f"{UNMARSHAL} string into Go struct field ScaleSpec.spec.replicas of type int32",
        ),
    ],
)
def test_a_wrong_scale_is_refused(api: Api, scaled: str, body: list[Obj], message: str) -> None:
    answer = api.patch(f"{scaled}/scale", body, JSON_PATCH, fieldValidation="Strict")

    assert answer.status_code == 422
    assert answer.json()["message"].endswith(message)


def test_status_is_patched_alone(api: Api, scaled: str) -> None:
    operations = [step("add", "/status/replicas", 2), step("replace", "/spec/replicas", 9)]

    answer = api.patch(f"{scaled}/status", operations, JSON_PATCH)

    assert answer.json()["status"]["replicas"] == 2
    assert answer.json()["spec"]["replicas"] != 9


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"data": {"k": 1}}, 'Invalid value: "map[data:map[k:1]]": '),
        (
            {"nope": [True, None]},
            'Invalid value: "map[nope:[true <nil>]]": strict decoding error: unknown field "nope"',
        ),
    ],
)
def test_a_wrong_strategic_merge_patch_is_shown(api: Api, cm: str, body: Obj, why: str) -> None:
    answer = api.patch(cm, body, STRATEGIC, fieldValidation="Strict")

    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")
    assert why in answer.json()["message"]


def test_custom_resources_take_no_strategic_merge_patch(api: Api, team: str) -> None:
    path = f"/apis/serving.kserve.io/v1beta1{team.removeprefix('/api/v1')}/inferenceservices/none"

    answer = api.patch(path, {}, STRATEGIC)

    assert (answer.status_code, answer.json()["reason"]) == (415, "UnsupportedMediaType")
    assert answer.json()["message"].endswith(MEDIA)


@pytest.mark.parametrize("kind", [MERGE, JSON_PATCH])
def test_null_in_a_list_of_texts_is_an_empty_text(api: Api, cm: str, kind: str) -> None:
    body = {"metadata": {"finalizers": [None]}}

    answer = api.patch(cm, body if kind == MERGE else [step("add", "/metadata/finalizers", [None])], kind)

    assert answer.status_code == 422
    assert 'metadata.finalizers: Invalid value: "": name part must be non-empty' in answer.json()["message"]
