"""How the audit log is read and held against what was granted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios import privileges
from tests.scenarios.privileges import ALL_NAMES, CLUSTER_WIDE, IN_TEAMS, Use

RBAC = "rbac.authorization.k8s.io"


def event(account: str, verb: str, resource: str, *, group: str = "", code: int = 200, **target: str) -> dict[str, Any]:
    decision = target.pop("decision", "allow")
    return {
        "user": {"username": f"system:serviceaccount:slipway-system:{account}"},
        "verb": verb,
        "requestURI": f"/{resource}/{target.get('name', '')}",
        "objectRef": {"resource": resource, "apiGroup": group, **target},
        "responseStatus": {"code": code},
        "annotations": {"authorization.k8s.io/decision": decision},
    }


OPENED = (
    event("worker", "get", "namespaces", namespace="search-1", name="search-1", code=404),
    event("worker", "create", "namespaces", name="search-1", code=201),
    event("worker", "create", "rolebindings", group=RBAC, namespace="search-1", name="slipway-worker", code=201),
)


def written(folder: Path, *events: dict[str, Any], name: str = "audit.jsonl") -> Path:
    """A log of these events, and of one that is still being written."""
    path = folder / name
    path.write_text("".join(json.dumps(one) + "\n" for one in events) + '{"user"')
    return path


def bound(kind: str, verb: str, resource: str, **metadata: Any) -> list[dict[str, Any]]:
    """A role with one right, and its binding to the worker."""
    return [
        {
            "kind": "ClusterRole",
            "metadata": {"name": f"{verb}-{resource}"},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": [verb]}],
        },
        {
            "kind": kind,
            "metadata": {"name": "some", **metadata},
            "roleRef": {"kind": "ClusterRole", "name": f"{verb}-{resource}"},
            "subjects": [{"kind": "ServiceAccount", "name": "worker", "namespace": "slipway-system"}],
        },
    ]


def test_a_binding_says_where_a_right_holds():
    granted = privileges.granted(
        [
            *bound("ClusterRoleBinding", "list", "nodes"),
            *bound("RoleBinding", "list", "pods", namespace="any", labels={"slipway.dev/team": "search"}),
            *bound("RoleBinding", "get", "secrets", namespace="kserve"),
        ]
    )
    wanted = {Use("", "nodes", "list"), Use("", "pods", "list", IN_TEAMS), Use("", "secrets", "get", "kserve")}
    assert granted == {"worker": wanted}


def test_a_namespace_is_a_teams_from_the_workers_first_binding_on(tmp_path: Path):
    log = written(
        tmp_path,
        *OPENED,
        event("worker", "create", "rolebindings", group=RBAC, namespace="search-1", name="slipway-live", code=201),
        event("watcher", "get", "pods", subresource="log", namespace="search-1", name="chat"),
        event("watcher", "list", "pods"),
    )
    assert set(privileges.used(log)["worker"]) == {
        Use("", "namespaces", "get", "search-1", "search-1"),
        Use("", "namespaces", "create", CLUSTER_WIDE),
        Use(RBAC, "rolebindings", "create", "search-1"),
        Use(RBAC, "rolebindings", "create", IN_TEAMS),
    }
    assert privileges.used(log)["watcher"] == {
        Use("", "pods/log", "get", IN_TEAMS, "chat"): "/pods/chat",
        Use("", "pods", "list", CLUSTER_WIDE): "/pods/",
    }


def test_a_namespace_that_is_made_again_is_bound_again(tmp_path: Path):
    again = event("worker", "get", "serviceaccounts", namespace="search-1", decision="forbid", code=403)
    log = written(tmp_path, *OPENED, *OPENED[:2], again)
    assert set(privileges.refused(log)["worker"]) == {Use("", "serviceaccounts", "get", "search-1")}


def test_what_admission_forbids_is_no_use(tmp_path: Path):
    grab = event("worker", "create", "rolebindings", group=RBAC, namespace="kube-system", code=403)
    assert privileges.used(written(tmp_path, grab)) == {}
    assert privileges.refused(written(tmp_path, grab)) == {}


def test_the_log_goes_on_from_the_file_that_was_full(tmp_path: Path):
    written(tmp_path, *OPENED, name="audit-2026-11-25T20-00-00.000.jsonl")
    log = written(tmp_path, event("worker", "get", "pods", namespace="search-1"))
    assert Use("", "pods", "get", IN_TEAMS) in privileges.used(log)["worker"]


@pytest.mark.parametrize(
    ("rights", "uses", "complaints"),
    [
        ([CLUSTER_WIDE], [CLUSTER_WIDE, IN_TEAMS], []),
        ([CLUSTER_WIDE], ["kube-system"], []),
        ([CLUSTER_WIDE], [IN_TEAMS], ["get pods cluster-wide: used only in namespaces of teams"]),
        ([CLUSTER_WIDE], [], ["get pods cluster-wide: not used"]),
        ([IN_TEAMS], [IN_TEAMS], []),
        ([IN_TEAMS], [], ["get pods in namespaces of teams: not used"]),
        ([IN_TEAMS], ["default"], ["get pods in namespaces of teams: used only elsewhere"]),
        (
            [CLUSTER_WIDE, IN_TEAMS],
            [CLUSTER_WIDE, IN_TEAMS],
            ["get pods in namespaces of teams: granted cluster-wide as well"],
        ),
    ],
)
def test_a_right_has_to_be_used_as_widely_as_it_was_granted(rights: list[str], uses: list[str], complaints: list[str]):
    right = Use("", "pods", "get")
    assert list(privileges.unused(map(right.at, rights), map(right.at, [*uses]))) == complaints


@pytest.mark.parametrize(
    ("rights", "uses", "complaints"),
    [
        (["kube-system"], ["kube-system"], []),
        (["kube-system"], [], ["get pods kube-system cluster-wide: not used"]),
        (["kube-system", "kube-public"], ["kube-system"], ["get pods kube-public cluster-wide: not used"]),
        ([ALL_NAMES], ["kube-system"], ["get pods cluster-wide: used only of kube-system"]),
        ([ALL_NAMES], ["slipway", "kube-system"], ["get pods cluster-wide: used only of kube-system, slipway"]),
        ([ALL_NAMES], ["kube-system", "search-1"], []),
        (
            [ALL_NAMES, "search-1"],
            ["search-1"],
            ["get pods search-1 cluster-wide: granted of every name as well"],
        ),
    ],
)
def test_a_right_names_the_objects_on_which_alone_it_is_used(rights: list[str], uses: list[str], complaints: list[str]):
    right, fixed = Use("", "pods", "get"), {"kube-system", "slipway"}
    assert list(privileges.unused(map(right.of, rights), map(right.of, uses), fixed)) == complaints


def test_a_right_on_one_name_allows_no_other(tmp_path: Path):
    rules = [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"], "resourceNames": ["kube-system"]}]
    role, binding = bound("ClusterRoleBinding", "get", "namespaces")
    granted = privileges.granted([role | {"rules": rules}, binding])
    right = Use("", "namespaces", "get")
    assert granted == {"worker": {right.of("kube-system")}}
    uses = {right.of("kube-system"): "/a", right.of("default"): "/b", right: "/c"}
    assert list(privileges.not_granted(granted["worker"], uses)) == [
        "get namespaces cluster-wide: /c",
        "get namespaces default cluster-wide: /b",
    ]


def test_a_right_in_teams_allows_nothing_elsewhere():
    wide, teams = Use("", "nodes", "get"), Use("", "pods/log", "get", IN_TEAMS)
    uses = {teams: "/a", teams.at("default"): "/b", teams.at(CLUSTER_WIDE): "/c", wide.at("default"): "/d"}
    assert list(privileges.not_granted({wide, teams}, uses)) == [
        "get pods/log cluster-wide: /c",
        "get pods/log in default: /b",
    ]
