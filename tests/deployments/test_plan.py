"""The plan: what is wanted and what is there in, the next steps out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.kube.kinds import Ref
from deployments.kube.ownership import last_editor
from deployments.reconciler.plan import (
    Apply,
    Block,
    Create,
    Delete,
    Desired,
    Forget,
    Held,
    Live,
    Observed,
    Wait,
    Wish,
    plan,
)

POLICY = Ref("networking.k8s.io/v1", "NetworkPolicy", "ns", "chat")
SERVICE = Ref("serving.kserve.io/v1beta1", "InferenceService", "ns", "chat")
HPA = Ref("autoscaling/v2", "HorizontalPodAutoscaler", "ns", "chat-slipway")
SCALED = Ref("keda.sh/v1alpha1", "ScaledObject", "ns", "chat-slipway")
NAMESPACE = Ref("v1", "Namespace", "", "ns")


def wish(ref: Ref, digest: str = "d1") -> Wish:
    return Wish(ref, {"metadata": {"name": ref.name}}, digest)


def there(ref: Ref, **changes: Any) -> Held:
    """An object that is as we wrote it."""
    live = Live(uid="u", version="7", managed="m")
    live = replace(live, **{name: value for name, value in changes.items() if hasattr(live, name) and name != "uid"})
    if "live_uid" in changes:
        live = replace(live, uid=changes["live_uid"])
    return Held(ref, "u", changes.get("digest", "d1"), "m", live)


def gone(ref: Ref) -> Held:
    return Held(ref, "u", "d1", "m", None)


WANTED = Desired((wish(POLICY), wish(SERVICE)))


def test_what_was_never_there_is_created_in_order():
    assert plan(WANTED, Observed()) == [Create(wish(POLICY)), Create(wish(SERVICE))]


def test_nothing_to_do_when_they_agree():
    assert plan(WANTED, Observed((there(POLICY), there(SERVICE)))) == []


def test_another_content_is_applied_to_the_very_object():
    seen = Observed((there(POLICY), there(SERVICE, digest="old", split=True)))
    assert plan(WANTED, seen) == [Apply(wish(SERVICE), "u", "7", rewrite=True)]


def test_a_hand_edit_is_put_right():
    seen = Observed((there(POLICY), there(SERVICE, managed="other", editor="kubectl-edit")))
    assert plan(WANTED, seen) == [Apply(wish(SERVICE), "u", "7", rewrite=False, edited_by="kubectl-edit")]


def test_a_server_without_managed_fields_shows_no_edit():
    assert plan(WANTED, Observed((there(POLICY), there(SERVICE, managed="")))) == []


def test_a_deleted_object_is_made_again():
    assert plan(WANTED, Observed((gone(POLICY), there(SERVICE)))) == [Create(wish(POLICY), again=True)]


def test_a_deleted_service_waits_for_the_pods_it_left():
    [step] = plan(WANTED, Observed((there(POLICY), gone(SERVICE)), pods=2))
    assert isinstance(step, Wait)


def test_a_deleted_service_waits_for_what_would_make_more_pods():
    [step] = plan(WANTED, Observed((there(POLICY), gone(SERVICE)), makers=1))
    assert isinstance(step, Wait)


def test_a_replaced_object_blocks():
    [step] = plan(WANTED, Observed((there(POLICY), there(SERVICE, live_uid="another"))))
    assert isinstance(step, Block)
    assert step.code == "name_taken"


def test_an_object_without_our_labels_blocks():
    [step] = plan(WANTED, Observed((there(POLICY), there(SERVICE, ours=False, digest="old"))))
    assert isinstance(step, Block)
    assert step.code == "disowned"


def test_an_object_on_its_way_out_is_waited_for():
    [step] = plan(WANTED, Observed((there(POLICY, deleting=True), there(SERVICE))))
    assert isinstance(step, Wait)


def test_a_namespace_is_never_updated():
    assert plan(Desired((wish(NAMESPACE, "new"),)), Observed((there(NAMESPACE, managed="other"),))) == []


def test_what_a_revision_dropped_is_pruned_by_the_inventory():
    runtime = Ref("serving.kserve.io/v1alpha1", "ServingRuntime", "ns", "old")
    assert plan(WANTED, Observed((there(POLICY), there(SERVICE), there(runtime)))) == [Delete(runtime, "u")]


def test_a_stranger_in_the_place_of_a_dropped_object_is_only_forgotten():
    runtime = Ref("serving.kserve.io/v1alpha1", "ServingRuntime", "ns", "old")
    seen = Observed((there(POLICY), there(SERVICE), there(runtime, live_uid="another")))
    assert plan(WANTED, seen) == [Forget(runtime)]


@pytest.mark.parametrize(("before", "after"), [(HPA, SCALED), (SCALED, HPA)])
def test_an_autoscaler_goes_before_its_successor_comes(before: Ref, after: Ref):
    runtime = Ref("serving.kserve.io/v1alpha1", "ServingRuntime", "ns", "old")
    wanted = Desired((*WANTED.objects, wish(after)))
    rest = (there(POLICY), there(SERVICE), there(runtime))
    removal, wait = plan(wanted, Observed((*rest, there(before))))
    assert removal == Delete(before, "u")
    assert isinstance(wait, Wait)
    [still] = plan(wanted, Observed((*rest, there(before, deleting=True))))
    assert isinstance(still, Wait)
    # Everything else that is dropped stays until what comes is there.
    assert plan(wanted, Observed((*rest, gone(before)))) == [Create(wish(after)), Forget(before), Delete(runtime, "u")]


def test_autoscalers_of_all_roles_go_before_the_first_successor_comes():
    def of_roles(scaler: Ref) -> list[Ref]:
        return [replace(scaler, name=f"chat-slipway-{role}") for role in ("prefill", "decode")]

    wanted = Desired((*WANTED.objects, *map(wish, of_roles(SCALED))))
    *removed, wait = plan(wanted, Observed((there(POLICY), there(SERVICE), *map(there, of_roles(HPA)))))
    assert removed == [Delete(ref, "u") for ref in of_roles(HPA)]
    assert isinstance(wait, Wait)


def test_an_autoscaler_without_successor_goes_last():
    seen = Observed((there(POLICY), there(SERVICE, digest="old"), there(HPA)))
    first, last = plan(WANTED, seen)
    assert isinstance(first, Apply)
    assert last == Delete(HPA, "u")


def test_leaving_begins_with_the_service_and_waits_for_it():
    first, second = plan(Desired(pods_gone=True), Observed((there(POLICY), there(SERVICE))))
    assert first == Delete(SERVICE, "u")
    assert isinstance(second, Wait)


def test_leaving_keeps_the_guards_while_a_pod_is_there():
    steps = plan(Desired(pods_gone=True), Observed((there(POLICY),), pods=1))
    assert [type(step) for step in steps] == [Wait]


def test_leaving_ends_with_the_guards():
    assert plan(Desired(pods_gone=True), Observed((there(POLICY), gone(SERVICE)))) == [
        Forget(SERVICE),
        Delete(POLICY, "u"),
    ]


def test_stopping_waits_until_the_service_says_that_it_is_down():
    stopping = Desired(WANTED.objects, pods_gone=True)
    [step] = plan(stopping, Observed((there(POLICY), there(SERVICE))))
    assert isinstance(step, Wait)
    assert plan(stopping, Observed((there(POLICY), there(SERVICE, stopped=True)))) == []


states = st.sampled_from(["never", "there", "old", "edited", "gone", "replaced", "deleting", "disowned"])


@given(st.lists(states, min_size=3, max_size=3), st.integers(0, 2), st.booleans())
def test_no_plan_ever_touches_what_is_not_provably_ours(shapes: list[str], pods: int, leaving: bool):
    refs = [POLICY, SERVICE, Ref("v1", "ServiceAccount", "ns", "chat")]
    changes: dict[str, dict[str, Any]] = {
        "there": {},
        "old": {"digest": "old"},
        "edited": {"managed": "x"},
        "replaced": {"live_uid": "another"},
        "deleting": {"deleting": True},
        "disowned": {"ours": False},
    }
    held = [
        gone(ref) if shape == "gone" else there(ref, **changes[shape])
        for ref, shape in zip(refs, shapes, strict=True)
        if shape != "never"
    ]
    desired = Desired(pods_gone=True) if leaving else Desired(tuple(wish(ref) for ref in refs))
    for step in plan(desired, Observed(tuple(held), pods=pods)):
        match step:
            case Apply() | Delete():
                ref = step.wish.ref if isinstance(step, Apply) else step.ref
                shape = shapes[refs.index(ref)]
                assert shape not in {"never", "gone", "replaced", "disowned"}
                assert step.uid == "u"
            case Create():
                shape = shapes[refs.index(step.wish.ref)]
                assert shape in {"never", "gone"}
                assert not (shape == "gone" and step.wish.ref == SERVICE and pods)


def test_a_controller_that_keeps_only_its_finalizer_is_not_named_as_the_editor():
    when = "2026-11-25T12:00:00Z"  # the same second
    entries = [
        {"manager": "kubectl-edit", "time": when, "fieldsV1": {"f:spec": {"f:predictor": {"f:maxReplicas": {}}}}},
        {"manager": "manager", "time": when, "fieldsV1": {"f:metadata": {"f:finalizers": {".": {}}}}},
    ]

    for order in (entries, entries[::-1]):
        assert last_editor({"metadata": {"managedFields": order}}) == "kubectl-edit"
