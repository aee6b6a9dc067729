"""Every example, variant and wrong spec that was recorded, played on the running lite ground.

What is played, and what of it is compared with what the real controllers made of it:

| recorded | played by | compared |
| --- | --- | --- |
| objects/01 to 05, variants/cluster-local, ready-while-pending | _cluster_kserve | all of WHERE, whole; events |
| objects/06, 16, variants/gateway-api, gateway-api-cluster-local | here | all of MORE, whole; events |
| objects/07, 08, 21 | _llm_cluster | the service's status, all of WHERE, whole; of 21 no Service, no Deployment |
| bad-specs, accepted | here; `llm-*`: _llm_cluster | conditions, events; of an InferenceService modelStatus too |
| bad-specs, refused | test_lite_admission; `llm-*`: _llm_cluster | the words of the refusal |
| lifecycle, quota | _cluster_kserve | statuses of service, Deployment and ReplicaSet, phase by phase |
| examples 09 to 14, 18 | here | admitted in strict validation, each field that was sent is stored |
| examples 15, 17, 19, 20 | _keda_live, test_llm_serving | no recording: what they do |

(`_x` is test_controllers_x; WHERE and MORE are the kinds that a module lists.)

Fields left out, everywhere: what `recordings.SERVER_MADE` lists (times, uids, versions, addresses, generations), the
hashes in names, and the order of lists that are keyed. Beside these

* of an InferenceService nothing: metadata, spec and the whole status are compared. Of its pods the messages of
  conditions, which count that cluster's nodes. Of events type, reason and kind of object, in wrong specs the words too.
  The events UpdateFailed, and InternalError beside them, are races of that run's controllers with themselves;
* of an LLMInferenceService metadata and spec (the presets' own rules are compared in test_controllers_llm_children),
  of its Secrets the values (certificates made on the spot), its ReplicaSets and pods (named by hash; their templates
  stand in the Deployments), and events but those of wrong specs;
* of a ScaledObject its status, finalizer and the label with its name, and the HorizontalPodAutoscaler made of it:
  KEDA did not run there.

Examples 09 to 14 and 18 have no children: a quota, a config map, a Gateway with its route, a monitor with rules, a
network policy, a disruption budget and a storage container are read by others, not made into anything. There is no
recording of them; a server that admits them says that its schemas and rules fit.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandbox.client import Client
from sandbox.lite.controllers.kserve_config import NAME, NAMESPACE
from tests.sandbox.conftest import Api
from tests.sandbox.ground import Ground, add_node, create, ensure_namespace, items, node, pod, shared, until
from tests.sandbox.recordings import DATA, comparable, read, read_all
from tests.sandbox.test_controllers_cluster_kserve import WHERE, kubelet_says, said, status_of, the_pod
from tests.sandbox.test_controllers_kserve_status import BAD, broken

CONFIG = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}"
MORE = {
    **WHERE,
    "HTTPRoute": ("gateway.networking.k8s.io/v1", "httproutes"),
    "ScaledObject": ("keda.sh/v1alpha1", "scaledobjects"),
}
_HASH = re.compile(r"(granite-imgvol)-[bcdfghjklmnpqrstvwxz2456789]{6,10}(-[bcdfghjklmnpqrstvwxz2456789]{5})?\b")
# A Deployment may be available for a moment, until its ReplicaSet meets its first refusal: there it was not seen.
_BRIEFLY = "Normal InferenceServiceReady InferenceService: InferenceService [{}] is Ready"
_NO_LONGER = "Warning InferenceServiceNotReady InferenceService: InferenceService [{}] is no longer Ready"
_CHILDLESS = [path.stem for path in sorted((DATA / "examples").glob("*.yaml")) if path.name[:2] in
              ("09", "10", "11", "12", "13", "14", "18")]  # fmt: skip


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared() as running:
        yield running


@pytest.mark.parametrize(
    ("example", "recording"),
    [
        ("06-deploy-image-volume", "objects/06-deploy-image-volume.yaml"),
        ("16-isvc-keda", "objects/16-isvc-keda.yaml"),
        ("01-isvc-standard-vllm", "variants/gateway-api.yaml"),
        ("01-isvc-standard-vllm", "variants/gateway-api-cluster-local.yaml"),
    ],
)
def test_an_example_becomes_what_was_recorded(ground: Ground, example: str, recording: str) -> None:
    theirs = read(recording)
    where = theirs["objects"][0]["metadata"]["namespace"]
    given = read_all(f"examples/{example}.yaml")
    if "cluster-local" in recording:
        given[0]["metadata"]["labels"]["networking.kserve.io/visibility"] = "cluster-local"

    async def scene(client: Client) -> None:
        await ensure_namespace(client, where)
        async with _gateway_api(client, wanted="gateway-api" in recording):
            await _come_to_be(client, where, given, theirs)
            await _compare(client, where, theirs)

    ground.play(scene)


@asynccontextmanager
async def _gateway_api(client: Client, *, wanted: bool = True) -> AsyncIterator[None]:
    """Change KServe's configuration as an administrator does, by its ConfigMap, and back."""
    shipped = (await client.get(CONFIG))["data"]["ingress"]
    changed = json.dumps(json.loads(shipped) | {"enableGatewayApi": wanted})
    await client.patch(CONFIG, {"data": {"ingress": changed}})
    try:
        yield
    finally:
        await client.patch(CONFIG, {"data": {"ingress": shipped}})


