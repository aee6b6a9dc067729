"""Who may do what: tokens, RBAC, and questions about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sandbox.lite.testing import RunningCluster, running_cluster
from tests.sandbox.conftest import Api, Obj, config_map, named, pod

RBAC = "rbac.authorization.k8s.io/v1"
WORKER = "system:serviceaccount:slipway-system:worker"


def token_of(cluster: RunningCluster, account: str) -> str:
    config = yaml.safe_load(cluster.kubeconfig_of(account).read_text())
    return str(config["users"][0]["user"]["token"])


@pytest.fixture(scope="module")
def team(api: Api) -> str:
    return api.namespace("team-access")


@pytest.fixture(scope="module")
def worker(lite: RunningCluster) -> Iterator[Api]:
    """Requests of an account that holds nothing yet."""
    found = Api.of(lite, token_of(lite, "worker"))
    yield found
    found.http.close()


def grant(api: Api, team: str, name: str, rules: list[Obj]) -> None:
    """Give the worker a role in one namespace."""
    roles = team.replace("/api/v1", f"/apis/{RBAC}")
    api.post(f"{roles}/roles", named("Role", name, RBAC, rules=rules))
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": "slipway-system"}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    api.post(f"{roles}/rolebindings", named("RoleBinding", name, RBAC, subjects=[subject], roleRef=ref))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "/api/v1/namespaces/team-access/pods/x",
            f'pods "x" is forbidden: User "{WORKER}" cannot get resource "pods" in API group "" in the namespace '
            '"team-access"',
        ),
        (
            "/api/v1/nodes",
            f'nodes is forbidden: User "{WORKER}" cannot list resource "nodes" in API group "" at the cluster scope',
        ),
        (
            "/apis/apps/v1/namespaces/team-access/deployments/x/scale",
            f'deployments.apps "x" is forbidden: User "{WORKER}" cannot get resource "deployments/scale" in API group '
            '"apps" in the namespace "team-access"',
        ),
    ],
)
def test_what_is_not_granted_is_forbidden(worker: Api, team: str, path: str, message: str) -> None:
    answer = worker.get(path)

    assert (answer.status_code, answer.json()["reason"], answer.json()["message"]) == (403, "Forbidden", message)


def test_a_bad_token_is_unauthorized_and_no_token_is_anonymous(lite: RunningCluster, api: Api) -> None:
    forged = Api.of(lite, token_of(lite, "worker")[:-2] + "xx").get("/api/v1/namespaces")
    silent = api.http.get("/api/v1/namespaces", headers={"Authorization": ""})

    assert (forged.status_code, forged.json()["message"]) == (401, "Unauthorized")
    assert silent.status_code == 403
    assert 'User "system:anonymous" cannot list resource "namespaces"' in silent.json()["message"]


def test_a_role_opens_what_it_names_in_its_namespace_alone(api: Api, worker: Api, team: str) -> None:
    grant(
        api,
        team,
        "reader",
        [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": ["a"]}],
    )
    api.post(f"{team}/configmaps", config_map("a"))

    assert worker.get(f"{team}/configmaps/a").status_code == 200
    assert worker.get(f"{team}/configmaps/b").status_code == 403
    assert worker.get("/api/v1/namespaces/default/configmaps/a").status_code == 403


def test_a_right_to_pods_is_none_to_their_logs(api: Api, worker: Api, team: str) -> None:
    grant(api, team, "pods", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}])
    api.post(f"{team}/pods", pod("p"))

    assert worker.get(f"{team}/pods/p").status_code == 200
    assert worker.get(f"{team}/pods/p/log").status_code == 403


def test_a_right_ends_with_its_binding(api: Api, worker: Api, team: str) -> None:
    grant(api, team, "brief", [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]}])
    path = team.replace("/api/v1", "/apis/apps/v1") + "/deployments"
    assert worker.get(path).status_code == 200

    api.delete(team.replace("/api/v1", f"/apis/{RBAC}") + "/rolebindings/brief")

    assert worker.get(path).status_code == 403


def test_nobody_grants_what_they_do_not_hold(api: Api, worker: Api, team: str) -> None:
    grant(
        api,
        team,
        "granter",
        [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create"]}],
    )
    grant(api, team, "holder", [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}])
    roles = team.replace("/api/v1", f"/apis/{RBAC}") + "/roles"

    def role(name: str, resource: str) -> Obj:
        return named("Role", name, RBAC, rules=[{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}])

    fair, unfair = worker.post(roles, role("fair", "configmaps")), worker.post(roles, role("unfair", "secrets"))

    assert fair.status_code == 201
    assert unfair.status_code == 403
    assert "is attempting to grant RBAC permissions not currently held" in unfair.json()["message"]
    assert '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}' in unfair.json()["message"]


def test_one_may_ask_what_one_may_do(api: Api, worker: Api, team: str) -> None:
    grant(api, team, "asker", [{"apiGroups": [""], "resources": ["services"], "verbs": ["list"]}])

    def allowed(verb: str) -> bool:
        attributes = {"namespace": "team-access", "verb": verb, "resource": "services"}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = worker.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool(answer.json()["status"]["allowed"])

    assert allowed("list")
    assert not allowed("delete")


def test_a_token_asked_for_works_until_its_account_is_gone(lite: RunningCluster, api: Api, team: str) -> None:
    api.post(f"{team}/serviceaccounts", named("ServiceAccount", "brief"))
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    token = api.post(f"{team}/serviceaccounts/brief/token", request).json()["status"]["token"]
    assert Api.of(lite, token).get("/version").status_code == 200
    assert Api.of(lite, token).get("/apis").status_code == 200

    api.delete(f"{team}/serviceaccounts/brief")

    assert Api.of(lite, token).get("/apis").status_code == 401


def test_manifests_given_at_start_grant_their_roles(tmp_path: Path) -> None:
    rules = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]
    subject = {"kind": "ServiceAccount", "name": "watcher", "namespace": "slipway-system"}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "w"}
    documents = [
        named("ClusterRole", "w", RBAC, rules=rules),
        named("ClusterRoleBinding", "w", RBAC, subjects=[subject], roleRef=ref),
        named("Unheard", "of", "not.served/v1"),
        config_map("late") | {"metadata": {"name": "late", "namespace": "made-below"}},
        named("Namespace", "made-below"),
    ]
    (tmp_path / "rbac.yaml").write_text(yaml.safe_dump_all(documents))

    with running_cluster(accounts=("watcher",), manifests=[tmp_path / "rbac.yaml"], controllers=False) as cluster:
        watcher = Api.of(cluster, token_of(cluster, "watcher"))
        assert watcher.get("/api/v1/nodes").status_code == 200
        assert watcher.get("/api/v1/pods").status_code == 403
        assert Api.of(cluster).get("/api/v1/namespaces/made-below/configmaps/late").status_code == 200
