"""Server-side apply: the table "Writing safely" of the facts on the control plane, row by row, and more."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.conftest import JSON_PATCH, Api, Obj, config_map, named

ISVC = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices"


def isvc(name: str, *, labels: dict[str, str] | None = None, **predictor: Any) -> Obj:
    meta: Obj = {
        "name": name,
        "annotations": {"serving.kserve.io/deploymentMode": "Standard", "serving.kserve.io/autoscalerClass": "none"},
    }
    if labels:
        meta["labels"] = labels
    model = {"modelFormat": {"name": "vLLM"}, "storageUri": "hf://Qwen/Qwen2.5-7B-Instruct"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": meta,
        "spec": {"predictor": {"minReplicas": 1, "model": model, **predictor}},
    }


@pytest.fixture(scope="module")
def team(api: Api) -> str:
    api.namespace("team-apply")
    return ISVC.format("team-apply")


def managers(obj: Obj) -> list[tuple[str, str]]:
    return [(entry["manager"], entry["operation"]) for entry in obj["metadata"].get("managedFields", [])]


def rewrite_to_apply(api: Api, path: str, obj: Obj, version: str | None = None) -> Any:
    """Turn the Update entry of slipway into an Apply entry, as the reconciler does."""
    index = managers(obj).index(("slipway", "Update"))
    operations = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": version or obj["metadata"]["resourceVersion"]},
        {"op": "replace", "path": f"/metadata/managedFields/{index}/operation", "value": "Apply"},
    ]
    return api.patch(path, operations, JSON_PATCH)


def test_a_post_with_a_field_manager_leaves_an_update_entry(api: Api, team: str) -> None:
    made = api.post(team, isvc("posted"), fieldManager="slipway")

    assert made.status_code == 201
    assert managers(made.json()) == [("slipway", "Update")]


def test_apply_leaves_fields_of_an_earlier_post_alone(api: Api, team: str) -> None:
    api.post(team, isvc("kept", labels={"a": "1", "b": "2"}, timeout=600), fieldManager="slipway")

    applied = api.apply(f"{team}/kept", isvc("kept", labels={"a": "1"}), force=True)

    assert applied.status_code == 200
    assert applied.json()["spec"]["predictor"]["timeout"] == 600
    assert applied.json()["metadata"]["labels"] == {"a": "1", "b": "2"}
    assert managers(applied.json()) == [("slipway", "Apply"), ("slipway", "Update")]


def test_after_the_rewrite_to_apply_dropped_fields_and_labels_go(api: Api, team: str) -> None:
    made = api.post(team, isvc("dropped", labels={"a": "1", "b": "2"}, timeout=600), fieldManager="slipway").json()

    rewritten = rewrite_to_apply(api, f"{team}/dropped", made)
    applied = api.apply(f"{team}/dropped", isvc("dropped", labels={"a": "1"}), force=True)

    assert rewritten.status_code == 200
    assert managers(rewritten.json()) == [("slipway", "Apply")]
    assert "timeout" not in applied.json()["spec"]["predictor"]
    assert applied.json()["metadata"]["labels"] == {"a": "1"}
    assert managers(applied.json()) == [("slipway", "Apply")]


def test_the_rewrite_with_a_stale_version_is_invalid(api: Api, team: str) -> None:
    made = api.post(team, isvc("stale"), fieldManager="slipway").json()
    api.patch(f"{team}/stale", {"metadata": {"labels": {"x": "y"}}})

    answer = rewrite_to_apply(api, f"{team}/stale", made)

    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")


def test_apply_with_the_uid_of_another_object_is_invalid(api: Api, team: str) -> None:
    api.post(team, isvc("mine"), fieldManager="slipway")
    body = isvc("mine")
    body["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"

    answer = api.apply(f"{team}/mine", body, force=True)

    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")
    assert "metadata.uid: Invalid value" in answer.json()["message"]
    assert answer.json()["message"].endswith("field is immutable")


def test_apply_with_a_uid_neither_adopts_nor_recreates(api: Api, team: str) -> None:
    body = isvc("gone")
    body["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"

    answer = api.apply(f"{team}/gone", body, force=True)

    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    assert "uid mismatch" in answer.json()["message"]
    assert answer.json()["message"].endswith("and no existing object was found")
    assert api.get(f"{team}/gone").status_code == 404


def test_apply_with_a_resource_version_creates_all_the_same(api: Api, team: str) -> None:
    body = isvc("unguarded")
    body["metadata"]["resourceVersion"] = "7"

    assert api.apply(f"{team}/unguarded", body, force=True).status_code == 201


def test_apply_without_a_change_keeps_the_resource_version(api: Api, team: str) -> None:
    first = api.apply(f"{team}/same", isvc("same"), force=True).json()
    second = api.apply(f"{team}/same", isvc("same"), force=True)

    assert second.status_code == 200
    assert second.json()["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


@pytest.mark.parametrize("exists", [False, True])
def test_apply_of_an_unknown_field_is_a_500(api: Api, team: str, exists: bool) -> None:
    name = f"unknown-{exists}".lower()
    if exists:
        api.apply(f"{team}/{name}", isvc(name))
    body = isvc(name) | {"nope": 1}

    answer = api.apply(f"{team}/{name}", body, fieldValidation="Strict", force=True)

    assert answer.status_code == 500
    assert answer.json()["message"] == (
        f"failed to create typed patch object (/{name}; serving.kserve.io/v1beta1, Kind=InferenceService): "
        ".nope: field not declared in schema"
    )


def test_apply_without_force_names_who_owns_the_field(api: Api, team: str) -> None:
    api.apply(f"{team}/fought", isvc("fought"), manager="other")

    answer = api.apply(f"{team}/fought", isvc("fought", minReplicas=2))

    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    assert answer.json()["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "other"',
            "field": ".spec.predictor.minReplicas",
        }
    ]


def test_a_conflict_is_found_before_another_name(api: Api, team: str) -> None:
    api.apply(f"{team}/placed", isvc("placed"), manager="other")

    conflicting = api.apply(f"{team}/placed", isvc("new", minReplicas=2))
    agreeing = api.apply(f"{team}/placed", isvc("new"))

    assert (conflicting.status_code, conflicting.json()["reason"]) == (409, "Conflict")
    assert agreeing.status_code == 400
    assert agreeing.json()["message"] == "the name of the object (new) does not match the name on the URL (placed)"


def test_force_takes_the_field_from_its_owner(api: Api, team: str) -> None:
    api.apply(f"{team}/taken", isvc("taken"), manager="other")

    applied = api.apply(f"{team}/taken", isvc("taken", minReplicas=2), force=True).json()

    owners = [e["manager"] for e in applied["metadata"]["managedFields"]
              if "f:minReplicas" in e["fieldsV1"]["f:spec"]["f:predictor"]]  # fmt: skip
    assert owners == ["slipway"]


def test_two_appliers_may_agree_and_the_value_stays_until_both_let_go(api: Api) -> None:
    path = api.namespace("team-shared") + "/configmaps/shared"
    for manager in ("one", "two"):
        api.apply(path, config_map("shared", a="1"), manager)

    left = api.apply(path, config_map("shared"), "one").json()
    assert left["data"] == {"a": "1"}
    gone = api.apply(path, config_map("shared"), "two").json()
    assert not gone.get("data")


def test_delete_with_a_wrong_uid_is_a_conflict(api: Api, team: str) -> None:
    api.post(team, isvc("guarded"))

    answer = api.delete(f"{team}/guarded", {"preconditions": {"uid": "11111111-2222-3333-4444-555555555555"}})

    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    assert api.get(f"{team}/guarded").status_code == 200


def test_lists_with_keys_join_item_by_item(api: Api) -> None:
    path = api.namespace("team-lists").replace("/api/v1", "/apis/apps/v1") + "/deployments/web"

    def deployment(*containers: Obj) -> Obj:
        template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": list(containers)}}
        spec = {"selector": {"matchLabels": {"app": "web"}}, "template": template}
        return named("Deployment", "web", "apps/v1", spec=spec)

    api.apply(path, deployment({"name": "main", "image": "a:1"}), "one")
    api.apply(path, deployment({"name": "main"}, {"name": "side", "image": "b:1"}), "two")

    def images() -> dict[str, str]:
        containers = api.get(path).json()["spec"]["template"]["spec"]["containers"]
        return {container["name"]: container["image"] for container in containers}

    assert images() == {"main": "a:1", "side": "b:1"}
    api.apply(path, deployment({"name": "main"}), "two")
    assert images() == {"main": "a:1"}


def test_atomic_lists_change_hands_as_a_whole(api: Api, team: str) -> None:
    def with_args(*args: str) -> Obj:
        body = isvc("args")
        body["spec"]["predictor"]["model"]["args"] = list(args)
        return body

    api.apply(f"{team}/args", with_args("--a"), "one")
    answer = api.apply(f"{team}/args", with_args("--a", "--b"), "two")

    assert answer.status_code == 409
    assert answer.json()["details"]["causes"][0]["field"] == ".spec.predictor.model.args"


def test_an_update_takes_ownership_and_a_forced_apply_takes_it_back(api: Api, team: str) -> None:
    api.apply(f"{team}/edited", isvc("edited"))
    edited = api.patch(
        f"{team}/edited", {"spec": {"predictor": {"minReplicas": 5}}}, fieldManager="kubectl-edit"
    ).json()
    assert ("kubectl-edit", "Update") in managers(edited)

    assert api.apply(f"{team}/edited", isvc("edited")).status_code == 409
    forced = api.apply(f"{team}/edited", isvc("edited"), force=True).json()

    assert forced["spec"]["predictor"]["minReplicas"] == 1
    assert managers(forced) == [("slipway", "Apply")]


def test_status_is_owned_apart(api: Api, team: str) -> None:
    api.apply(f"{team}/reported", isvc("reported"))
    body = {"status": {"url": "http://x.example.com"}}

    reported = api.patch(f"{team}/reported/status", body, fieldManager="controller").json()

    entry = next(e for e in reported["metadata"]["managedFields"] if e["manager"] == "controller")
    assert entry["subresource"] == "status"
    assert entry["fieldsV1"] == {"f:status": {".": {}, "f:url": {}}}
    again = api.apply(f"{team}/reported", isvc("reported", timeout=60)).json()
    assert again["status"] == {"url": "http://x.example.com"}


def test_apply_needs_a_manager(api: Api, team: str) -> None:
    answer = api.patch(f"{team}/nobody", isvc("nobody"), "application/apply-patch+yaml")

    assert answer.status_code == 422
    assert "fieldManager" in answer.json()["message"]


def test_dry_run_answers_but_stores_nothing(api: Api, team: str) -> None:
    answer = api.apply(f"{team}/dry", isvc("dry"), dryRun="All")

    assert answer.status_code == 201
    assert answer.json()["metadata"]["uid"]
    assert api.get(f"{team}/dry").status_code == 404


def test_apply_reads_yaml(api: Api) -> None:
    path = api.namespace("team-yaml") + "/configmaps/yaml"
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml\ndata:\n  a: '1'\n"

    answer = api.http.patch(
        path, content=text, headers={"Content-Type": "application/apply-patch+yaml"}, params={"fieldManager": "m"}
    )

    assert answer.status_code == 201
    assert answer.json()["data"] == {"a": "1"}
