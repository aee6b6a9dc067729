"""The real kubectl explaining, applying, patching, scaling, comparing and waiting against the lite server."""

from __future__ import annotations

import gzip
import json

import pytest
import yaml

from sandbox.lite.testing import RunningCluster
from tests.sandbox.conftest import Api, Obj, config_map, kubectl, named

NAMESPACE = "team-kubectl-writes"


@pytest.fixture(scope="module")
def team(api: Api) -> str:
    return api.namespace(NAMESPACE)


@pytest.fixture(scope="module")
def apps(team: str) -> str:
    return team.replace("/api/v1", "/apis/apps/v1") + "/deployments"


@pytest.fixture(scope="module")
def services(team: str) -> str:
    return team.replace("/api/v1", "/apis/serving.kserve.io/v1beta1") + "/inferenceservices"


def deployment(name: str, image: str = "web:1", *more: str, replicas: int = 2) -> Obj:
    containers = [{"name": "web", "image": image, "ports": [{"containerPort": 80}]}]
    containers += [{"name": other, "image": f"{other}:1"} for other in more]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return named("Deployment", name, "apps/v1", spec=spec)


def isvc(name: str, **predictor: object) -> Obj:
    model = {"modelFormat": {"name": "vllm"}, "storageUri": "hf://org/model", "args": ["--a"]}
    spec = {"predictor": {"model": model, **predictor}}
    return named("InferenceService", name, "serving.kserve.io/v1beta1", spec=spec)


def run(cluster: RunningCluster, *words: str, text: Obj | None = None) -> str:
    said = kubectl(cluster, *words, "-n", NAMESPACE, text=None if text is None else yaml.safe_dump(text))
    return said.strip()


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["inferenceservice.spec.predictor.model"], ["KIND:       InferenceService", "  storageUri\t<string>"]),
        (["pod.spec.containers"], ["FIELD: containers <[]Container>", "  envFrom\t<[]EnvFromSource>"]),
        (["pod.spec.containers.resources.limits"], ["FIELD: limits <map[string]Quantity>"]),
        (["svc.spec.ports.targetPort"], ["FIELD: targetPort <IntOrString>"]),
        (["httproute.spec.rules.matches.path.type"], ["    PathPrefix"]),
        (["gateway", "--api-version=gateway.networking.k8s.io/v1beta1"], ["VERSION:    v1beta1"]),
        (["validatingadmissionpolicy.spec"], ["  matchConstraints\t<MatchResources>"]),
        (["pod.spec.nope"], ['error: field "nope" does not exist']),
    ],
)
def test_explain(lite: RunningCluster, words: list[str], lines: list[str]) -> None:
    said = kubectl(lite, "explain", *words).splitlines()

    assert [line for line in lines if line not in said] == []


def test_explain_goes_down_to_the_leaves(lite: RunningCluster) -> None:
    said = kubectl(lite, "explain", "llminferenceservice", "--recursive")

    assert len(said.splitlines()) == 5947  # as many as from kube-apiserver 1.36.3
    assert "        matchExpressions\t<[]Object>" in said


def test_documents_are_packed_once_and_known_by_their_mark(api: Api) -> None:
    path = "/openapi/v3/apis/serving.kserve.io/v1beta1"

    first = api.http.get(path, headers={"Accept-Encoding": "gzip"})
    plain = api.http.get(path, headers={"Accept-Encoding": "identity"})
    again = api.http.get(path, headers={"If-None-Match": first.headers["etag"]})

    assert first.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert json.loads(plain.content) == first.json()
    assert len(gzip.compress(plain.content)) < len(plain.content) / 5
    assert (again.status_code, again.content) == (304, b"")


def test_a_document_tells_which_patches_a_kind_takes(api: Api) -> None:
    for path, strategic in (("apis/apps/v1", True), ("apis/serving.kserve.io/v1beta1", False)):
        paths = api.get(f"/openapi/v3/{path}").json()["paths"].values()
        contents = [entry["patch"]["requestBody"]["content"] for entry in paths]
        assert {"application/strategic-merge-patch+json" in content for content in contents} == {strategic}


def test_a_changed_definition_changes_its_document(api: Api) -> None:
    mark = api.get("/openapi/v3").json()["paths"]["apis/apps/v1"]["serverRelativeURL"]
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"plural": "explained", "kind": "Explained"}
    spec = {"group": "explain.slipway.dev", "scope": "Namespaced", "names": names, "versions": [version]}
    crd = named("CustomResourceDefinition", "explained.explain.slipway.dev", "apiextensions.k8s.io/v1", spec=spec)

    assert api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd).status_code == 201

    assert api.get("/openapi/v3").json()["paths"]["apis/apps/v1"]["serverRelativeURL"] != mark
    document = api.get("/openapi/v3/apis/explain.slipway.dev/v1").json()
    assert list(document["paths"]) == [
        "/apis/explain.slipway.dev/v1/namespaces/{namespace}/explained/{name}",
    ]


