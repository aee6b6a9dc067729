"""Create, read, list, update, patch and delete, and the answers when they cannot be done."""

from __future__ import annotations

import pytest

from tests.sandbox.conftest import JSON_PATCH, STRATEGIC, Api, Obj, config_map, named, pod


@pytest.fixture(scope="module")
def team(api: Api) -> str:
    return api.namespace("team-verbs")


def deployment(name: str, replicas: int = 1, image: str = "engine:1") -> Obj:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return named("Deployment", name, "apps/v1", spec=spec)


def deployments(team: str) -> str:
    return team.replace("/api/v1", "/apis/apps/v1") + "/deployments"


def test_a_created_object_has_identity_and_can_be_read(api: Api, team: str) -> None:
    made = api.post(f"{team}/configmaps", config_map("first", a="1"))

    meta = made.json()["metadata"]
    assert made.status_code == 201
    assert len(meta["uid"]) == 36
    assert meta["creationTimestamp"].endswith("Z")
    assert api.get(f"{team}/configmaps/first").json() == made.json()


def test_a_taken_name_is_refused(api: Api, team: str) -> None:
    api.post(f"{team}/configmaps", config_map("taken"))

    answer = api.post(f"{team}/configmaps", config_map("taken"))

    assert (answer.status_code, answer.json()["reason"]) == (409, "AlreadyExists")
    assert answer.json()["message"] == 'configmaps "taken" already exists'


def test_generate_name_adds_a_random_end(api: Api, team: str) -> None:
    body = config_map("x")
    body["metadata"] = {"generateName": "run-"}

    names = {api.post(f"{team}/configmaps", body).json()["metadata"]["name"] for _ in range(3)}

    assert len(names) == 3
    assert all(name.startswith("run-") and len(name) == 9 for name in names)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/v1/namespaces/team-verbs/configmaps/nothing", 'configmaps "nothing" not found'),
        ("/apis/apps/v1/namespaces/team-verbs/deployments/no", 'deployments.apps "no" not found'),
        ("/apis/nothing/v1/things", "the server could not find the requested resource"),
    ],
)
def test_what_is_not_there_is_a_404(api: Api, path: str, message: str) -> None:
    answer = api.get(path)

    assert (answer.status_code, answer.json()["message"]) == (404, message)


def test_an_update_with_an_old_version_conflicts(api: Api, team: str) -> None:
    old = api.post(f"{team}/configmaps", config_map("raced", a="1")).json()
    api.put(f"{team}/configmaps/raced", old | {"data": {"a": "2"}})

    answer = api.put(f"{team}/configmaps/raced", old | {"data": {"a": "3"}})

    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    assert answer.json()["message"] == (
        'Operation cannot be fulfilled on configmaps "raced": the object has been modified; please apply your changes '
        "to the latest version and try again"
    )
    assert api.get(f"{team}/configmaps/raced").json()["data"] == {"a": "2"}


def test_an_update_that_changes_nothing_keeps_the_version(api: Api, team: str) -> None:
    made = api.post(f"{team}/configmaps", config_map("still", a="1")).json()

    again = api.put(f"{team}/configmaps/still", made).json()

    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_generation_counts_spec_alone(api: Api, team: str) -> None:
    path = deployments(team)
    assert api.post(path, deployment("counted")).json()["metadata"]["generation"] == 1

    labelled = api.patch(f"{path}/counted", {"metadata": {"labels": {"x": "y"}}}).json()
    reported = api.patch(f"{path}/counted/status", {"status": {"replicas": 1}}).json()
    scaled = api.patch(f"{path}/counted", {"spec": {"replicas": 3}}).json()

    assert [o["metadata"]["generation"] for o in (labelled, reported, scaled)] == [1, 1, 2]


