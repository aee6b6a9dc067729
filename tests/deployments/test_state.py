"""One function decides the state; KServe's Ready is never asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deployments.kube.observe import Observed, WorkloadView, observe
from deployments.kube.reasons import Code
from deployments.state import Outcome, OutcomeKind, Probe, State, StateName, Want, Wanted, state_of
from tests.deployments.pods import DONE, QUOTA_SENTENCE, RUNNING, pod, recorded, seen, terminated, waiting

NOW = datetime(2026, 11, 25, 14, 0, tzinfo=UTC)
APPLIED = Outcome(OutcomeKind.APPLIED, revision=1)
READY: dict[str, Any] = {"init": DONE, "engine": RUNNING, "ready": True}
CRASHING: dict[str, Any] = {"init": DONE, "engine": waiting("CrashLoopBackOff"), "engine_last": terminated(1)}


def state(
    *pods: dict[str, Any],
    want: Want = Want.RUN,
    revision: int = 1,
    replicas: int = 1,
    outcome: Outcome = APPLIED,
    observed: Observed | None = None,
    probe: Probe | None = None,
    **rest: Any,
) -> State:
    return state_of(Wanted(want, revision, replicas), outcome, observed or seen(*pods, **rest), probe, NOW)


@pytest.mark.parametrize(
    "want",
    [Want.DRAFT, Want.AWAITING_APPROVAL, Want.AWAITING_QUOTA, Want.QUEUED, Want.REJECTED, Want.EXPIRED],
)
def test_what_waits_for_people_is_what_was_recorded(want: Want):
    assert state_of(Wanted(want), Outcome(), None, None, NOW).state.value == want.value


def test_nothing_was_applied_yet():
    assert state(outcome=Outcome()).state is StateName.APPLYING
    assert state_of(Wanted(Want.RUN, 1), APPLIED, None, None, NOW).state is StateName.APPLYING


@pytest.mark.parametrize(
    ("given_pod", "expected"),
    [
        (pod(), StateName.STARTING),
        (pod(init=RUNNING), StateName.DOWNLOADING),
        (pod(init=DONE, engine=RUNNING), StateName.STARTING),
        (pod(**READY), StateName.RUNNING),
        (pod(init=terminated(1, "Error", "401 Client Error")), StateName.FAILED),
        (pod(**CRASHING), StateName.FAILED),
        (pod(scheduled="0/4 nodes are available: 4 Insufficient nvidia.com/gpu."), StateName.STALLED),
        (pod(init=DONE, engine=waiting("ImagePullBackOff")), StateName.STALLED),
    ],
)
def test_the_way_up_and_what_stops_it(given_pod: dict[str, Any], expected: StateName):
    assert state(given_pod).state is expected


def test_a_failure_comes_with_its_reason():
    result = state(pod(init=terminated(1, "Error", "401 Client Error")))
    assert result.reason is not None
    assert (result.reason.code, result.reason.field) == (Code.MODEL_ACCESS, "credential")


def test_kserves_ready_without_a_ready_pod_is_not_running():
    record = {obj["kind"]: obj for obj in recorded("variants/ready-while-pending.yaml")["objects"]}
    service = record["InferenceService"]["status"]
    assert {c["type"]: c["status"] for c in service["conditions"]}["Ready"] == "True"
    result = state(record["Pod"], service=service)
    assert result.state is StateName.STALLED


def test_quota_on_the_cluster_blocks():
    failure = {"type": "ReplicaFailure", "status": "True", "message": QUOTA_SENTENCE}
    result = state(workload={"conditions": [failure]})
    assert result.state is StateName.BLOCKED
    assert result.reason is not None
    assert result.reason.code is Code.QUOTA_EXCEEDED


def test_what_the_cluster_refused_blocks_with_the_reconcilers_words():
    refused = Outcome(OutcomeKind.BLOCKED, title="The name is taken.", remedy="Rename it.", code="nonsense")
    result = state(outcome=refused)
    assert result.state is StateName.BLOCKED
    assert result.reason is not None
    assert (result.reason.title, result.reason.remedy) == ("The name is taken.", "Rename it.")


def test_trouble_that_is_tried_again_is_still_applying():
    result = state(outcome=Outcome(OutcomeKind.RETRYING, title="The cluster does not answer."))
    assert (result.state, result.detail) == (StateName.APPLYING, "The cluster does not answer.")


def test_fewer_ready_than_wanted_is_degraded():
    result = state(pod("a", **READY), pod("b", init=RUNNING), replicas=2)
    assert (result.state, result.ready_replicas) == (StateName.DEGRADED, 1)
    assert state(pod("a", **READY), pod("b", **READY), replicas=2).state is StateName.RUNNING


def test_an_old_revision_serving_while_the_new_one_fails_is_its_own_thing():
    new = Outcome(OutcomeKind.APPLIED, revision=2)
    record = recorded("lifecycle.yaml")["new-revision-crashloop-old-serving"]
    result = state(
        pod("a", **READY),
        pod("b", **CRASHING, revision=2),
        revision=2,
        outcome=new,
        service=record["inferenceservice_status"],
        workload=record["deployment_status"],
    )
    assert result.state is StateName.DEGRADED
    assert (result.serving_revision, result.failing_revision) == (1, 2)
    assert result.reason is not None
    assert result.reason.code is Code.ENGINE_CRASH


def test_a_rollout_on_its_way_keeps_running_and_says_so():
    new = Outcome(OutcomeKind.APPLIED, revision=2)
    result = state(pod("a", **READY), pod("b", init=RUNNING, revision=2), revision=2, outcome=new)
    assert (result.state, result.serving_revision, result.failing_revision) == (StateName.RUNNING, 1, None)
    assert result.detail == "Revision 2 is coming up while revision 1 serves."


@pytest.mark.parametrize(
    ("minutes", "expected"), [(1, StateName.RUNNING), (4, StateName.RUNNING), (6, StateName.DEGRADED)]
)
def test_more_replicas_are_a_rollout_for_five_minutes_and_then_a_lack(minutes: int, expected: StateName):
    new = Outcome(OutcomeKind.APPLIED, revision=2)
    made = NOW - timedelta(minutes=minutes)
    result = state(replicas=2, revision=2, outcome=new, observed=_aged(made, first_revision=1))
    assert result.state is expected
    coming = "Revision 2 is coming up while revision 1 serves."
    assert (result.detail == coming) is (expected is StateName.RUNNING)


def test_a_revision_that_was_not_applied_yet_takes_nothing_from_the_old_one():
    result = state(pod("a", **READY), replicas=2, revision=2)
    assert (result.state, result.failing_revision) == (StateName.RUNNING, None)
    assert result.detail == "Revision 2 is coming up while revision 1 serves."


def test_the_second_of_two_replicas_may_take_its_time():
    result = state(replicas=2, observed=_aged(NOW - timedelta(minutes=2), first_revision=2), revision=2)
    assert result.state is StateName.RUNNING
    new = Outcome(OutcomeKind.APPLIED, revision=2)
    observed = _aged(NOW - timedelta(minutes=2), first_revision=2)
    assert state(replicas=2, observed=observed, revision=2, outcome=new).detail == (
        "Revision 2 is coming up: 1 of 2 replicas serve."
    )


def test_a_replica_lost_long_after_the_start_is_degraded_at_once():
    new = Outcome(OutcomeKind.APPLIED, revision=2)
    observed = _aged(NOW - timedelta(minutes=90), first_revision=2)
    assert state(replicas=2, observed=observed, revision=2, outcome=new).state is StateName.DEGRADED


@pytest.mark.parametrize(
    ("asked", "code"), [({"decode": 1, "prefill": 2}, Code.NO_REPLICAS_YET), ({"decode": 3, "prefill": 2}, None)]
)
def test_fewer_replicas_of_a_role_than_anybody_asks_for_are_the_autoscalers(asked: dict[str, int], code: Code | None):
    made = NOW - timedelta(minutes=90)
    each = {role: seen(pod(role, **READY)).pods[0] for role in ("decode", "prefill-1", "prefill-2")}
    pods = [replace(one, role=role.partition("-")[0], created=made, ready_since=made) for role, one in each.items()]
    names = {"decode": "chat-kserve", "prefill": "chat-kserve-prefill"}
    work = tuple(WorkloadView("Deployment", names[role], "ns", desired=count) for role, count in asked.items())
    observed = replace(seen(), pods=tuple(pods), workloads=work)
    result = state_of(Wanted(Want.RUN, 1, 5, (("prefill", 2), ("decode", 3))), APPLIED, observed, None, NOW)
    assert (result.state, result.reason.code if result.reason else None) == (StateName.DEGRADED, code)
    if result.reason:
        assert result.reason.title == "Of decode 1 of at least 3 replicas are asked for."
        assert result.reason.field == "decode_replicas_min"


def test_a_failing_pod_ends_a_rollout_at_once():
    new = Outcome(OutcomeKind.APPLIED, revision=2)
    result = state(pod("a", **READY), pod("b", **CRASHING, revision=2), replicas=2, revision=2, outcome=new)
    assert (result.state, result.failing_revision) == (StateName.DEGRADED, 2)


def _aged(made: datetime, *, first_revision: int) -> Observed:
    """One pod that serves and one of revision 2 on its way, both made at that time."""
    both = seen(pod("a", **READY, revision=first_revision), pod("b", init=RUNNING, revision=2))
    serving, coming = both.pods
    pods = (replace(serving, created=made, ready_since=made), replace(coming, created=made))
    return replace(both, pods=pods)


def test_a_refused_new_revision_leaves_the_old_one_serving():
    refused = Outcome(OutcomeKind.BLOCKED, revision=1, title="Refused.")
    result = state(pod("a", **READY), revision=2, outcome=refused)
    assert (result.state, result.serving_revision, result.failing_revision) == (StateName.DEGRADED, 1, 2)


@pytest.mark.parametrize(
    ("failures", "age", "expected"),
    [
        (0, 5, StateName.RUNNING),
        (1, 5, StateName.RUNNING),
        (2, 5, StateName.DEGRADED),
        (9, 3600, StateName.RUNNING),
    ],
)
def test_a_probe_counts_when_it_fails_again_and_is_recent(failures: int, age: int, expected: StateName):
    probe = Probe(ok=failures == 0, at=NOW - timedelta(seconds=age), failures=failures, detail="503")
    assert state(pod(**READY), probe=probe).state is expected


def test_stopping_lasts_until_the_pods_are_gone():
    leaving = state(pod(**READY, terminating=True), want=Want.STOP)
    assert (leaving.state, leaving.detail) == (StateName.STOPPING, "1 pod still holds GPUs.")
    stopped = recorded("lifecycle.yaml")["stopped"]["inferenceservice_status"]
    assert state(want=Want.STOP, service=stopped).state is StateName.STOPPED
    assert state(want=Want.STOP, outcome=Outcome()).state is StateName.STOPPING
    unseen = state(want=Want.STOP, observed=observe(complete=False))
    assert unseen.state is StateName.STOPPING


def test_deleted_needs_the_reconcilers_proof():
    assert state(want=Want.DELETE, observed=observe()).state is StateName.DELETING
    gone = Outcome(OutcomeKind.GONE)
    assert state(want=Want.DELETE, outcome=gone, observed=observe()).state is StateName.DELETED


def test_each_state_of_the_design_has_one_name():
    assert {name.value for name in StateName} == {
        "draft", "awaiting_approval", "awaiting_quota", "queued", "applying", "downloading", "starting", "running",
        "degraded", "stalled", "asleep", "blocked", "failed", "stopping", "stopped", "deleting", "deleted",
        "rejected", "expired",
    }  # fmt: skip
