"""Deployments and ReplicaSets: rollouts step by step, and statuses against the recorded ones."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.lite.controllers import deployment_plan as plan
from sandbox.lite.controllers import deployment_status as described
from sandbox.lite.controllers import replicaset
from sandbox.lite.controllers.meta import condition
from tests.sandbox.recordings import comparable, read, recorded

NOW = datetime(2026, 11, 25, 14, 0, tzinfo=UTC)


def deployment(replicas: int = 1, *, surge: Any = "25%", unavailable: Any = "25%", image: str = "one") -> Any:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "chat", "namespace": "team", "uid": "d", "generation": 1, "annotations": {"a": "b"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "chat"}},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
            },
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 2,
            "template": {
                "metadata": {"labels": {"app": "chat"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    }


class Play:
    """ReplicaSets that obey at once; `ready` says which images come up."""

    def __init__(self, wanted: Any, ready: set[str]) -> None:
        self.deployment, self.ready = wanted, ready
        self.sets: list[Any] = []
        self.most, self.fewest = 0, 10**6

    def step(self) -> bool:
        """One look of the controller; False when there was nothing to do."""
        new = plan.current(self.deployment, self.sets)
        old = [item for item in self.sets if item is not new]
        acted = False
        if new is None:
            new = plan.new_replica_set(self.deployment, old)
            new["metadata"] |= {
                "uid": f"rs{len(self.sets)}",
                "creationTimestamp": f"2026-01-01T00:00:{len(self.sets):02d}Z",
            }
            self.sets.append(new)
            acted = True
        for scale in plan.rollout(self.deployment, new, old):
            scale.replica_set["spec"]["replicas"] = scale.replicas
            acted = True
        self._obey()
        return acted

    def _obey(self) -> None:
        for item in self.sets:
            size = item["spec"]["replicas"]
            image = item["spec"]["template"]["spec"]["containers"][0]["image"]
            up = size if image in self.ready else 0
            item["status"] = {"replicas": size, "readyReplicas": up, "availableReplicas": up}
        self.most = max(self.most, sum(item["status"]["replicas"] for item in self.sets))
        if len(self.sets) > 1:
            self.fewest = min(self.fewest, sum(item["status"]["availableReplicas"] for item in self.sets))

    def run(self) -> dict[str, int]:
        for _ in range(50):
            if not self.step():
                return {
                    item["spec"]["template"]["spec"]["containers"][0]["image"]: item["spec"]["replicas"]
                    for item in self.sets
                }
        raise AssertionError("the rollout never ends")

    def change(self, image: str) -> None:
        self.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image


@pytest.mark.parametrize(("surge", "unavailable"), [(1, 0), (0, 1), ("25%", "25%"), (2, 2), ("100%", 0)])
def test_a_rollout_keeps_its_bounds_and_ends(surge: Any, unavailable: Any) -> None:
    play = Play(deployment(4, surge=surge, unavailable=unavailable), {"one", "two"})
    play.run()
    play.change("two")

    assert play.run() == {"one": 0, "two": 4}
    most_extra, most_missing = plan.bounds(play.deployment)
    assert play.most <= 4 + most_extra
    assert play.fewest >= 4 - most_missing


def test_a_broken_revision_stops_beside_the_old_one() -> None:
    play = Play(deployment(1), {"one"})
    play.run()
    play.change("broken")

    assert play.run() == {"one": 1, "broken": 1}


def test_with_no_surge_a_broken_revision_takes_the_only_pod() -> None:
    play = Play(deployment(1, surge=0, unavailable=1), {"one"})
    play.run()
    play.change("broken")

    assert play.run() == {"one": 0, "broken": 1}


def test_a_revision_after_a_broken_one_clears_the_broken_pods_first() -> None:
    play = Play(deployment(2, surge=1, unavailable=0), {"one", "three"})
    play.run()
    play.change("broken")
    play.run()
    play.change("three")

    assert play.run() == {"one": 0, "broken": 0, "three": 2}
    assert play.fewest >= 2


def test_going_back_uses_the_old_replica_set() -> None:
    play = Play(deployment(1), {"one", "two"})
    for image in ("one", "two", "one"):
        play.change(image)
        play.run()

    assert [item["spec"]["replicas"] for item in play.sets] == [1, 0]


def test_scaling_needs_no_new_replica_set() -> None:
    play = Play(deployment(1), {"one"})
    play.run()
    play.deployment["spec"]["replicas"] = 5

    assert play.run() == {"one": 5}


def test_growing_while_a_broken_revision_is_stuck_leaves_the_old_pods_alone() -> None:
    play = Play(deployment(2, surge=1, unavailable=0), {"one"})
    play.run()
    play.change("broken")
    play.run()
    play.deployment["spec"]["replicas"] = 8

    assert play.run() == {"one": 2, "broken": 7}


def test_recreate_empties_the_old_before_the_new_starts() -> None:
    play = Play(deployment(2), {"one", "two"})
    play.deployment["spec"]["strategy"] = {"type": "Recreate"}
    play.run()
    new, old = None, play.sets

    assert [scale.replicas for scale in plan.rollout(play.deployment, new, old)] == [0]
    assert plan.recreate_must_wait(play.deployment, [{"status": {"phase": "Running"}}])
    assert not plan.recreate_must_wait(play.deployment, [{"status": {"phase": "Failed"}}])


def test_the_hash_names_the_template_and_avoids_collisions() -> None:
    template = deployment()["spec"]["template"]
    other = deployment(image="two")["spec"]["template"]

    digest = plan.template_hash(template)

    assert digest == plan.template_hash(copy.deepcopy(template))
    assert len({digest, plan.template_hash(other), plan.template_hash(template, 1)}) == 3
    assert set(digest) <= set("bcdfghjklmnpqrstvwxz2456789")


@pytest.mark.parametrize("name", ["01-isvc-standard-vllm", "02-isvc-hf-token"])
def test_a_replica_set_is_the_recorded_one(name: str) -> None:
    source = recorded(f"objects/{name}.yaml", "Deployment")
    assert source is not None

    ours = plan.new_replica_set(source, [])

    theirs = recorded(f"objects/{name}.yaml", "ReplicaSet")
    assert theirs is not None
    del theirs["status"]
    assert comparable(ours) == comparable(theirs)


def test_old_replica_sets_beyond_the_limit_are_dropped_oldest_first() -> None:
    play = Play(deployment(1), {"one", "two", "three", "four", "five"})
    for number, image in enumerate(("one", "two", "three", "four", "five")):
        play.change(image)
        play.run()
        play.sets[-1]["metadata"]["annotations"][plan.REVISION] = str(number + 1)
    old = play.sets[:-1]

    assert [plan.revision_of(item) for item in plan.surplus_history(play.deployment, old)] == [1, 2]


# Statuses ---------------------------------------------------------------------------------------------------

STEPS = [  # phase of the recording, and (replicas, ready) of each ReplicaSet, oldest first
    ("scheduled", [(1, 0)]),
    ("engine-crashloop", [(1, 0)]),
    ("ready", [(1, 1)]),
    ("new-revision-pod-pending", [(1, 1), (1, 0)]),
    ("new-revision-crashloop-old-serving", [(1, 1), (1, 0)]),
]


def test_statuses_through_the_recorded_life() -> None:
    life = read("lifecycle.yaml")
    wanted = deployment(1)
    wanted["metadata"]["name"] = "qwen25-7b-predictor"
    sets: list[Any] = []
    for number, (phase, sizes) in enumerate(STEPS):
        while len(sets) < len(sizes):
            wanted["metadata"]["generation"] = len(sets) + 1
            wanted["spec"]["template"]["spec"]["containers"][0]["image"] = f"image-{number}"
            sets.append(plan.new_replica_set(wanted, sets))
            name = sets[-1]["metadata"]["name"]
            wanted["status"] = described.note_new_replica_set(wanted, name, NOW, created=True)
            wanted["status"] = described.status_of(wanted, sets[-1], sets[:-1], NOW)  # before it has a pod
        for item, (size, ready) in zip(sets, sizes, strict=True):
            item["status"] = counted(size, ready)

        wanted["status"] = described.status_of(wanted, sets[-1], sets[:-1], NOW + timedelta(seconds=number))

        assert comparable(wanted["status"]) == comparable(life[phase]["deployment_status"]), phase


def counted(size: int, ready: int) -> dict[str, Any]:
    return {"replicas": size, "readyReplicas": ready, "availableReplicas": ready, "terminatingReplicas": 0}


def test_with_one_replica_and_one_that_may_be_missing_none_is_enough() -> None:
    source = recorded("variants/ready-while-pending.yaml", "Deployment")
    assert source is not None
    theirs = source.pop("status")
    new = plan.new_replica_set(source, [])
    new["status"] = counted(1, 0)
    source["status"] = described.note_new_replica_set(source, new["metadata"]["name"], NOW, created=True)

    ours = described.status_of(source, new, [], NOW)

    assert comparable(ours) == comparable(theirs)


def test_over_quota_both_statuses_are_the_recorded_ones() -> None:
    quota = read("quota.yaml")
    source = deployment(2)
    source["metadata"]["name"] = "qwen25-7b-predictor"
    new = plan.new_replica_set(source, [])
    new["metadata"]["generation"] = 1
    sentence = quota["replicaset_status"]["conditions"][0]["message"]
    pods = [{"metadata": {"labels": new["spec"]["template"]["metadata"]["labels"]}, "status": {"phase": "Pending"}}]

    new["status"] = replicaset.status_of(new, pods, ("FailedCreate", sentence), NOW)
    source["status"] = described.note_new_replica_set(source, new["metadata"]["name"], NOW, created=True)

    assert comparable(new["status"]) == comparable(quota["replicaset_status"])
    ours = described.status_of(source, new, [], NOW)
    assert comparable(ours) == comparable(quota["deployment_status"])


def test_the_first_refusal_stays_until_pods_can_be_made_again() -> None:
    new = plan.new_replica_set(deployment(), [])
    new["metadata"]["generation"] = 1
    new["status"] = replicaset.status_of(new, [], ("FailedCreate", "first"), NOW)

    again = replicaset.status_of(new, [], ("FailedCreate", "second"), NOW)

    assert condition(again["conditions"], "ReplicaFailure")["message"] == "first"  # type: ignore[index]
    assert "conditions" not in replicaset.status_of(new, [], None, NOW)


def test_a_rollout_that_stands_still_times_out() -> None:
    stuck = deployment(1)
    new = plan.new_replica_set(stuck, [])
    new["status"] = counted(1, 0)
    stuck["status"] = described.status_of(stuck, new, [], NOW)
    assert described.deadline(stuck, NOW) == pytest.approx(601)

    late = described.status_of(stuck, new, [], NOW + timedelta(seconds=601))

    progressing = condition(late["conditions"], "Progressing")
    assert progressing is not None
    assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert progressing["message"].endswith("has timed out progressing.")
    stuck["status"] = late
    assert described.deadline(stuck, NOW) is None


def test_old_pods_that_go_count_as_progress() -> None:
    rolling = deployment(2)
    old, new = plan.new_replica_set(rolling, []), plan.new_replica_set(deployment(2, image="two"), [])
    begun = described.note_new_replica_set(rolling, "new", NOW, created=True)
    rolling["status"] = {**begun, "replicas": 4, "updatedReplicas": 2, "readyReplicas": 3, "availableReplicas": 3}
    old["status"], new["status"] = counted(1, 1), counted(2, 2)

    status = described.status_of(rolling, new, [old], NOW)

    progressing = condition(status["conditions"], "Progressing")
    assert progressing is not None
    assert progressing["reason"] == "ReplicaSetUpdated"


def test_the_pod_nobody_misses_goes_first() -> None:
    def pod(name: str, *, node: str = "", phase: str = "Running", ready: bool = True, made: int = 0) -> Any:
        return {
            "metadata": {"name": name, "creationTimestamp": f"2026-01-01T00:00:{made:02d}Z"},
            "spec": {"nodeName": node},
            "status": {
                "phase": phase,
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            },
        }

    pods = [
        pod("old", node="n", made=1),
        pod("young", node="n", made=2),
        pod("unready", node="n", ready=False),
        pod("pending", node="n", phase="Pending", ready=False),
        pod("unplaced", phase="Pending", ready=False),
    ]

    order = [item["metadata"]["name"] for item in replicaset.doomed(pods, 5)]

    assert order == ["unplaced", "pending", "unready", "young", "old"]


def test_a_pod_counts_as_available_after_min_ready_seconds() -> None:
    slow = plan.new_replica_set({**deployment(), "spec": {**deployment()["spec"], "minReadySeconds": 10}}, [])
    slow["metadata"]["generation"] = 1
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-25T14:00:00Z"}
    status = {"phase": "Running", "conditions": [ready]}
    pods = [{"metadata": {"creationTimestamp": "2026-11-25T13:59:00Z"}, "status": status}]

    assert "availableReplicas" not in replicaset.status_of(slow, pods, None, NOW + timedelta(seconds=9))
    assert replicaset.until_available(slow, pods, NOW + timedelta(seconds=9)) == pytest.approx(1)
    assert replicaset.status_of(slow, pods, None, NOW + timedelta(seconds=10))["availableReplicas"] == 1