def test_status_and_spec_are_written_through_their_own_doors(api: Api, team: str) -> None:
    path = deployments(team)
    api.post(path, deployment("split"))

    by_main = api.patch(f"{path}/split", {"status": {"replicas": 9}, "spec": {"replicas": 2}}).json()
    by_status = api.patch(f"{path}/split/status", {"status": {"replicas": 1}, "spec": {"replicas": 7}}).json()

    assert by_main["status"].get("replicas") is None
    assert (by_status["spec"]["replicas"], by_status["status"]["replicas"]) == (2, 1)


def test_merge_patch_removes_with_null(api: Api, team: str) -> None:
    api.post(f"{team}/configmaps", config_map("merged", a="1", b="2"))

    assert api.patch(f"{team}/configmaps/merged", {"data": {"a": None, "c": "3"}}).json()["data"] == {
        "b": "2",
        "c": "3",
    }


def test_strategic_merge_joins_lists_by_key_and_deletes_by_directive(api: Api, team: str) -> None:
    path = deployments(team)
    body = deployment("patched")
    body["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "side:1"})
    api.post(path, body)

    containers: list[Obj] = [{"name": "main", "image": "engine:2"}, {"name": "side", "$patch": "delete"}]
    change = {"spec": {"template": {"spec": {"containers": containers}}}}
    patched = api.patch(f"{path}/patched", change, STRATEGIC).json()

    assert [(c["name"], c["image"]) for c in patched["spec"]["template"]["spec"]["containers"]] == [
        ("main", "engine:2")
    ]


def test_a_failed_json_patch_test_is_a_422(api: Api, team: str) -> None:
    api.post(f"{team}/configmaps", config_map("tested", a="1"))
    operations = [{"op": "test", "path": "/data/a", "value": "2"}, {"op": "remove", "path": "/data/a"}]

    answer = api.patch(f"{team}/configmaps/tested", operations, JSON_PATCH)

    assert answer.status_code == 422
    assert api.get(f"{team}/configmaps/tested").json()["data"] == {"a": "1"}


def test_pages_join_to_the_whole_list(api: Api) -> None:
    path = api.namespace("team-pages") + "/configmaps"
    for index in range(7):
        api.post(path, config_map(f"c{index}"))
    names: list[str] = []
    token = None
    while True:
        page = api.get(path, limit=3, **({"continue": token} if token else {})).json()
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue")
        if not token:
            break

    assert [name for name in names if name.startswith("c")] == [f"c{index}" for index in range(7)]
    assert len(names) == len(api.get(path).json()["items"])


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("tier=gold", {"a"}),
        ("tier!=gold", {"b", "c"}),
        ("tier in (gold, silver)", {"a", "b"}),
        ("tier notin (gold)", {"b", "c"}),
        ("tier", {"a", "b"}),
        ("!tier", {"c"}),
        ("tier,zone=1", {"b"}),
    ],
)
def test_label_selectors(api: Api, selector: str, names: set[str]) -> None:
    path = "/api/v1/namespaces/team-labels/secrets"
    if api.get("/api/v1/namespaces/team-labels").status_code == 404:
        api.namespace("team-labels")
        api.post(path, named("Secret", "a", labels={"tier": "gold"}))
        api.post(path, named("Secret", "b", labels={"tier": "silver", "zone": "1"}))
        api.post(path, named("Secret", "c"))

    found = api.get(path, labelSelector=selector).json()["items"]

    assert {item["metadata"]["name"] for item in found} == names


def test_field_selectors(api: Api, team: str) -> None:
    api.post(f"{team}/pods", pod("free"))
    api.post(f"{team}/pods", pod("placed", {"nodeName": "gpu-1"}))

    def names(selector: str) -> list[str]:
        return [item["metadata"]["name"] for item in api.get("/api/v1/pods", fieldSelector=selector).json()["items"]]

    assert names("spec.nodeName=gpu-1") == ["placed"]
    assert names("metadata.namespace=team-verbs,spec.nodeName=") == ["free"]
    assert names("metadata.name=free") == ["free"]
    assert api.get("/api/v1/pods", fieldSelector="spec.color=red").status_code == 400


