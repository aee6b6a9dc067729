"""ValidatingAdmissionPolicies, those of k8s/portal first; each answer was seen from kube-apiserver 1.36.3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.lite.testing import RunningCluster
from tests.sandbox.conftest import MERGE, Api, Obj, config_map, kubectl, named

RBAC = "rbac.authorization.k8s.io"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
PORTAL = Path(__file__).parents[2] / "k8s" / "portal" / "admission.yaml"
WORKER = {"kind": "ServiceAccount", "name": "worker", "namespace": "slipway-system"}
TEAM = {"slipway.dev/team": "x"}
EVERYTHING = {name: ["*"] for name in ("apiGroups", "apiVersions", "operations", "resources")}
NOT_THERE = "The worker binds roles only in namespaces of teams (label slipway.dev/team)."


@pytest.fixture(scope="module")
def worker(lite: RunningCluster, api: Api) -> Iterator[Api]:
    """Requests of the portal's worker, whom roles forbid nothing here: what refuses is the policies."""
    role = named("ClusterRole", "all", f"{RBAC}/v1", rules=[{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])
    binding = named("ClusterRoleBinding", "all", f"{RBAC}/v1", subjects=[WORKER])
    binding["roleRef"] = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "all"}
    assert api.post(f"/apis/{RBAC}/v1/clusterroles", role).status_code == 201
    assert api.post(f"/apis/{RBAC}/v1/clusterrolebindings", binding).status_code == 201
    said = kubectl(lite, "apply", "-f", str(PORTAL))
    assert said.count("created") == 4, said
    token = yaml.safe_load(lite.kubeconfig_of("worker").read_text())["users"][0]["user"]["token"]
    found = Api.of(lite, token)
    yield found
    found.http.close()
    kubectl(lite, "delete", "-f", str(PORTAL))
    api.delete(f"/apis/{RBAC}/v1/clusterrolebindings/all")
    api.delete(f"/apis/{RBAC}/v1/clusterroles/all")


@pytest.fixture(scope="module")
def places(api: Api) -> dict[str, str]:
    """The paths of RoleBindings in a team's namespace and in one of nobody."""
    paths = {}
    for name, labels in (("team", TEAM), ("plain", {})):
        made = api.namespace(f"policies-{name}", **labels)
        paths[name] = f"/apis/{RBAC}/v1{made.removeprefix('/api/v1')}/rolebindings"
    return paths


def role_binding(name: str, role: str = "slipway-team-worker", **subject: str) -> Obj:
    ref = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}
    return named("RoleBinding", name, f"{RBAC}/v1", roleRef=ref, subjects=[WORKER | subject])


@pytest.mark.parametrize(
    ("place", "binding", "why"),
    [
        ("plain", role_binding("one"), NOT_THERE),
        ("plain", role_binding("two", "admin"), NOT_THERE),
        (
            "team",
            role_binding("three", "admin"),
            "The worker binds only the roles slipway-team-worker and slipway-team-live.",
        ),
        (
            "team",
            role_binding("four", namespace="elsewhere"),
            "The worker binds roles only to Slipway's own accounts.",
        ),
    ],
)
def test_the_worker_binds_only_its_own_roles_in_namespaces_of_teams(
    worker: Api, places: dict[str, str], place: str, binding: Obj, why: str
) -> None:
    name = binding["metadata"]["name"]
    policy = "ValidatingAdmissionPolicy 'slipway-team-bindings' with binding 'slipway-team-bindings' denied request"

    for answer in (worker.post(places[place], binding), worker.apply(f"{places[place]}/{name}", binding)):
        assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
        assert answer.json()["message"] == f'rolebindings.{RBAC} "{name}" is forbidden: {policy}: {why}'
        assert answer.json()["details"]["causes"] == [{"message": f"{policy}: {why}"}]


def test_what_the_worker_may_bind_it_may_not_change_into_something_else(worker: Api, places: dict[str, str]) -> None:
    made = worker.post(places["team"], role_binding("good"))
    changed = worker.patch(f"{places['team']}/good", {"subjects": [WORKER | {"name": "stranger"}]}, MERGE)

    assert made.status_code == 201
    assert changed.status_code == 403


def test_an_admin_binds_what_it_likes(api: Api, worker: Api, places: dict[str, str]) -> None:
    assert api.post(places["plain"], role_binding("admins", "admin")).status_code == 201


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ({}, 403),
        (TEAM, 403),
        (TEAM | {"pod-security.kubernetes.io/enforce": "privileged"}, 403),
        (TEAM | {"pod-security.kubernetes.io/enforce": "restricted"}, 201),
    ],
)
def test_the_worker_makes_only_namespaces_of_teams_with_pod_security(
    worker: Api, labels: dict[str, str], code: int
) -> None:
    body = named("Namespace", f"policies-made-{code}-{len(labels)}", labels=labels)

    assert worker.post("/api/v1/namespaces", body, dryRun="All").status_code == code


Bound = Callable[..., None]


