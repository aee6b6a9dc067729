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
    events_of,
    items,
    maybe,
    node,
    shared,
    until,
)
from tests.sandbox.recordings import comparable, read, read_all

LLM = "serving.kserve.io/v1alpha2"
GATEWAY = "/apis/gateway.networking.k8s.io/v1/namespaces/kserve/gateways/kserve-ingress-gateway"
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes"
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


async def _compare(client: Client, where: str, theirs: list[dict[str, Any]], without: tuple[str, ...] = ()) -> None:
    for kind, (api, plural) in WHERE.items():
        if kind in without:
            continue
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


def test_a_service_over_two_nodes_becomes_what_it_became_on_a_real_cluster(ground: Ground) -> None:
    theirs = read("objects/21-llmisvc-multinode.yaml")["objects"]
    recorded = next(item for item in theirs if item["kind"] == "LLMInferenceService")
    where = recorded["metadata"]["namespace"]

    async def scene(client: Client) -> None:
        await begin(client, where, example("21-llmisvc-multinode"))

        async def agrees() -> bool:
            return bool(alike(await status_of(client, where, "big")) == alike(recorded["status"]))

        await until(agrees, "the recorded status, with every pod pending")

        async def placed() -> bool:
            pods = await items(client, "pods", where)
            return (
                len(
                    {pod["spec"].get("nodeName") for pod in pods if pod["metadata"]["name"].startswith("big-kserve-mn")}
                )
                == 2
            )

        await until(placed, "leader and worker on two nodes")
        await _compare(client, where, [o for o in theirs if o["kind"] != "Service"], without=("Service", "Deployment"))
        await until(lambda: ready_pods(client, where, 3), "three pods that run")

        async def workloads_ready() -> bool:
            found = {c["type"]: c["status"] for c in said(await status_of(client, where, "big"))}
            return found.get("WorkloadsReady") == found.get("WorkerWorkloadReady") == "True"

        await until(workloads_ready, "workloads that are ready")

    ground.play(scene)


# A life -----------------------------------------------------------------------------------------------------


async def gateway_takes(client: Client, where: str, name: str) -> None:
    """Be a gateway controller that knows the present pools alone: refuse the old kind, then take the new one."""
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "kserve-ingress-gateway",
              "namespace": "kserve"}  # fmt: skip
    path = f"{ROUTES.format(where)}/{name}-kserve-route"
    pool = f"/apis/inference.networking.k8s.io/v1/namespaces/{where}/inferencepools/{name}-inference-pool"
    route = await maybe(client, path)
    if route is None:
        return
    groups = {item.get("group", "") for rule in route["spec"]["rules"] for item in rule["backendRefs"]}
    old = "inference.networking.x-k8s.io" in groups
    resolved = ("False", "InvalidKind") if old else ("True", "ResolvedRefs")
    now = {
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "message": "",
        "observedGeneration": route["metadata"]["generation"],
    }
    conditions = [
        {"type": "Accepted", "status": "True", "reason": "Accepted", **now},
        {"type": "ResolvedRefs", "status": resolved[0], "reason": resolved[1], **now},
    ]
    told = [{"parentRef": parent, "controllerName": "test/gateway", "conditions": conditions}]
    await client.patch_status(path, {"status": {"parents": told}})
    await client.patch_status(pool, {"status": {"parents": [{"parentRef": parent, "conditions": conditions[:1]}]}})


async def is_ready(client: Client, where: str, name: str) -> bool:
    await come_up(client, where)
    await gateway_takes(client, where, name)
    found = {c["type"]: c["status"] for c in said(await status_of(client, where, name))}
    return found.get("Ready") == "True"


def test_a_disaggregated_service_gets_ready_stops_starts_and_leaves_nothing(ground: Ground) -> None:
    where, name = "life", "qwen25-14b-pd"

    async def annotate(client: Client, **annotations: str | None) -> None:
        change = {"metadata": {"annotations": {f"serving.kserve.io/{key}": text for key, text in annotations.items()}}}
        await client.patch(path_of(where, name), change)

    async def left(client: Client) -> dict[str, list[str]]:
        found = {}
        for kind, (api, plural) in {**WHERE, "Pod": ("v1", "pods"), "Secret": ("v1", "secrets")}.items():
            names = [item["metadata"]["name"] for item in await items(client, plural, where, api)]
            if [one for one in names if one != "default"]:
                found[kind] = names
        return found

    async def scene(client: Client) -> None:
        await begin(client, where, example("08-llmisvc-pd"))
        await until(lambda: is_ready(client, where, name), "a ready service")
        assert await events_of(client, where, "LLMInferenceServiceReady") == [f"LLMInferenceService [{name}] is Ready"]
        route = await client.get(
            f"/apis/gateway.networking.k8s.io/v1/namespaces/{where}/httproutes/{name}-kserve-route"
        )
        assert route["metadata"]["annotations"] == {"serving.kserve.io/inference-pool-migrated": "v1"}
        before = (await client.get(path_of(where, name)))["metadata"]["resourceVersion"]
        await asyncio.sleep(0.5)
        assert (await client.get(path_of(where, name)))["metadata"]["resourceVersion"] == before, "it has come to rest"

        await annotate(client, stop="true")

        async def stopped() -> bool:
            await come_up(client, where)
            return not await left(client)

        await until(stopped, "nothing that runs")
        status = await status_of(client, where, name)
        reasons = {c["type"]: (c["status"], c.get("reason")) for c in said(status)}
        assert reasons["Ready"] == reasons["MainWorkloadReady"] == reasons["RouterReady"] == ("False", "Stopped")
        assert not {"workloads", "router", "addresses"} & status.keys()
        bindings = await items(client, "clusterrolebindings", api="rbac.authorization.k8s.io/v1")
        assert f"{where}-{name}-epp-auth-rb" not in [item["metadata"]["name"] for item in bindings]

        await annotate(client, stop=None)
        await until(lambda: is_ready(client, where, name), "a service ready again")

        await client.delete(path_of(where, name))

        async def gone() -> bool:
            await come_up(client, where)
            return await maybe(client, path_of(where, name)) is None and not await left(client)

        await until(gone, "nothing at all")
        bindings = await items(client, "clusterrolebindings", api="rbac.authorization.k8s.io/v1")
        assert f"{where}-{name}-epp-auth-rb" not in [item["metadata"]["name"] for item in bindings]

    ground.play(scene)


