"""HorizontalPodAutoscalers: what a metric asks for, and what of it is done."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.lite import cells
from sandbox.lite.controllers import hpa_admission, hpa_status
from sandbox.lite.controllers import hpa_replicas as propose
from sandbox.lite.controllers.hpa_limits import DOWN_WINDOW, Decision, History, decide
from sandbox.lite.controllers.hpa_reading import tolerances
from sandbox.lite.controllers.hpa_replicas import MetricError, Tolerances
from sandbox.lite.controllers.hpa_status import Failure, Outcome

TENTH = Tolerances()


def pods(*states: str) -> list[Any]:
    made = []
    for index, state in enumerate(states):
        ready = {"type": "Ready", "status": "True" if state == "ready" else "False"}
        phase = {"ready": "Running", "unready": "Running"}.get(state, state)
        made.append({"metadata": {"name": f"p{index}"}, "status": {"phase": phase, "conditions": [ready]}})
    return made


def spec(least: int = 1, most: int = 10, **behavior: Any) -> Any:
    made: Any = {"minReplicas": least, "maxReplicas": most, "scaleTargetRef": {"kind": "Deployment", "name": "chat"}}
    if behavior:
        made["behavior"] = behavior
    hpa_admission.default(made)
    return made


class Clock:
    """One autoscaler over time: each `at` is a look."""

    def __init__(self, wanted: Any, current: int) -> None:
        self.spec, self.current, self.history = wanted, current, History()
        self.history.begin(current, 0.0)

    def at(self, moment: float, wanted: int) -> Decision:
        decision = decide(self.spec, self.history, self.current, wanted, moment)
        if decision.replicas != self.current:
            self.history.changed(self.spec.get("behavior"), self.current, decision.replicas, moment)
        self.current = decision.replicas
        return decision


# What a metric asks for -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "usage", "wanted"),
    [(1, 12_000, 3), (2, 10_500, 2), (2, 11_001, 3), (3, 14_000, 3), (3, 13_000, 3), (4, 9_000, 2), (2, 0, 0)],
)
def test_an_average_target_divides_the_total_and_leaves_a_tenth_alone(seen: int, usage: int, wanted: int) -> None:
    assert propose.for_average(seen, usage, 5_000, TENTH).replicas == wanted


def test_the_status_shows_the_average_of_the_pods_there_are() -> None:
    assert propose.for_average(3, 10_000, 5_000, TENTH).usage == 3_334
    assert propose.for_average(0, 10_000, 5_000, TENTH) == propose.Proposal(2, -(2**63))


def test_a_value_target_multiplies_the_ready_pods_alone() -> None:
    mixed = pods("ready", "ready", "unready", "Pending")
    assert propose.for_value(4, 20_000, 5_000, TENTH, mixed).replicas == 8
    assert propose.for_value(4, 5_400, 5_000, TENTH, mixed).replicas == 4
    assert propose.for_value(0, 5_001, 5_000, TENTH, []).replicas == 2
    with pytest.raises(MetricError, match="unable to calculate ready pods: no pods returned by selector"):
        propose.for_value(4, 20_000, 5_000, TENTH, [])


def test_pods_that_have_not_started_hold_back_growth_but_not_shrinking() -> None:
    busy = {"p0": 20_000, "p1": 20_000}
    assert propose.for_pods(2, busy, 5_000, TENTH, pods("ready", "ready")).replicas == 8
    assert propose.for_pods(8, busy, 5_000, TENTH, pods("ready", "ready", *["Pending"] * 6)).replicas == 8
    idle = {"p0": 1_000, "p1": 1_000}
    assert propose.for_pods(3, idle, 5_000, TENTH, pods("ready", "ready", "Pending")).replicas == 1


def test_pods_without_a_value_count_as_on_target_when_shrinking_and_as_idle_when_growing() -> None:
    assert propose.for_pods(3, {"p0": 1_000}, 5_000, TENTH, pods("ready", "ready", "ready")).replicas == 3
    assert propose.for_pods(2, {"p0": 20_000}, 5_000, TENTH, pods("ready", "ready")).replicas == 4
    assert propose.for_pods(2, {"p0": 6_000}, 5_000, TENTH, pods("ready", "ready")).replicas == 2


def test_pods_on_their_way_out_do_not_count() -> None:
    leaving = pods("ready", "ready")
    leaving[1]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert propose.for_pods(2, {"p0": 10_000, "p1": 90_000}, 5_000, TENTH, leaving).replicas == 2
    with pytest.raises(MetricError, match=r"did not receive metrics for targeted pods \(pods might be unready\)"):
        propose.for_pods(1, {"p0": 10_000}, 5_000, TENTH, pods("Failed"))


def test_a_behavior_may_set_its_own_tolerance() -> None:
    assert tolerances(spec()) == TENTH
    assert tolerances(spec(scaleUp={"tolerance": "50m"})) == Tolerances(0.1, 0.05)


# What all metrics ask for -----------------------------------------------------------------------------------


def test_the_loudest_metric_counts_and_a_failing_one_forbids_only_shrinking() -> None:
    two, five = Outcome(2, "pods metric a", {}), Outcome(5, "pods metric b", {})
    failed = Failure("FailedGetPodsMetric", "inner", "outer")
    assert hpa_status.verdict([two, five], 3).name == "pods metric b"
    assert hpa_status.verdict([five, failed], 3).replicas == 5
    stuck = hpa_status.verdict([two, failed], 3)
    assert (stuck.replicas, stuck.reason) == (None, "FailedGetPodsMetric")
    assert stuck.message == "the HPA was unable to compute the replica count: inner"
    assert stuck.error == "invalid metrics (1 invalid out of 2), first error is: outer"


# What of it is done -----------------------------------------------------------------------------------------


def test_shrinking_waits_until_the_highest_recent_wish_is_out_of_the_window() -> None:
    clock = Clock(spec(), current=4)
    kept = clock.at(15, 1)
    assert (kept.replicas, kept.able[0]) == (4, "ScaleDownStabilized")
    assert clock.at(DOWN_WINDOW - 1, 2).replicas == 4
    gone = clock.at(DOWN_WINDOW + 1, 1)
    assert (gone.replicas, gone.able[0]) == (2, "ScaleDownStabilized")  # 2 was wished two seconds before
    assert clock.at(2 * DOWN_WINDOW + 2, 1).replicas == 1


def test_without_a_behavior_growth_at_most_doubles_but_reaches_four() -> None:
    clock = Clock(spec(most=100), current=1)
    first = clock.at(15, 50)
    assert (first.replicas, first.limited, first.limit[0]) == (4, True, "ScaleUpLimit")
    assert [clock.at(moment, 50).replicas for moment in (30, 45, 60, 75)] == [8, 16, 32, 50]
    assert clock.at(90, 120).limit == (
        "TooManyReplicas",
        "the desired replica count is more than the maximum replica count",
    )


def test_the_minimum_is_kept_and_said() -> None:
    clock = Clock(spec(least=2), current=2)
    decision = clock.at(400, 0)
    assert (decision.replicas, decision.limited, decision.limit[0]) == (2, True, "TooFewReplicas")


def test_policies_count_what_was_added_within_their_period() -> None:
    rules = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
    clock = Clock(spec(scaleUp=rules), current=1)
    seen = [(clock.at(moment, 4), clock.current) for moment in (15, 30, 74, 76, 135)]
    assert [current for _, current in seen] == [2, 2, 2, 3, 3]
    assert seen[1][0].limit == (
        "ScaleUpLimit",
        "the desired replica count is increasing faster than the maximum scale rate",
    )


def test_a_shrinking_policy_takes_a_share_and_the_window_of_its_own() -> None:
    rules = {"stabilizationWindowSeconds": 60, "policies": [{"type": "Percent", "value": 50, "periodSeconds": 30}]}
    clock = Clock(spec(scaleDown=rules), current=8)
    assert [clock.at(moment, 1).replicas for moment in (15, 61, 76, 92, 123)] == [8, 4, 4, 2, 1]


def test_a_disabled_direction_never_moves() -> None:
    clock = Clock(spec(scaleDown={"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}), current=5)
    decision = clock.at(1000, 1)
    assert (decision.replicas, decision.limit[0]) == (5, "ScaleDownLimit")


def test_growth_may_wait_too() -> None:
    clock = Clock(spec(scaleUp={"stabilizationWindowSeconds": 60}), current=1)
    waiting = clock.at(15, 4)
    assert (waiting.replicas, waiting.able[0]) == (1, "ScaleUpStabilized")
    assert clock.at(76, 4).replicas == 4


# What kubectl shows -----------------------------------------------------------------------------------------


def test_kubectl_shows_what_is_measured_and_aimed_at() -> None:
    external = {"metric": {"name": "s0-prometheus"}, "target": {"type": "AverageValue", "averageValue": "5"}}
    shown = {"type": "External", "external": {"metric": {"name": "s0-prometheus"}, "current": {"averageValue": "12"}}}
    both = spec()
    both["metrics"].insert(0, {"type": "External", "external": external})
    assert cells.scaling_targets({"spec": both, "status": {"currentMetrics": [shown, {"type": ""}]}}) == (
        "12/5 (avg), cpu: <unknown>/80%"
    )
    assert cells.scaling_targets({"spec": {"metrics": both["metrics"] * 2}}).endswith("/80% + 2 more...")


# Defaults and refusals --------------------------------------------------------------------------------------


def test_what_is_left_out_is_filled() -> None:
    bare: Any = {"maxReplicas": 2, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}}}
    hpa_admission.default(bare)
    assert bare["minReplicas"] == 1
    assert bare["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 80}
    assert bare["behavior"]["scaleDown"] == {
        "stabilizationWindowSeconds": 600,
        "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    }
    assert [policy["value"] for policy in bare["behavior"]["scaleUp"]["policies"]] == [4, 100]


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"maxReplicas": 0}, "spec.maxReplicas", "Required value: must be set and greater than 0"),
        ({"minReplicas": 0}, "spec.minReplicas", "Invalid value: 0: must be greater than or equal to 1"),
        ({"minReplicas": 9, "maxReplicas": 3}, "spec.maxReplicas", "must be greater than or equal to `minReplicas`"),
        ({"scaleTargetRef": {"kind": "Deployment"}}, "spec.scaleTargetRef.name", "Required value"),
        ({"metrics": [{"type": "Pods"}]}, "spec.metrics[0].pods", "must populate information"),
    ],
)
def test_a_wrong_spec_is_refused_at_its_field(change: Any, field: str, words: str) -> None:
    causes = list(hpa_admission.problems({**spec(), **change}))
    assert any(cause.field == field and words in cause.message for cause in causes), causes


def test_a_right_spec_is_not() -> None:
    assert (
        list(hpa_admission.problems(spec(scaleUp={"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]})))
        == []
    )