def test_finalizers_hold_an_object_until_they_are_gone(api: Api, team: str) -> None:
    body = config_map("held")
    body["metadata"]["finalizers"] = ["slipway.dev/wait"]
    api.post(f"{team}/configmaps", body)

    marked = api.delete(f"{team}/configmaps/held").json()
    assert marked["metadata"]["deletionTimestamp"]
    assert api.get(f"{team}/configmaps/held").status_code == 200

    more = api.patch(f"{team}/configmaps/held", {"metadata": {"finalizers": ["slipway.dev/wait", "slipway.dev/more"]}})
    assert (more.status_code, more.json()["details"]["causes"][0]["reason"]) == (422, "FieldValueForbidden")
    assert more.json()["message"].endswith('is being deleted, found new finalizers []string{"slipway.dev/more"}')

    api.patch(f"{team}/configmaps/held", {"metadata": {"finalizers": None}})
    assert api.get(f"{team}/configmaps/held").status_code == 404


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
def test_propagation_policies_leave_work_for_the_collector(api: Api, team: str, policy: str, finalizer: str) -> None:
    name = f"owner-{policy.lower()}"
    api.post(f"{team}/configmaps", config_map(name))

    marked = api.delete(f"{team}/configmaps/{name}", {"propagationPolicy": policy}).json()

    assert marked["metadata"]["finalizers"] == [finalizer]


def test_a_bound_pod_waits_for_its_kubelet(api: Api, team: str) -> None:
    api.post(f"{team}/pods", pod("leaving", {"nodeName": "gpu-1", "terminationGracePeriodSeconds": 20}))

    marked = api.delete(f"{team}/pods/leaving").json()
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 20
    assert api.get(f"{team}/pods/leaving").status_code == 200

    gone = api.delete(f"{team}/pods/leaving", {"gracePeriodSeconds": 0})
    assert gone.json()["metadata"]["deletionGracePeriodSeconds"] == 0
    assert api.get(f"{team}/pods/leaving").status_code == 404


def test_an_unbound_pod_goes_at_once(api: Api, team: str) -> None:
    api.post(f"{team}/pods", pod("waiting"))

    assert api.delete(f"{team}/pods/waiting").json()["metadata"]["deletionGracePeriodSeconds"] == 0
    assert api.get(f"{team}/pods/waiting").status_code == 404


def test_delete_collection_takes_what_the_selector_takes(api: Api) -> None:
    path = api.namespace("team-many") + "/configmaps"
    for name in ("a", "b"):
        api.post(path, config_map(name, labels={"gone": "yes"}))
    api.post(path, config_map("c"))

    api.delete(path, labelSelector="gone=yes")

    names = {item["metadata"]["name"] for item in api.get(path).json()["items"]}
    assert names == {"c", "kube-root-ca.crt"}


def test_scale_reads_and_writes_replicas(api: Api, team: str) -> None:
    path = deployments(team)
    api.post(path, deployment("scaled", replicas=2))

    current = api.get(f"{path}/scaled/scale").json()
    assert (current["kind"], current["spec"]["replicas"], current["status"]["selector"]) == ("Scale", 2, "app=scaled")
    api.patch(f"{path}/scaled/scale", {"spec": {"replicas": 5}})

    assert api.get(f"{path}/scaled").json()["spec"]["replicas"] == 5


def test_a_pod_is_bound_once(api: Api, team: str) -> None:
    api.post(f"{team}/pods", pod("bound"))
    target = named("Binding", "bound", target={"kind": "Node", "name": "gpu-1"})

    first, second = (api.post(f"{team}/pods/bound/binding", target) for _ in range(2))

    found = api.get(f"{team}/pods/bound").json()
    assert (first.status_code, second.status_code) == (201, 409)
    assert found["spec"]["nodeName"] == "gpu-1"
    assert {c["type"]: c["status"] for c in found["status"]["conditions"]} == {"PodScheduled": "True"}