def test_a_preset_that_changes_changes_the_deployment(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await begin(client, "preset", example("07-llmisvc-single-node"), nodes=0)
        path = "/apis/apps/v1/namespaces/preset/deployments/qwen25-7b-kserve"

        async def image() -> str:
            found = await maybe(client, path)
            return found["spec"]["template"]["spec"]["containers"][0]["image"] if found else ""

        async def shipped() -> bool:
            return await image() == "ghcr.io/llm-d/llm-d-cuda:v0.8.0"

        await until(shipped, "the shipped image")
        own = {
            "apiVersion": LLM,
            "kind": "LLMInferenceServiceConfig",
            "metadata": {"name": "kserve-config-llm-template"},
            "spec": {"template": {"containers": [{"name": "main", "image": "registry.example/engine:1"}]}},
        }
        await client.create(f"/apis/{LLM}/namespaces/preset/llminferenceserviceconfigs", own)

        async def nearer() -> bool:
            return await image() == "registry.example/engine:1"

        await until(nearer, "the image of the preset in the namespace")

    ground.play(scene)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"worker": {"containers": [{"name": "main"}]}},
            'spec.worker: Invalid value: {"containers":[{"name":"main"}]}: when worker is specified, parallelism must '
            "be configured for either data parallelism or pipeline parallelism",
        ),
        (
            {"parallelism": {"data": 4}},
            "spec.parallelism.dataLocal: Invalid value: null: dataLocal must be set when data is set",
        ),
        (
            {"router": {"route": {"group": "g"}}},
            "spec.router.route.weight: Required value: group requires weight",
        ),
        (
            {"router": {"gateway": {}, "route": {"http": {"refs": [{"name": "r"}]}}}},
            'spec.router.route.http.refs: Invalid value: [{"name":"r"}]: unsupported configuration: custom HTTP routes '
            "('spec.router.route.http.refs') cannot be used with a managed gateway ('spec.router.gateway'); either "
            "remove 'spec.router.route.http.refs' or set 'spec.router.gateway.refs'",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_by_the_webhook(ground: Ground, change: dict[str, Any], told: str) -> None:
    given = example("07-llmisvc-single-node")
    given["spec"] |= change

    async def scene(client: Client) -> None:
        await begin(client, "refused", nodes=0)
        with pytest.raises(ApiError) as refusal:
            await create(client, given, namespace="refused")
        assert refusal.value.status == 422
        assert refusal.value.body["message"] == (
            'admission webhook "llminferenceservice.kserve-webhook-server.v1alpha2.validator" denied the request: '
            f'LLMInferenceService.serving.kserve.io "qwen25-7b" is invalid: {told}'
        )

    ground.play(scene)


def test_autoscaling_without_its_controllers_kind_stops_the_service(ground: Ground) -> None:
    given = example("07-llmisvc-single-node")
    del given["spec"]["replicas"]
    given["spec"]["scaling"] = {"minReplicas": 1, "maxReplicas": 2, "wva": {"hpa": {}}}

    async def scene(client: Client) -> None:
        await begin(client, "scaled", given, nodes=0)

        async def said_so() -> list[str]:
            found = said(await status_of(client, "scaled", "qwen25-7b"))
            return [item["message"] for item in found if item.get("reason") == "ScalingCRDNotFound"]

        told = await until(said_so, "the missing kind")
        assert told[0].endswith('no matches for kind "VariantAutoscaling" in version "llmd.ai/v1alpha1"')

    ground.play(scene)


def test_the_size_of_a_replica_never_changes(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await begin(client, "sized", example("21-llmisvc-multinode"), nodes=0)
        with pytest.raises(ApiError) as refusal:
            await client.patch(path_of("sized", "big"), {"spec": {"parallelism": {"data": 32}}})
        text = "total parallelism size is immutable, previous size 2, curr size 4"
        assert refusal.value.body["message"].endswith(f"spec.parallelism: Unsupported value: 4: {text}")

    ground.play(scene)


def test_the_version_before_is_stored_in_todays_words(ground: Ground) -> None:
    given = {**example("07-llmisvc-single-node"), "apiVersion": "serving.kserve.io/v1alpha1"}
    given["spec"]["model"]["criticality"] = "Critical"
    del given["spec"]["model"]["name"], given["metadata"]["namespace"]

    async def scene(client: Client) -> None:
        await begin(client, "old", nodes=0)
        await client.create("/apis/serving.kserve.io/v1alpha1/namespaces/old/llminferenceservices", given)
        stored = await client.get(path_of("old", "qwen25-7b"))
        assert stored["spec"]["model"] == {"uri": given["spec"]["model"]["uri"], "name": "qwen25-7b"}
        assert stored["metadata"]["annotations"]["internal.serving.kserve.io/model-criticality"] == "Critical"

    ground.play(scene)
