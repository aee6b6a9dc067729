"""The plan where weights are fetched ahead: a Job runs to its end before the service is made, and only once."""

from __future__ import annotations

from typing import Any

from deployments.kube.kinds import Ref
from deployments.reconciler.plan import (
    FETCHED,
    Apply,
    Block,
    Create,
    Delete,
    Desired,
    Forget,
    Held,
    Keep,
    Later,
    Observed,
    Wait,
    plan,
)
from tests.deployments.test_plan import SERVICE, there, wish

CLAIM = Ref("v1", "PersistentVolumeClaim", "ns", "chat-weights-1")
JOB = Ref("batch/v1", "Job", "ns", "chat-weights-1")
OLD = Ref("v1", "PersistentVolumeClaim", "ns", "chat-weights-0")
WANTED = Desired((wish(CLAIM), wish(JOB), wish(SERVICE)))
AHEAD = Wait("The weights are fetched ahead.")


def done(live: bool = False, **changes: Any) -> Held:
    """A Job that has done its work, of which the object is still there or not."""
    held = there(JOB, ended="Complete", **changes)
    return Held(JOB, "u", "d1", FETCHED, held.live if live else None)


def test_the_service_waits_for_the_job():
    assert plan(WANTED, Observed()) == [Create(wish(CLAIM)), Create(wish(JOB)), AHEAD]
    assert plan(WANTED, Observed((there(CLAIM), there(JOB)))) == [AHEAD]


def test_a_job_that_is_done_is_recorded_then_removed_and_stays_recorded():
    steps = plan(WANTED, Observed((there(CLAIM), there(JOB, ended="Complete"))))
    assert steps == [Keep(JOB), Create(wish(SERVICE))]
    assert plan(WANTED, Observed((there(CLAIM), done(live=True), there(SERVICE)))) == [Delete(JOB, "u")]
    assert plan(WANTED, Observed((there(CLAIM), done(), there(SERVICE)))) == []


def test_an_edit_of_anything_else_does_not_fetch_again():
    edited = Desired((wish(CLAIM, "d2"), wish(JOB, "d2"), wish(SERVICE, "d2")))
    steps = plan(edited, Observed((there(CLAIM), done(), there(SERVICE))))
    assert [type(step) for step in steps] == [Apply, Apply]


def test_a_changed_job_is_made_anew_as_no_job_can_change():
    steps = plan(WANTED, Observed((there(CLAIM), there(JOB, digest="old"))))
    assert steps[0] == Delete(JOB, "u")
    assert isinstance(steps[-1], Wait)


def test_a_job_that_failed_is_left_to_a_person():
    (step,) = plan(WANTED, Observed((there(CLAIM), there(JOB, ended="Failed", why="Too many."))))
    assert isinstance(step, Block)
    assert step.code == "download_failed"
    assert "Too many." in step.message


def test_a_job_that_somebody_deleted_is_made_again():
    gone = Held(JOB, "u", "d1", "m", None)
    assert plan(WANTED, Observed((there(CLAIM), gone))) == [Create(wish(JOB), again=True), AHEAD]


def test_a_claim_that_somebody_deleted_is_filled_again():
    gone = Held(CLAIM, "u", "d1", "m", None)
    steps = plan(WANTED, Observed((gone, done(), there(SERVICE))))
    assert steps[:2] == [Forget(JOB), Create(wish(CLAIM), again=True)]
    steps = plan(WANTED, Observed((gone, there(JOB))))
    assert steps[0] == Delete(JOB, "u")
    assert isinstance(steps[1], Wait)


def test_stopping_keeps_what_was_fetched_and_ends_what_is_being_fetched():
    stopped = Desired(WANTED.objects, pods_gone=True)
    service = there(SERVICE, stopped=True)
    assert plan(stopped, Observed((there(CLAIM), done(), service))) == []
    assert plan(stopped, Observed((there(CLAIM), there(JOB), service), pods=1))[0] == Delete(JOB, "u")


def test_deleting_takes_the_job_first_and_the_claim_when_no_pod_is_left():
    nothing = Desired(pods_gone=True)
    steps = plan(nothing, Observed((there(CLAIM), there(JOB)), pods=1))
    assert steps[0] == Delete(JOB, "u")
    assert isinstance(steps[1], Wait)
    assert plan(nothing, Observed((there(CLAIM), done()))) == [Forget(JOB), Delete(CLAIM, "u")]


def test_the_claim_of_the_revision_before_stays_while_its_pods_do():
    held = (there(OLD), there(CLAIM), done(), there(SERVICE))
    (left,) = plan(WANTED, Observed(held, pods=2, older=True))
    assert isinstance(left, Later)
    assert plan(WANTED, Observed(held, pods=1)) == [Delete(OLD, "u")]