async def _come_to_be(client: Client, where: str, given: list[dict[str, Any]], theirs: dict[str, Any]) -> None:
    recorded_pod = next(item for item in theirs["objects"] if item["kind"] == "Pod")
    await add_node(client, node(recorded_pod["spec"]["nodeName"], gpus=1))
    for obj in given:
        await create(client, obj, namespace=where)

    async def bound() -> dict[str, Any] | None:
        found = await the_pod(client, where)
        return found if found and found["spec"].get("nodeName") else None

    placed = await until(bound, "a bound pod")
    assert placed is not None
    await kubelet_says(client, placed, {**recorded_pod["status"], "qosClass": placed["status"]["qosClass"]})
    for kind in ("InferenceService", "Deployment"):
        settled = [_plain(item) for item in theirs["objects"] if item["kind"] == kind]
        await _until_equal(lambda kind=kind: _ours(client, where, kind), settled)
    await asyncio.sleep(0.2)  # whoever still wants to change something, may


async def _compare(client: Client, where: str, theirs: dict[str, Any]) -> None:
    for kind in MORE:
        expected = [_plain(item) for item in theirs["objects"] if item["kind"] == kind]
        assert await _ours(client, where, kind) == expected, kind
    heard = {(e["type"], e["reason"], e["involvedObject"]["kind"]) for e in await items(client, "events", where)}
    races = ("UpdateFailed", "InternalError")
    scaling = {event for event in heard if event[2] in ("ScaledObject", "HorizontalPodAutoscaler")}
    expected_events = {
        (e["type"], e["reason"], e["object"].split("/")[0]) for e in theirs["events"] if e["reason"] not in races
    }
    assert heard - scaling == expected_events


async def _ours(client: Client, where: str, kind: str) -> list[Any]:
    api, plural = MORE[kind]
    return [_plain({**item, "kind": kind}) for item in await items(client, plural, where, api)]


def _plain(obj: dict[str, Any]) -> Any:
    """An object as it is compared: without what the docstring above leaves out."""
    whole = comparable({key: value for key, value in obj.items() if key not in ("apiVersion", "kind")})
    for name in ("labels", "annotations"):
        if not whole["metadata"].get(name):
            whole["metadata"].pop(name, None)
    if obj["kind"] == "ScaledObject":
        whole.pop("status", None)
        whole["metadata"].pop("finalizers", None)
        whole["metadata"]["labels"].pop("scaledobject.keda.sh/name", None)
    if obj["kind"] == "Pod":
        for condition in whole["status"]["conditions"]:
            condition.pop("message", None)
    return json.loads(_HASH.sub(r"\1-HASH", json.dumps(whole)))


