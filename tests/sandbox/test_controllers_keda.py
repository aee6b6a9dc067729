"""KEDA: how triggers are read, what autoscaler a ScaledObject becomes, when a target sleeps, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from sandbox.lite.controllers import keda_admission as webhook
from sandbox.lite.controllers import keda_fallback as fallback
from sandbox.lite.controllers import keda_objects as objects
from sandbox.lite.controllers.hpa_replicas import MetricError
from sandbox.lite.controllers.keda_decision import Look, decide
from sandbox.lite.controllers.keda_triggers import TriggerError, metric_specs, read_triggers, types
from sandbox.lite.controllers.resources import DEPLOYMENTS
from sandbox.lite.controllers.scaling_prometheus import only_value

NOW = datetime(2026, 11, 25, 14, 0, tzinfo=UTC)


def trigger(**metadata: str) -> Any:
    words = {"serverAddress": "http://p.svc:9090", "query": "up", "threshold": "5", **metadata}
    return {"type": "prometheus", "metadata": {name: value for name, value in words.items() if value}}


def scaled(name: str = "chat", annotations: Any = None, last: str = "", **spec: Any) -> Any:
    body = {"scaleTargetRef": {"name": name}, "triggers": [trigger()], **spec}
    meta = {"name": name, "namespace": "team", "uid": "u", "creationTimestamp": "2026-11-25T13:00:00Z"}
    made: Any = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": meta, "spec": body}
    if annotations:
        meta["annotations"] = annotations
    if last:
        made["status"] = {"lastActiveTime": last}
    return made


# Triggers ---------------------------------------------------------------------------------------------------


def test_a_trigger_becomes_an_external_metric_of_its_index() -> None:
    value = {**trigger(threshold="2.5"), "metricType": "Value"}
    first, second = metric_specs(read_triggers([trigger(), value]), "chat")
    selector = {"matchLabels": {"scaledobject.keda.sh/name": "chat"}}
    assert first["external"] == {
        "metric": {"name": "s0-prometheus", "selector": selector},
        "target": {"type": "AverageValue", "averageValue": "5"},
    }
    assert second["external"]["metric"]["name"] == "s1-prometheus"
    assert second["external"]["target"] == {"type": "Value", "value": "2500m"}


def test_cpu_is_left_to_the_autoscaler_and_sorted_last() -> None:
    cpu = {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "80"}}
    found = metric_specs(read_triggers([cpu, trigger()]), "chat")
    assert [item["type"] for item in found] == ["External", "Resource"]
    assert found[1]["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    assert types([cpu, trigger(), trigger()]) == ("cpu,prometheus", "")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (trigger(threshold=""), 'missing required parameter "threshold" in [triggerMetadata]'),
        (trigger(threshold="many"), 'unable to set param "threshold" value "many": unable to unmarshal'),
        (trigger(ignoreNullValues="maybe"), 'unable to parse boolean value "maybe"'),
        ({**trigger(), "metricType": "Utilization"}, "'Utilization' metric type is unsupported for external metrics"),
        ({"type": "cpu", "metadata": {"value": "80"}}, "unknown metric type: , allowed values are"),
        ({"type": "tarot", "metadata": {}}, "no scaler found for type: tarot"),
    ],
)
def test_a_wrong_trigger_is_named_in_kedas_words(wrong: Any, words: str) -> None:
    with pytest.raises(TriggerError) as refused:
        read_triggers([wrong])
    assert words in str(refused.value)


def test_everything_missing_is_told_at_once() -> None:
    with pytest.raises(TriggerError) as refused:
        read_triggers([{"type": "prometheus", "metadata": {}}])
    assert str(refused.value).count("missing required parameter") == 3
    assert str(refused.value).startswith(
        "error parsing prometheus metadata: error parsing prometheus metadata: missing"
    )


def answer(*values: str) -> Any:
    return {"status": "success", "data": {"result": [{"metric": {}, "value": [0, value]} for value in values]}}


def test_one_number_is_a_value_and_nothing_may_count_as_zero() -> None:
    assert only_value(answer("2.5"), "up", ignore_nothing=True) == 2.5
    assert only_value(answer(), "up", ignore_nothing=True) == 0.0
    assert only_value(answer("NaN"), "up", ignore_nothing=True) == 0.0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (answer(), "prometheus metrics 'prometheus' target may be lost, the result is empty"),
        (answer("1", "2"), "prometheus query up returned multiple elements"),
        (answer("+Inf"), "prometheus query returns +Inf"),
    ],
)
def test_what_is_not_one_number_is_an_error(body: Any, words: str) -> None:
    with pytest.raises(MetricError) as refused:
        only_value(body, "up", ignore_nothing=False)
    assert str(refused.value) == words


# The autoscaler ---------------------------------------------------------------------------------------------


def made(one: Any) -> Any:
    return objects.hpa(one, DEPLOYMENTS, metric_specs(read_triggers(one["spec"]["triggers"]), "chat"))


def test_the_autoscaler_never_goes_to_zero_itself() -> None:
    spec = made(scaled(minReplicaCount=0))["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 100)
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"}
    assert "behavior" not in spec


def test_the_autoscaler_carries_kedas_labels_and_its_owner() -> None:
    meta = made(scaled())["metadata"]
    assert meta["name"] == "keda-hpa-chat"
    assert meta["labels"] == {
        "app.kubernetes.io/name": "keda-hpa-chat",
        "app.kubernetes.io/version": "2.20.2",
        "app.kubernetes.io/part-of": "chat",
        "app.kubernetes.io/managed-by": "keda-operator",
    }
    assert meta["ownerReferences"][0]["kind"] == "ScaledObject"


def test_a_paused_direction_is_disabled_in_the_autoscaler() -> None:
    behavior = made(scaled(annotations={objects.PAUSED_IN: "true"}))["spec"]["behavior"]
    assert behavior["scaleDown"]["selectPolicy"] == "Disabled"
    assert behavior["scaleUp"]["selectPolicy"] == "Max"


def test_any_word_but_a_plain_no_pauses() -> None:
    assert objects.paused(scaled(annotations={objects.PAUSED: "yes please"}))
    assert not objects.paused(scaled(annotations={objects.PAUSED: "false"}))
    assert objects.paused(scaled(annotations={objects.PAUSED_REPLICAS: "2"}))
    with pytest.raises(ValueError, match='parsing "two": invalid syntax'):
        objects.paused_replicas(scaled(annotations={objects.PAUSED_REPLICAS: "two"}))


# To zero and back -------------------------------------------------------------------------------------------


def test_an_active_trigger_wakes_a_sleeping_target_with_its_least_replicas() -> None:
    assert decide(scaled(minReplicaCount=0), Look(0, active=True), NOW).resize == 1
    assert decide(scaled(minReplicaCount=3, idleReplicaCount=0), Look(0, active=True), NOW).resize == 3
    awake = decide(scaled(minReplicaCount=0), Look(2, active=True), NOW)
    assert (awake.resize, awake.touched) == (None, True)


def test_a_target_sleeps_only_when_its_cooldown_is_over() -> None:
    one = scaled(minReplicaCount=0, cooldownPeriod=60, last="2026-11-25T13:59:30Z")
    waiting = decide(one, Look(1, active=False), NOW)
    assert (waiting.resize, waiting.active[1]) == (None, "ScalerCooldown")
    assert decide(one, Look(1, active=False), NOW, speed=3).resize == 0
    assert decide(scaled(minReplicaCount=0), Look(1, active=False), NOW).resize == 0  # never active: no cooldown
    young = scaled(minReplicaCount=0, initialCooldownPeriod=7200)
    assert decide(young, Look(1, active=False), NOW).resize is None


def test_idle_replicas_are_kept_when_nothing_is_active() -> None:
    one = scaled(minReplicaCount=3, idleReplicaCount=1, last="2026-11-25T12:00:00Z")
    assert decide(one, Look(3, active=False), NOW).resize == 1
    assert decide(one, Look(1, active=False), NOW).resize is None
    assert decide(scaled(minReplicaCount=2), Look(1, active=False), NOW).resize == 2


def test_a_failing_trigger_never_puts_a_target_to_sleep() -> None:
    failing = decide(scaled(minReplicaCount=0), Look(2, active=False, failing=True), NOW)
    assert (failing.resize, failing.ready[1]) == (None, "TriggerError")
    with_fallback = scaled(minReplicaCount=0, fallback={"failureThreshold": 3, "replicas": 2})
    assert decide(with_fallback, Look(2, active=False, failing=True), NOW).resize is None
    partly = decide(scaled(minReplicaCount=0), Look(2, active=True, failing=True), NOW)
    assert partly.ready[:2] == ("Unknown", "PartialTriggerError")


def test_switches_hold_a_target_where_it_is_or_wake_it() -> None:
    assert decide(scaled(annotations={objects.PAUSED_OUT: ""}), Look(0, active=True), NOW).resize is None
    assert decide(scaled(annotations={objects.PAUSED_IN: ""}), Look(2, active=False), NOW).resize is None
    forced = decide(scaled(annotations={objects.FORCED: "true"}), Look(0, active=False), NOW)
    assert (forced.resize, "forced by annotation" in forced.active[2]) == (1, True)


# Fallback ---------------------------------------------------------------------------------------------------


def test_failures_are_counted_until_a_success() -> None:
    one = scaled(fallback={"failureThreshold": 1, "replicas": 3})
    health: Any = {}
    for expected in (False, True):
        health = fallback.counted(health, "s0-prometheus", failed=True)
        assert fallback.reached(one, health) is expected
    assert fallback.counted(health, "s0-prometheus", failed=False) == {
        "s0-prometheus": {"numberOfFailures": 0, "status": "Happy"}
    }


@pytest.mark.parametrize(
    ("behavior", "wanted"),
    [("static", 3), ("currentReplicas", 5), ("currentReplicasIfHigher", 5), ("currentReplicasIfLower", 3)],
)
def test_the_value_that_stands_in_asks_for_the_replicas_wished(behavior: str, wanted: int) -> None:
    one = scaled(fallback={"failureThreshold": 1, "replicas": 3, "behavior": behavior})
    [average] = read_triggers([trigger()])
    [total] = read_triggers([{**trigger(), "metricType": "Value"}])
    assert fallback.value(one, average, current=5, ready=2) == 5000 * wanted  # type: ignore[arg-type]
    assert fallback.value(one, total, current=5, ready=2) == 5000 * wanted // 2  # type: ignore[arg-type]
    assert fallback.value(one, total, current=5, ready=0) is None  # type: ignore[arg-type]


# The webhook ------------------------------------------------------------------------------------------------


def refused(one: Any, others: Any = (), autoscalers: Any = (), pod: Any = None) -> list[str]:
    return list(webhook.refusals(one, others, autoscalers, pod))


def test_a_right_one_is_let_through() -> None:
    assert refused(scaled(minReplicaCount=1, maxReplicaCount=4), [scaled("other")]) == []


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (scaled(minReplicaCount=5, maxReplicaCount=2), "MinReplicaCount=5 must be less than MaxReplicaCount=2"),
        (scaled(minReplicaCount=1, idleReplicaCount=1), "IdleReplicaCount=1 must be less than MinReplicaCount=1"),
        (
            scaled(triggers=[{**trigger(), "name": "a"}, {**trigger(), "name": "a"}]),
            'triggerName "a" is defined multiple times in the ScaledObject/ScaledJob, but it must be unique',
        ),
        (
            scaled(advanced={"scalingModifiers": {"target": "2"}}),
            "error ScalingModifiers.Formula is mandatory",
        ),
        (
            scaled("c" * 55),
            f'HPA name "keda-hpa-{"c" * 55}" derived from scaledobject is 64 characters long; must be no more than 63 '
            "characters; set spec.advanced.horizontalPodAutoscalerConfig.name to a shorter name or shorten the "
            "scaledobject name",
        ),
    ],
)
def test_a_wrong_one_is_refused_in_kedas_words(one: Any, words: str) -> None:
    assert refused(one) == [words]


def test_one_workload_has_one_owner() -> None:
    rival = scaled("other", scaleTargetRef={"name": "chat", "apiVersion": "apps/v1", "kind": "Deployment"})
    assert refused(scaled(), [rival]) == [
        "the workload 'chat' of type 'apps/v1.Deployment' is already managed by the ScaledObject 'other'"
    ]
    mine, theirs = made(scaled()), made(scaled("other", scaleTargetRef={"name": "chat"}))
    assert refused(scaled(), autoscalers=[mine]) == []
    assert refused(scaled(), autoscalers=[theirs]) == [
        "the workload 'chat' of type 'apps/v1.Deployment' is already managed by the hpa 'keda-hpa-other'"
    ]


def test_cpu_needs_a_request_and_somebody_else_to_sleep() -> None:
    cpu = {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "80"}}
    bare, asking = (
        {"containers": [{"name": "c"}]},
        {"containers": [{"name": "c", "resources": {"requests": {"cpu": 1}}}]},
    )
    assert refused(scaled(triggers=[cpu], minReplicaCount=1), pod=bare) == [
        "the scaledobject has a cpu trigger but the container c doesn't have the cpu request defined"
    ]
    assert refused(scaled(triggers=[cpu], minReplicaCount=1), pod=asking) == []
    assert "scale to zero doesn't work" in refused(scaled(triggers=[cpu]), pod=asking)[0]


def test_what_means_nothing_is_warned_of() -> None:
    assert list(webhook.warnings(scaled(minReplicaCount=0, pollingInterval=5, cooldownPeriod=5))) == []
    told = list(webhook.warnings(scaled(minReplicaCount=1, pollingInterval=5, cooldownPeriod=5)))
    assert [text.split()[0] for text in told] == ["PollingInterval", "CooldownPeriod"]