@pytest.fixture
def bound(api: Api) -> Iterator[Bound]:
    """A function that makes a policy for ConfigMaps, and its binding; both go after the test."""
    made = []

    def make(*validations: Obj, actions: tuple[str, ...] = ("Deny",), binding: Obj | None = None, **spec: Any) -> None:
        name = f"policy-{len(made)}"
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"]}
        rules = {"resourceRules": [rule | {"resources": ["configmaps"]} | spec.pop("rule", {})]}
        whole = {"matchConstraints": rules | spec.pop("match", {}), "validations": list(validations)} | spec
        tied = {"policyName": name, "validationActions": list(actions)} | (binding or {})
        api_version = "admissionregistration.k8s.io/v1"
        answers = [
            api.post(POLICIES, named("ValidatingAdmissionPolicy", name, api_version, spec=whole)),
            api.post(BINDINGS, named("ValidatingAdmissionPolicyBinding", name, api_version, spec=tied)),
        ]
        made.append(name)
        assert [answer.status_code for answer in answers] == [201, 201], [answer.text for answer in answers]

    yield make
    for name in made:
        api.delete(f"{BINDINGS}/{name}")
        api.delete(f"{POLICIES}/{name}")


@pytest.fixture(scope="module")
def maps(api: Api, places: dict[str, str]) -> str:
    """The path of ConfigMaps in the team's namespace."""
    return "/api/v1/namespaces/policies-team/configmaps"


def denied(answer: Any) -> str:
    """Return what the policy said."""
    assert answer.status_code != 201, answer.text
    return str(answer.json()["message"].partition("denied request: ")[2])


@pytest.mark.parametrize(
    ("validation", "said", "code"),
    [
        ({"expression": 'object.data.a == "1"'}, 'failed expression: object.data.a == "1"', 422),
        (
            {
                "expression": 'object.data.a == "1"',
                "messageExpression": "'got ' + object.data.a + ' in ' + namespaceObject.metadata.name",
                "reason": "Forbidden",
            },
            "got 2 in policies-team",
            403,
        ),
        ({"expression": "oldObject != null", "message": " new "}, "new", 422),
        (
            {"expression": 'object.data.nope == "1"'},
            "expression 'object.data.nope == \"1\"' resulted in error: no such key: nope",
            422,
        ),
        (
            {
                "expression": "false",
                "messageExpression": "request.operation + request.resource.resource + request.name",
            },
            "CREATEconfigmapstold",
            422,
        ),
    ],
)
def test_what_a_policy_says(api: Api, maps: str, bound: Bound, validation: Obj, said: str, code: int) -> None:
    bound(validation)

    answer = api.post(maps, config_map("told", a="2"))

    assert denied(answer) == said
    assert answer.status_code == code


def test_a_policy_may_warn_instead(api: Api, maps: str, bound: Bound) -> None:
    bound({"expression": "false", "message": "careful"}, actions=("Warn", "Audit"))

    answer = api.post(maps, config_map("warned"), dryRun="All")

    assert answer.status_code == 201
    text = "Validation failed for ValidatingAdmissionPolicy 'policy-0' with binding 'policy-0': careful"
    assert answer.headers["warning"] == f'299 - "{text}"'


def test_errors_may_be_ignored(api: Api, maps: str, bound: Bound) -> None:
    bound({"expression": 'object.data.nope == "1"'}, failurePolicy="Ignore")

    assert api.post(maps, config_map("ignored"), dryRun="All").status_code == 201


def test_variables_build_on_each_other(api: Api, maps: str, bound: Bound) -> None:
    variables = [
        {"name": "data", "expression": "has(object.data) ? object.data : {}"},
        {"name": "has", "expression": '"a" in variables.data'},
    ]
    bound({"expression": "variables.has", "message": "a needed"}, variables=variables)

    assert denied(api.post(maps, config_map("lacking", b="1"))) == "a needed"
    assert api.post(maps, config_map("having", a="1"), dryRun="All").status_code == 201


@pytest.mark.parametrize(
    "part",
    [
        {"match": {"namespaceSelector": {"matchLabels": {"nobody": "has"}}}},
        {"match": {"objectSelector": {"matchLabels": {"nobody": "has"}}}},
        {"match": {"excludeResourceRules": [EVERYTHING]}},
        {"rule": {"operations": ["UPDATE"]}},
        {"rule": {"resources": ["configmaps/status", "secrets"]}},
        {"rule": {"resourceNames": ["other"]}},
        {"rule": {"scope": "Cluster"}},
        {"matchConditions": [{"name": "never", "expression": "request.userInfo.username == 'nobody'"}]},
        {"binding": {"matchResources": {"namespaceSelector": {"matchLabels": {"nobody": "has"}}}}},
    ],
)
def test_a_policy_asks_only_about_what_it_matches(api: Api, maps: str, bound: Bound, part: Obj) -> None:
    bound({"expression": "false"}, **part)

    assert api.post(maps, config_map("unasked"), dryRun="All").status_code == 201


def test_a_policy_must_compile_and_say_something(api: Api) -> None:
    spec: Obj = {"matchConstraints": {"resourceRules": []}, "validations": [{"expression": "object."}]}
    body = named("ValidatingAdmissionPolicy", "broken", "admissionregistration.k8s.io/v1", spec=spec)

    broken = api.post(POLICIES, body)
    empty = api.post(POLICIES, body | {"spec": {"matchConstraints": {}}})

    assert broken.json()["details"]["causes"][0]["field"] == "spec.validations[0].expression"
    assert "compilation failed: ERROR: <input>:1:8: Syntax error" in broken.json()["message"]
    assert [cause["field"] for cause in empty.json()["details"]["causes"]] == [
        "spec.validations",
        "spec.auditAnnotations",
    ]