async def _until_equal(look: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Wait for an answer; AssertionError with the difference when it never comes."""

    async def equal() -> bool:
        return bool(await look() == expected)

    try:
        await until(equal)
    except AssertionError:
        assert await look() == expected


@pytest.mark.parametrize("name", [name for name, case in BAD.items() if case["accepted"]])
def test_a_wrong_spec_is_told_as_on_a_real_cluster(ground: Ground, name: str) -> None:
    case, given = BAD[name], broken(name)
    given["metadata"]["name"] = case["change"].get("metadata.name", name)
    isvc, theirs = given["metadata"]["name"], {_sentence(text) for text in case["events"]}

    async def scene(client: Client) -> None:
        await ensure_namespace(client, "neg")
        await _fill_the_only_node(client)
        await create(client, given, namespace="neg")

        async def told() -> Any:
            status = await status_of(client, "neg", isvc)
            return status.get("modelStatus"), comparable(said(status))

        await _until_equal(told, (case["modelStatus"], comparable(case["conditions"])))

        async def heard() -> set[Any]:
            events = await items(client, "events", "neg")
            about = [e for e in events if e["involvedObject"]["name"].startswith(isvc)]
            lines = [f"{e['type']} {e['reason']} {e['involvedObject']['kind']}: {e['message']}" for e in about]
            return {_sentence(line) for line in lines} - ({_BRIEFLY.format(isvc), _NO_LONGER.format(isvc)} - theirs)

        await _until_equal(heard, theirs)

    ground.play(scene)


async def _fill_the_only_node(client: Client) -> None:
    """Take all GPUs, as those of the recording were: what comes later finds none, and nobody to push out."""
    await add_node(client, node("full", gpus=1))
    taken = {"nvidia.com/gpu": "1"}
    whole = pod("holds-all", nodeName="full")
    whole["spec"]["containers"][0]["resources"] = {"limits": taken}
    await create(client, whole, namespace="neg")


def _sentence(text: str) -> str:
    """A sentence up to the first of several wrong fields: the rest is cut off there and comes in the order of a map.

    The conditions have it whole.
    """
    return str(comparable(text)).partition(", spec.")[0]


def test_a_service_is_ready_when_a_gateway_takes_its_routes(ground: Ground) -> None:
    """Beyond the recording, by KServe's source: the words of a parent, then ready, with its address from then on."""
    where, name = "routed", "qwen25-7b"
    given = read_all("examples/01-isvc-standard-vllm.yaml")
    routes = f"/apis/gateway.networking.k8s.io/v1/namespaces/{where}/httproutes"

    def parent(state: str, reason: str, message: str) -> dict[str, Any]:
        condition = {"type": "Accepted", "status": state, "reason": reason, "message": message,
                     "lastTransitionTime": "2026-11-25T14:00:00Z"}  # fmt: skip
        ref = {"name": "kserve-ingress-gateway", "namespace": "kserve"}
        said = {"parentRef": ref, "controllerName": "example.com/x", "conditions": [condition]}
        return {"status": {"parents": [said]}}

    async def ingress(client: Client) -> tuple[Any, ...]:
        status = await status_of(client, where)
        found = next((c for c in status.get("conditions", []) if c["type"] == "IngressReady"), {})
        return found.get("status"), found.get("reason"), found.get("message"), status.get("url")

    async def scene(client: Client) -> None:
        await ensure_namespace(client, where)
        async with _gateway_api(client):
            await life(client)

    async def life(client: Client) -> None:
        given[0]["spec"]["predictor"].pop("deploymentStrategy")  # so it serves when a pod does
        await create(client, *given, namespace=where)
        missing = ("False", "Predictor Deployment NotReady", "Predictor HTTPRoute not created", None)
        await _until_equal(lambda: ingress(client), missing)
        await add_node(client, node("wide"))
        await until(lambda: _serving(client, where), "a pod that serves")
        unheard = "ParentStatusNotAvailable"
        await _until_equal(lambda: ingress(client), ("False", unheard, "Predictor HttpRouteNotReady", None))
        refused = parent("False", "NoMatchingParent", "no listener")
        await client.patch_status(f"{routes}/{name}-predictor", refused)
        await _until_equal(lambda: ingress(client), ("False", "NoMatchingParent", "Predictor no listener", None))
        await client.patch_status(f"{routes}/{name}-predictor", parent("True", "Accepted", ""))
        await _until_equal(lambda: ingress(client), ("False", unheard, "InferenceService HttpRouteNotReady", None))
        await client.patch_status(f"{routes}/{name}", parent("True", "Accepted", ""))
        await _until_equal(lambda: ingress(client), ("True", None, None, "http://qwen25-7b-routed.example.com"))

    ground.play(scene)


async def _serving(client: Client, where: str) -> bool:
    found = await the_pod(client, where)
    if found is None or not found["spec"].get("nodeName"):
        return False
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-25T14:00:00Z"}
    await kubelet_says(client, found, {"phase": "Running", "conditions": [ready]})
    return True


@pytest.mark.parametrize("example", _CHILDLESS)
def test_an_example_without_children_is_admitted_whole(api: Api, example: str) -> None:
    for given in read_all(f"examples/{example}.yaml"):
        place = _collection(api, given)

        answer = api.post(place, given, fieldValidation="Strict", dryRun="All")

        assert answer.status_code == 201, answer.text
        assert _within(given, answer.json()) == [], "fields that were not stored as sent"


def _collection(api: Api, given: dict[str, Any]) -> str:
    """The path of an object's collection, as discovery tells it; its namespace is made."""
    version = given["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    found = next(entry for entry in api.get(root).json()["resources"] if entry["kind"] == given["kind"])
    if not found["namespaced"]:
        return f"{root}/{found['name']}"
    namespace = given["metadata"]["namespace"]
    if api.get(f"/api/v1/namespaces/{namespace}").status_code == 404:
        api.namespace(namespace)
    return f"{root}/namespaces/{namespace}/{found['name']}"


def _within(sent: Any, stored: Any, path: str = "") -> list[str]:
    """The paths at which what was sent is not what is stored; the server may add."""
    if isinstance(sent, dict) and isinstance(stored, dict):
        return [wrong for key in sent for wrong in _within(sent[key], stored.get(key), f"{path}.{key}")]
    if isinstance(sent, list) and isinstance(stored, list) and len(sent) == len(stored):
        return [w for n, (a, b) in enumerate(zip(sent, stored, strict=True)) for w in _within(a, b, f"{path}[{n}]")]
    return [] if sent == stored else [f"{path}: {sent!r} became {stored!r}"]