def test_apply_of_a_built_in_kind_merges_lists_by_key(lite: RunningCluster, api: Api, apps: str) -> None:
    own = {"spec": {"template": {"spec": {"containers": [{"name": "own", "image": "o"}]}}}}
    said = [
        run(lite, "apply", "-f", "-", text=deployment("applied", "web:1", "side")),
        run(lite, "apply", "-f", "-", text=deployment("applied", "web:1", "side")),
        run(lite, "patch", "deployment/applied", "-p", json.dumps(own)),
        run(lite, "apply", "-f", "-", text=deployment("applied", "web:2")),
    ]

    what = "deployment.apps/applied"
    assert said == [f"{what} created", f"{what} unchanged", f"{what} patched", f"{what} configured"]
    containers = api.get(f"{apps}/applied").json()["spec"]["template"]["spec"]["containers"]
    assert {(one["name"], one["image"]) for one in containers} == {("web", "web:2"), ("own", "o")}


def test_apply_of_a_custom_resource_removes_what_was_left_out(lite: RunningCluster, api: Api, services: str) -> None:
    first = run(lite, "apply", "-f", "-", text=isvc("applied", minReplicas=2))
    second = run(lite, "apply", "-f", "-", text=isvc("applied", timeout=30))

    what = "inferenceservice.serving.kserve.io/applied"
    assert (first, second) == (f"{what} created", f"{what} configured")
    predictor = api.get(f"{services}/applied").json()["spec"]["predictor"]
    assert ("minReplicas" in predictor, predictor["timeout"]) == (False, 30)


@pytest.mark.parametrize(
    ("kind", "patch", "replicas"),
    [
        ("json", [{"op": "replace", "path": "/spec/replicas", "value": 3}], 3),
        ("merge", {"spec": {"replicas": 4}}, 4),
        ("strategic", {"spec": {"replicas": 5}}, 5),
    ],
)
def test_patch_takes_each_form(
    lite: RunningCluster, api: Api, apps: str, kind: str, patch: object, replicas: int
) -> None:
    api.post(apps, deployment("patched"))

    said = run(lite, "patch", "deployment/patched", f"--type={kind}", "-p", json.dumps(patch))

    assert said == "deployment.apps/patched patched"
    assert api.get(f"{apps}/patched").json()["spec"]["replicas"] == replicas


def test_patch_says_what_is_wrong(lite: RunningCluster, api: Api, services: str) -> None:
    api.post(services, isvc("wrong"))

    failed = run(lite, "patch", "isvc/wrong", "--type=json", "-p", '[{"op":"test","path":"/spec/nope","value":1}]')
    strategic = run(lite, "patch", "isvc/wrong", "-p", "{}")
    unknown = run(lite, "patch", "isvc/wrong", "--type=merge", "-p", '{"spec":{"nope":1}}')

    assert failed.endswith("the server rejected our request due to an error in our request")
    assert "application/strategic-merge-patch+json is not supported" in strategic
    assert 'Warning: unknown field "spec.nope"' in unknown


def test_scale_and_the_scale_subresource(lite: RunningCluster, api: Api, apps: str) -> None:
    api.post(apps, deployment("scaled"))

    scaled = run(lite, "scale", "deployment/scaled", "--replicas=5")
    refused = run(lite, "scale", "deployment/scaled", "--replicas=1", "--current-replicas=9")
    patched = run(
        lite, "patch", "deployment/scaled", "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":6}}'
    )

    assert (scaled, refused) == ("deployment.apps/scaled scaled", "error: Expected replicas to be 9, was 5")
    assert patched == "scale.autoscaling/scaled patched"
    assert api.get(f"{apps}/scaled").json()["spec"]["replicas"] == 6


def test_diff_shows_what_an_apply_would_change(lite: RunningCluster) -> None:
    for first, second, gone, come in (
        (deployment("compared", "web:1", "side"), deployment("compared", "web:2"), "image: web:1", "image: web:2"),
        (isvc("compared", minReplicas=1), isvc("compared", minReplicas=3), "minReplicas: 1", "minReplicas: 3"),
    ):
        run(lite, "apply", "-f", "-", text=first)
        same = run(lite, "diff", "-f", "-", text=first)
        changed = run(lite, "diff", "-f", "-", text=second).splitlines()

        assert same == ""
        assert [line for line in changed if line.startswith("-") and line.endswith(gone)]
        assert [line for line in changed if line.startswith("+") and line.endswith(come)]


def test_wait_for_a_value_a_creation_and_an_end(lite: RunningCluster, api: Api, team: str, apps: str) -> None:
    api.post(apps, deployment("awaited", replicas=7))
    api.post(f"{team}/configmaps", config_map("awaited"))

    assert "condition met" in run(lite, "wait", "--for=jsonpath={.spec.replicas}=7", "deployment/awaited")
    assert "condition met" in run(lite, "wait", "--for=create", "cm/awaited", "--timeout=5s")
    assert "timed out" in run(lite, "wait", "--for=condition=Available", "deployment/awaited", "--timeout=1s")
    api.delete(f"{team}/configmaps/awaited")
    assert run(lite, "wait", "--for=delete", "cm/awaited", "--timeout=5s") == ""
