"""LLMInferenceServices on the running lite ground, compared with what came to be on a real cluster.

Compared: the service's whole status, and of every kind listed in WHERE all recorded objects. Pods are turned ready as
in the recording. Left out: ReplicaSets and pods (named by hash; their templates are compared in the Deployments).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.client import ApiError, Client
from tests.sandbox.ground import (
    Ground,
    add_node,
    come_up,
    create,
    ensure_namespace,
    items,
    node,
    shared,
    until,
)
from tests.sandbox.recordings import comparable, read, read_all

LLM = "serving.kserve.io/v1alpha2"
GATEWAY = "/apis/gateway.networking.k8s.io/v1/namespaces/kserve/gateways/kserve-ingress-gateway"
WHERE = {  # kind: (apiVersion, plural)
    "Deployment": ("apps/v1", "deployments"),
    "Service": ("v1", "services"),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", "httproutes"),
    "InferencePool": ("inference.networking.k8s.io/v1", "inferencepools"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "Role": ("rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings"),
}
_REPLICA_SET = re.compile(r"(-kserve(-prefill|-router-scheduler)?)-[bcdfghjklmnpqrstvwxz2456789]{6,10}\b")


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared() as running:
        yield running


def path_of(where: str, name: str) -> str:
    return f"/apis/{LLM}/namespaces/{where}/llminferenceservices/{name}"


def alike(obj: Any) -> Any:
    return json.loads(_REPLICA_SET.sub(r"\1-HASH", json.dumps(comparable(obj))))


def example(name: str) -> dict[str, Any]:
    return next(item for item in read_all(f"examples/{name}.yaml") if item["kind"] == "LLMInferenceService")


async def begin(client: Client, where: str, *objects: dict[str, Any], nodes: int = 6) -> None:
    """Set the scene: nodes, a Gateway with its address, and the services."""
    await ensure_namespace(client, where)
    for number in range(nodes):
        await add_node(client, node(f"node-{number}"))
    address = {"addresses": [{"type": "IPAddress", "value": "127.0.0.1"}]}
    await client.patch_status(GATEWAY, {"status": address})
    for obj in objects:
        await create(client, obj, namespace=where)


async def status_of(client: Client, where: str, name: str) -> dict[str, Any]:
    return (await client.get(path_of(where, name))).get("status") or {}


def said(status: dict[str, Any]) -> list[dict[str, Any]]:
    left_out = ("lastTransitionTime", "severity")  # as in the recordings of wrong specs
    return [{key: item[key] for key in item if key not in left_out} for item in status.get("conditions") or []]


async def ready_pods(client: Client, where: str, number: int) -> bool:
    await come_up(client, where)
    pods = await items(client, "pods", where)
    return sum(pod["status"].get("phase") == "Running" for pod in pods) == number


@pytest.mark.parametrize(
    ("given", "pods"), [("07-llmisvc-single-node", 3), ("08-llmisvc-pd", 4)], ids=["single", "disaggregated"]
)
def test_an_example_becomes_what_it_became_on_a_real_cluster(ground: Ground, given: str, pods: int) -> None:
    theirs = read(f"objects/{given}.yaml")["objects"]
    recorded = next(item for item in theirs if item["kind"] == "LLMInferenceService")
    where, name = recorded["metadata"]["namespace"], recorded["metadata"]["name"]

    async def scene(client: Client) -> None:
        await begin(client, where, example(given))
        await until(lambda: ready_pods(client, where, pods), f"{pods} pods that run")

        async def agrees() -> bool:
            return bool(alike(await status_of(client, where, name)) == alike(recorded["status"]))

        try:
            await until(agrees, "the recorded status")
        except AssertionError:
            assert alike(await status_of(client, where, name)) == alike(recorded["status"])
        await asyncio.sleep(0.2)  # whoever still wants to change something, may
        await _compare(client, where, theirs)

    ground.play(scene)


async def _compare(client: Client, where: str, theirs: list[dict[str, Any]]) -> None:
    for kind, (api, plural) in WHERE.items():
        found = await items(client, plural, where, api)
        ours = {o["metadata"]["name"]: alike({**o, "kind": kind, "apiVersion": api}) for o in found}
        ours.pop("default", None)
        expected = {o["metadata"]["name"]: alike(o) for o in theirs if o["kind"] == kind}
        assert ours == expected, kind
    secrets = await items(client, "secrets", where)
    for secret in (item for item in theirs if item["kind"] == "Secret"):
        ours_too = next(item for item in secrets if item["metadata"]["name"] == secret["metadata"]["name"])
        assert ours_too["data"].keys() == secret["data"].keys()
        assert ours_too["metadata"]["annotations"].keys() == secret["metadata"]["annotations"].keys()
        assert (ours_too["type"], ours_too["metadata"]["labels"]) == (secret["type"], secret["metadata"]["labels"])


CASES = [name for name in read("bad-specs.yaml") if name.startswith("llm-")]


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_spec_is_refused_or_fails_in_the_recorded_words(ground: Ground, case: str) -> None:
    told = read("bad-specs.yaml")[case]
    given = example("08-llmisvc-pd")
    given["metadata"]["name"] = case
    for path, value in told["change"].items():
        *steps, last = path.split(".")
        below = given
        for step in steps:
            below = below[step]
        below[last] = value

    async def scene(client: Client) -> None:
        await begin(client, "neg", nodes=0)
        if not told["accepted"]:
            with pytest.raises(ApiError) as refusal:
                await create(client, given, namespace="neg")
            words = refusal.value.body["message"].replace(
                'LLMInferenceService.serving.kserve.io "', 'LLMInferenceService "'
            )
            assert told["message"] == f"The {words}"
            return
        await create(client, given, namespace="neg")

        async def agrees() -> bool:
            return said(await status_of(client, "neg", case)) == told["conditions"]

        try:
            await until(agrees, "the recorded conditions")
        except AssertionError:
            assert said(await status_of(client, "neg", case)) == told["conditions"]
        for event in told.get("events", []):
            kind, _, rest = event.partition(" ")
            reason, _, message = rest.partition(" LLMInferenceService: ")
            heard = [item for item in await items(client, "events", "neg") if item["message"] == message]
            assert [(item["type"], item["reason"]) for item in heard] == [(kind, reason)], event

    ground.play(scene)
