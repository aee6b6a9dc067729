"""LeaderWorkerSets and StatefulSets: what they are made of against the recording, their decisions, and a running group.

| object of the recording | compared | left out, and why |
| --- | --- | --- |
| both StatefulSets, the headless Service | everything | status; hashes of revisions, which come from Go's bytes |
| both pods | everything the sets and the webhook write | what the API server and the scheduler add |
| LeaderWorkerSet | status while it progresses | |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from sandbox.client import ApiError, Client
from sandbox.lite.controllers import lws_plan as plan
from sandbox.lite.controllers import lws_rollout as moving
from sandbox.lite.controllers import statefulset_plan as sets
from sandbox.lite.controllers.lws_admission import default, validate
from tests.sandbox.ground import (
    Ground,
    add_node,
    come_up,
    create,
    ensure_namespace,
    events_of,
    items,
    node,
    shared,
    until,
)
from tests.sandbox.recordings import comparable, read
from tests.sandbox.test_controllers_llm_children import MULTI, stored

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GROUP = "leaderworkerset.x-k8s.io/v1"
_HASH = re.compile(r"(?<=big-kserve-mn-)(0-)?[0-9a-z]{8,10}\b")
SERVER_MADE = ("internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy", "sessionAffinity", "type")


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared() as running:
        yield running


def one(kind: str, name: str) -> dict[str, Any]:
    found = [o for o in read(MULTI)["objects"] if o["kind"] == kind and o["metadata"]["name"] == name]
    assert len(found) == 1
    return found[0]  # type: ignore[no-any-return]


def alike(obj: dict[str, Any]) -> Any:
    made = stored(obj)
    made.pop("status", None)
    labels = [made["metadata"].get("labels") or {}]
    if "template" in made.get("spec", {}):
        labels.append(made["spec"]["template"]["metadata"]["labels"])
    for of in labels:
        for name in (plan.REVISION, sets.REVISION):
            if name in of:
                of[name] = "HASH"
    return made


def test_the_leaders_set_is_the_recorded_one() -> None:
    ours = plan.leader_set(one("LeaderWorkerSet", "big-kserve-mn"), 0, 1, "hash")

    assert alike(ours) == alike(one("StatefulSet", "big-kserve-mn"))


def test_the_workers_set_is_the_recorded_one() -> None:
    group, leader = one("LeaderWorkerSet", "big-kserve-mn"), one("Pod", "big-kserve-mn-0")

    ours = plan.worker_set(group, leader, group["spec"]["leaderWorkerTemplate"]["workerTemplate"])

    assert alike(ours) == alike(one("StatefulSet", "big-kserve-mn-0"))


def test_the_headless_service_is_the_recorded_one() -> None:
    group = one("LeaderWorkerSet", "big-kserve-mn")
    ours = plan.headless_service(group, group, "big-kserve-mn", {plan.NAME: "big-kserve-mn"})

    made, theirs = alike(ours), alike(one("Service", "big-kserve-mn"))
    for name in SERVER_MADE:
        made["spec"].pop(name, None)
        theirs["spec"].pop(name, None)
    assert made == theirs


@pytest.mark.parametrize(("owner", "ordinal", "name"), [
    ("big-kserve-mn", 0, "big-kserve-mn-0"),
    ("big-kserve-mn-0", 1, "big-kserve-mn-0-1"),
])  # fmt: skip
def test_pods_are_the_recorded_ones(owner: str, ordinal: int, name: str) -> None:
    stateful_set = one("StatefulSet", owner)

    ours = plan.complete_pod(sets.pod(stateful_set, ordinal, stateful_set["spec"]["template"], "hash"))

    made, theirs = alike(ours), alike(one("Pod", name))
    for pod in (made, theirs):
        spec = pod["spec"]
        for added in ("nodeName", "preemptionPolicy", "priority", "enableServiceLinks", "tolerations"):
            spec.pop(added, None)
        spec["volumes"] = [item for item in spec["volumes"] if not item["name"].startswith("kube-api-access")]
        for container in [*spec["containers"], *spec["initContainers"]]:
            mounts = container["volumeMounts"]
            container["volumeMounts"] = [item for item in mounts if not item["name"].startswith("kube-api-access")]
    assert made == theirs


def test_the_status_of_a_progressing_group_is_the_recorded_one() -> None:
    group, leaders = one("LeaderWorkerSet", "big-kserve-mn"), one("StatefulSet", "big-kserve-mn")
    recorded = group.pop("status")
    workers = {"big-kserve-mn-0": one("StatefulSet", "big-kserve-mn-0")}
    key = leaders["metadata"]["labels"][plan.REVISION]

    states = moving.groups_of(group, [one("Pod", "big-kserve-mn-0")], workers, key)
    status, fresh = moving.status_of(group, leaders, states, NOW)

    assert comparable(status) == comparable(recorded)
    assert fresh == "Progressing"


# Decisions --------------------------------------------------------------------------------------------------


def group_of(replicas: int = 4, **configuration: Any) -> dict[str, Any]:
    template = {"metadata": {}, "spec": {"containers": [{"name": "main", "image": "one"}]}}
    return default(
        {
            "apiVersion": GROUP,
            "kind": "LeaderWorkerSet",
            "metadata": {"name": "pair", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {
                "replicas": replicas,
                "leaderWorkerTemplate": {"size": 2, "workerTemplate": template},
                "rolloutStrategy": {"rollingUpdateConfiguration": configuration} if configuration else {},
            },
        }
    )


def leaders_of(group: dict[str, Any], partition: int, replicas: int) -> dict[str, Any]:
    return plan.leader_set(group, partition, replicas, "new")


def states(text: str) -> list[moving.Group]:
    """`+` ready and updated, `o` ready and old, `-` updated and not ready, `x` neither."""
    return [moving.Group(i, ready=c in "+o", updated=c in "+-") for i, c in enumerate(text)]


@pytest.mark.parametrize(
    ("text", "partition", "expected"),
    [
        ("oooo", 4, 3),  # the last one first
        ("ooo-", 3, 3),  # wait for it
        ("ooo+", 3, 2),
        ("o+++", 1, 0),
        ("++++", 0, 0),
        ("xoo+", 3, 3),  # one is missing already: none more
        ("xxxx", 4, 3),  # nothing to lose, one at a time
    ],
)
def test_an_update_goes_from_the_last_replica_to_the_first(text: str, partition: int, expected: int) -> None:
    group = group_of()

    found = moving.rollout(group, leaders_of(group, partition, 4), states(text), changed=False)

    assert found == (expected, 4)


def test_a_new_revision_starts_above_the_last_replica() -> None:
    group = group_of()

    assert moving.rollout(group, leaders_of(group, 0, 4), states("oooo"), changed=True) == (4, 4)
    assert moving.rollout(group, None, [], changed=False) == (0, 4)


def test_surge_makes_more_replicas_until_the_rest_may_be_missing() -> None:
    group = group_of(maxSurge=2, maxUnavailable=0)

    assert moving.rollout(group, leaders_of(group, 0, 4), states("oooo"), changed=True) == (4, 6)
    assert moving.rollout(group, leaders_of(group, 0, 6), states("++++++"), changed=False) == (0, 4)


def test_the_group_key_is_the_same_for_all_pods_of_a_group() -> None:
    leader = one("Pod", "big-kserve-mn-0")

    assert plan.group_key("team-a", "big-kserve-mn-0") == leader["metadata"]["labels"][plan.GROUP_KEY]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"replicas": 0}, None),
        (
            {"rolloutStrategy": {"rollingUpdateConfiguration": {"maxUnavailable": 0}}},
            "must not be 0 when `maxSurge` is 0",
        ),
        ({"leaderWorkerTemplate": {"size": 0, "workerTemplate": {}}}, "size must be equal or greater than 1"),
    ],
)
def test_sets_that_could_never_move_are_refused(change: dict[str, Any], told: str | None) -> None:
    group = group_of()
    group["spec"] |= change

    refusals = validate(default(group), None)

    assert (told is None and not refusals) or (told is not None and told in refusals[0])


def stateful(replicas: int = 3, **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}
    return {
        "metadata": {"name": "db", "namespace": "n", "uid": "u", "generation": 1},
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "spec": {"replicas": replicas, "serviceName": "db", "template": template, **spec},
    }


def pod_of(number: int, *, ready: bool = True, revision: str = "new", phase: str = "Running") -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {
        "metadata": {"name": f"db-{number}", "labels": {sets.REVISION: revision}},
        "status": {"phase": phase, "conditions": [condition]},
    }


def test_ordered_pods_come_one_by_one_and_go_from_the_last() -> None:
    assert sets.steps(stateful(), [], "new").create == [0]
    assert sets.steps(stateful(), [pod_of(0, ready=False)], "new") == sets.Steps([], [])
    assert sets.steps(stateful(), [pod_of(0)], "new").create == [1]
    going = sets.steps(stateful(1), [pod_of(0), pod_of(1), pod_of(2)], "new").delete
    assert [pod["metadata"]["name"] for pod, _ in going] == ["db-2"]


def test_parallel_pods_come_and_go_at_once_and_start_where_told() -> None:
    parallel = stateful(2, podManagementPolicy="Parallel", ordinals={"start": 1})

    assert sets.steps(parallel, [], "new").create == [1, 2]
    going = sets.steps({**parallel, "spec": {**parallel["spec"], "replicas": 0}}, [pod_of(1), pod_of(2)], "new").delete
    assert [pod["metadata"]["name"] for pod, _ in going] == ["db-2", "db-1"]


def test_an_update_replaces_one_ready_pod_after_another_down_to_the_partition() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    old = [pod_of(number, revision="old") for number in range(3)]

    def going(pods: list[dict[str, Any]]) -> list[str]:
        return [p["metadata"]["name"] for p, _ in sets.steps(stateful(updateStrategy=strategy), pods, "new").delete]

    assert going(old) == ["db-2"]
    assert going([*old[:2], pod_of(2)]) == ["db-1"]
    assert going([old[0], pod_of(1), pod_of(2)]) == []
    assert sets.steps(stateful(updateStrategy={"type": "OnDelete"}), old, "new").delete == []


def test_a_failed_pod_is_made_again_and_told() -> None:
    ((pod, told),) = sets.steps(stateful(1), [pod_of(0, phase="Failed")], "new").delete

    assert pod["metadata"]["name"] == "db-0"
    assert told == "StatefulSet n/db is recreating Failed Pod db-0"


def test_claims_are_named_after_their_pod() -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    own = stateful(volumeClaimTemplates=[claim], selector={"matchLabels": {"app": "db"}})

    assert sets.claims(own, 2)[0]["metadata"]["name"] == "data-db-2"
    pod = sets.pod(own, 2, own["spec"]["template"], "r")
    assert pod["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-2"}}]
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("db-2", "db")


# On a running cluster ---------------------------------------------------------------------------------------


def lean(name: str = "pair", replicas: int = 1, **template: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "main", "image": "one"}], "terminationGracePeriodSeconds": 0}
    return {
        "apiVersion": GROUP,
        "kind": "LeaderWorkerSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "leaderWorkerTemplate": {"size": 3, "workerTemplate": {"spec": spec}, **template},
        },
    }


async def names(client: Client, where: str) -> list[str]:
    return sorted(item["metadata"]["name"] for item in await items(client, "pods", where))


async def condition_of(client: Client, where: str, kind: str) -> str:
    found = (await items(client, "leaderworkersets", where, GROUP))[0]
    return next((c["status"] for c in found.get("status", {}).get("conditions", []) if c["type"] == kind), "")


async def available(client: Client, where: str) -> bool:
    await come_up(client, where)
    return await condition_of(client, where, "Available") == "True"


def test_a_group_comes_up_serves_and_restarts_as_one(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "groups")
        await add_node(client, node("node-0"))
        await create(client, lean(), namespace="groups")
        await until(lambda: available(client, "groups"), "an available group")
        assert await names(client, "groups") == ["pair-0", "pair-0-1", "pair-0-2"]
        told = await events_of(client, "groups", "AllGroupsReady")
        assert told == ["All replicas are ready, with 1 groups ready of total 1 groups"]
        before = {item["metadata"]["uid"] for item in await items(client, "pods", "groups")}

        status = {"containerStatuses": [{"name": "main", "restartCount": 1, "image": "one", "imageID": "",
                                         "ready": True}]}  # fmt: skip
        await client.patch_status("/api/v1/namespaces/groups/pods/pair-0-2", {"status": status})

        async def renewed() -> bool:
            await come_up(client, "groups")
            now = {item["metadata"]["uid"] for item in await items(client, "pods", "groups")}
            return len(now) == 3 and not now & before and await condition_of(client, "groups", "Available") == "True"

        await until(renewed, "three new pods")
        told = await events_of(client, "groups", "RecreateGroup")
        assert "Worker pod pair-0-2 failed, deleted leader pod pair-0 to recreate group 0" in told

    ground.play(scene)


def test_a_changed_template_moves_one_group_after_another(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "moving")
        await add_node(client, node("node-0"))
        await create(client, lean(replicas=2), namespace="moving")
        await until(lambda: available(client, "moving"), "two available groups")
        path = f"/apis/{GROUP}/namespaces/moving/leaderworkersets/pair"
        group = await client.get(path)
        group["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]["image"] = "two"
        await client.update(path, group)
        seen = set()

        async def moved() -> bool:
            pods = await items(client, "pods", "moving")
            seen.add(tuple(sorted((p["metadata"]["name"], p["spec"]["containers"][0]["image"]) for p in pods)))
            await come_up(client, "moving")
            images = {pod["spec"]["containers"][0]["image"] for pod in pods}
            return images == {"two"} and len(pods) == 6 and await condition_of(client, "moving", "Available") == "True"

        await until(moved, "six pods of the new image")
        half = [dict(now) for now in seen if {"one", "two"} <= {image for _, image in now}]
        assert half
        assert all(now.get("pair-0", "one") == "one" for now in half if now.get("pair-1", "one") == "one")

    ground.play(scene)


def test_a_deleted_group_leaves_nothing(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "leaving")
        await add_node(client, node("node-0"))
        await create(client, lean(), namespace="leaving")
        await until(lambda: available(client, "leaving"), "an available group")
        await client.delete(f"/apis/{GROUP}/namespaces/leaving/leaderworkersets/pair")

        async def empty() -> bool:
            await come_up(client, "leaving")
            left = [await items(client, "statefulsets", "leaving", "apps/v1"), await items(client, "pods", "leaving"),
                    await items(client, "controllerrevisions", "leaving", "apps/v1")]  # fmt: skip
            return not any(left)

        await until(empty, "nothing left")

    ground.play(scene)


def test_a_name_that_cannot_be_a_service_is_refused(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "named")
        with pytest.raises(ApiError) as refusal:
            await create(client, lean("1pair"), namespace="named")
        assert refusal.value.body["message"].startswith(
            'admission webhook "vleaderworkerset.kb.io" denied the request: metadata.name: Invalid value: "1pair": '
        )

    ground.play(scene)
