"""Services that are but a name; each answer was seen from kube-apiserver 1.36.3."""

from __future__ import annotations

import pytest

from tests.sandbox.conftest import MERGE, Api, Obj, named

OUTSIDE = {"spec": {"type": "ExternalName", "externalName": "example.com"}}
POLICY = "internalTrafficPolicy"


@pytest.fixture(scope="module")
def services(api: Api) -> str:
    """The path of the collection."""
    return f"{api.namespace('team-services')}/services"


def outside(api: Api, services: str, name: str) -> Obj:
    """A Service that was given a traffic policy, then became but a name."""
    spec = {"ports": [{"port": 80}], "selector": {"app": "a"}, POLICY: "Local"}
    assert api.post(services, named("Service", name, spec=spec), fieldManager="maker").json()["spec"][POLICY] == "Local"
    obj: Obj = api.patch(f"{services}/{name}", OUTSIDE, MERGE, fieldManager="mover").json()
    return obj


def owners(obj: Obj) -> set[str]:
    """Who owns the traffic policy."""
    entries = obj["metadata"]["managedFields"]
    return {entry["manager"] for entry in entries if f"f:{POLICY}" in entry["fieldsV1"].get("f:spec", {})}


def test_a_name_shows_no_traffic_policy(api: Api, services: str) -> None:
    changed = outside(api, services, "shown")

    read = api.get(f"{services}/shown").json()
    listed = next(item for item in api.get(services).json()["items"] if item["metadata"]["name"] == "shown")
    assert POLICY not in changed["spec"] | read["spec"] | listed["spec"]
    assert owners(read) == {"maker"}


def test_a_patch_leaves_the_policy_behind_a_name_and_its_owner(api: Api, services: str) -> None:
    outside(api, services, "patched")

    again = api.patch(f"{services}/patched", {"metadata": {"labels": {"app": "b"}}}, MERGE).json()
    back = api.patch(f"{services}/patched", {"spec": {"type": "ClusterIP", "externalName": None}}, MERGE).json()

    assert owners(again) == owners(back) == {"maker"}
    assert back["spec"][POLICY] == "Local"


def test_an_update_takes_the_policy_behind_a_name_away(api: Api, services: str) -> None:
    read = outside(api, services, "updated")

    updated = api.put(f"{services}/updated", read).json()
    back = api.patch(f"{services}/updated", {"spec": {"type": "ClusterIP", "externalName": None}}, MERGE).json()

    assert owners(updated) == set()
    assert back["spec"][POLICY] == "Cluster"