def test_eviction_respects_the_disruption_budget(api: Api, team: str) -> None:
    budget_path = team.replace("/api/v1", "/apis/policy/v1") + "/poddisruptionbudgets"
    api.post(
        budget_path,
        named(
            "PodDisruptionBudget", "one", "policy/v1", spec={"minAvailable": 1, "selector": {"matchLabels": {"e": "1"}}}
        ),
    )
    for name in ("e1", "e2"):
        api.post(f"{team}/pods", pod(name, {"nodeName": "gpu-1"}, labels={"e": "1"}))
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        api.patch(f"{team}/pods/{name}/status", {"status": ready})

    answers = [api.post(f"{team}/pods/{n}/eviction", named("Eviction", n, "policy/v1")) for n in ("e1", "e2")]

    assert [answer.status_code for answer in answers] == [201, 429]
    assert "violate the pod's disruption budget" in answers[1].json()["message"]


def test_unknown_fields_are_dropped_with_a_warning_or_refused_when_strict(api: Api, team: str) -> None:
    body = config_map("extra") | {"nope": 1}

    strict = api.post(f"{team}/configmaps", body, fieldValidation="Strict")
    lax = api.post(f"{team}/configmaps", body)

    assert strict.status_code == 400
    assert strict.json()["message"].endswith('strict decoding error: unknown field "nope"')
    assert "nope" not in lax.json()
    assert lax.headers["warning"] == '299 - "unknown field \\"nope\\""'


def test_a_new_crd_is_served_at_once_and_its_objects_are_checked(api: Api, team: str) -> None:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 1},
                    "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                },
            }
        },
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {
        "group": "toys.test",
        "scope": "Namespaced",
        "names": {"plural": "balls", "kind": "Ball"},
        "versions": [version],
    }
    api.post(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        named("CustomResourceDefinition", "balls.toys.test", "apiextensions.k8s.io/v1", spec=spec),
    )
    path = team.replace("/api/v1", "/apis/toys.test/v1") + "/balls"

    good = api.post(path, named("Ball", "good", "toys.test/v1", spec={"size": 2, "weight": 3}))
    bad = api.post(path, named("Ball", "bad", "toys.test/v1", spec={"size": 0, "colour": "green"}))
    empty = api.post(path, named("Ball", "empty", "toys.test/v1", spec={}))

    assert good.json()["spec"] == {"size": 2, "colour": "red"}
    assert {c["field"]: c["message"] for c in bad.json()["details"]["causes"]} == {
        "spec.size": "Invalid value: 0: spec.size in body should be greater than or equal to 1",
        "spec.colour": 'Unsupported value: "green": supported values: "red", "blue"',
    }
    assert (empty.status_code, empty.json()["details"]["causes"][0]["message"]) == (422, "Required value")
    api.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/balls.toys.test")
    assert api.get(path).status_code == 404


def test_an_amount_that_is_neither_number_nor_text_is_told_thrice(api: Api, team: str) -> None:
    model = {"modelFormat": {"name": "vllm"}, "storageUri": "hf://a/b", "resources": {"limits": {"cpu": True}}}
    body = named("InferenceService", "amount", "serving.kserve.io/v1beta1", spec={"predictor": {"model": model}})

    answer = api.post(f"/apis/serving.kserve.io/v1beta1{team.removeprefix('/api/v1')}/inferenceservices", body)

    place = "spec.predictor.model.resources.limits.cpu"
    wrong = f'{place}: Invalid value: "boolean": {place} in body must be of type'
    choice = f'<nil>: Invalid value: "": "{place}" must validate at least one schema (anyOf)'
    assert answer.json()["message"].endswith(
        f'is invalid: [{wrong} integer,string: "boolean", {choice}, {wrong} integer: "boolean"]'
    )
