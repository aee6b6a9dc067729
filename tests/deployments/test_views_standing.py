"""What the page of a deployment says of where it stands, and what its timeline tells."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from deployments.kube.observe import ConditionView, ContainerView, EventView
from deployments.models import Approval, Deployment, Event, Flavor, Revision, Team, User, Wanted
from deployments.views.present import tone_of
from deployments.views.timeline import said, told
from tests.deployments import factories as make
from tests.deployments.viewing import flat, observe, pod, signed_in

State = Deployment.State
NOW = timezone.now()


@pytest.fixture
def chat(team: Team, ann: User, h100: Flavor) -> Deployment:
    make.make_profile()
    row = make.make_deployment(team, ann, approved=True)
    Deployment.objects.filter(pk=row.pk).update(applied=row.latest, state=State.RUNNING)
    row.refresh_from_db()
    return row


def page(person: User, name: str, row: Deployment, **query: str) -> str:
    answer = signed_in(person).get(reverse(f"deployment-{name}", args=[row.pk]), query)
    assert answer.status_code == 200
    return flat(answer.content.decode())


def fails(row: Deployment, **reason: Any) -> None:
    given = {"weight": "failed", "title": "It fails.", "value": None, **reason}
    Deployment.objects.filter(pk=row.pk).update(state=State.FAILED, reason=given)


def test_a_rejected_request_says_who_why_and_what_to_press(team: Team, ann: User, alice: User, h100: Flavor) -> None:
    make.make_profile()
    row = make.make_deployment(team, ann)
    Revision.objects.filter(pk=row.latest_id).update(verdict=Revision.Verdict.REJECTED)
    Approval.objects.create(
        revision=row.latest, digest=row.latest.digest, kind="lead", actor=alice, approved=False, comment="Too large."
    )
    Deployment.objects.filter(pk=row.pk).update(state=State.REJECTED)

    text = page(ann, "detail", row)

    assert "Revision 1 was rejected by alice" in text
    assert "“Too large.”" in text
    assert "Edit and ask again" in text
    assert "was rejected</span>" in text


def test_a_stopped_one_reserves_what_a_rollout_takes_too(chat: Deployment, ann: User, alice: User) -> None:
    make.approve(make.add_revision(chat, ann, gpus=2, surge=1))
    Deployment.objects.filter(pk=chat.pk).update(wanted=Wanted.STOPPED, state=State.STOPPED)
    Event.objects.create(team=chat.team, deployment=chat, actor=alice, kind="stopped", message="Stop asked for")
    assert "Starting it again reserves 3 × H100-80GB" in page(alice, "detail", chat)
    assert "3 × H100-80GB of Search's quota are reserved" in page(alice, "start", chat)


def test_a_stopped_one_says_by_whom_and_shows_nothing_of_before(chat: Deployment, alice: User) -> None:
    Deployment.objects.filter(pk=chat.pk).update(
        wanted=Wanted.STOPPED, state=State.STOPPED, probe={"ok": True}, probed_at=timezone.now()
    )
    Event.objects.create(
        team=chat.team, deployment=chat, actor=alice, kind="stopped", message="Stop asked for: too dear"
    )

    text = page(alice, "detail", chat)

    assert "Stopped by alice at " in text
    assert "too dear" in text
    assert "Starting it again reserves 1 × H100-80GB" in text
    assert "It does not answer while it is stopped" in text
    assert 'id="charts"' not in text
    assert 'class="way"' not in text


def test_a_flag_that_has_to_go_is_removed_by_its_button(chat: Deployment, ann: User) -> None:
    make.make_check()
    spec = make.a_spec(engine={"profile": "vllm-0.32.0", "args": {"quantization": "awq", "max-num-seqs": 8}})
    old = chat.latest
    assert old is not None
    again = Revision.objects.create(
        deployment=chat, number=2, spec=spec, digest="5" * 64, flavor=old.flavor, gpus=1, author=ann
    )
    Deployment.objects.filter(pk=chat.pk).update(latest=again)
    fails(chat, code="quantization", field="quantization")

    text = page(ann, "detail", chat)
    edit = signed_in(ann).get(reverse("deployment-edit", args=[chat.pk]), {"set": "quantization="})

    assert "Remove quantization" in text
    assert "?set=quantization%3D" in text
    assert "quantization" not in edit.context["values"]["args"]
    assert edit.context["values"]["max_num_seqs"] == "8"


def test_who_may_not_edit_reads_who_can(chat: Deployment, carol: User) -> None:
    fails(chat, code="unknown_flag", field="swap_space")

    text = page(carol, "detail", chat)

    assert "Remove swap-space: a member of Search can change it, such as ann" in text
    assert "btn-good" not in text


def test_going_back_asks_for_the_older_spec_again(chat: Deployment, ann: User) -> None:
    make.add_revision(chat, ann, gpus=2)

    text = page(ann, "revisions", chat)
    edit = signed_in(ann).get(reverse("deployment-edit", args=[chat.pk]), {"from": "1"})

    assert f"{reverse('deployment-edit', args=[chat.pk])}?from=1" in text
    assert edit.context["values"]["replicas_max"] == "1"
    assert edit.context["base_revision"] == 2


def test_a_revision_that_another_took_the_place_of_is_called_replaced(chat: Deployment, ann: User) -> None:
    second = make.add_revision(chat, ann, gpus=2)
    make.approve(second)
    Deployment.objects.filter(pk=chat.pk).update(applied=second)

    assert "replaced</span>" in page(ann, "revisions", chat)


def test_the_time_to_serve_counts_from_the_last_start(chat: Deployment, alice: User) -> None:
    # Approvals are never changed: the start is put after the one of the fixture.
    started = timezone.now() + timedelta(minutes=3)
    for kind, at, data in (
        ("started", started, {}),
        ("state", started + timedelta(seconds=70), {"to": State.RUNNING}),
    ):
        Event.objects.create(
            team=chat.team, deployment=chat, actor=alice, kind=kind, message=kind, created_at=at, data=data
        )
    Deployment.objects.filter(pk=chat.pk).update(probe={"ok": True}, probed_at=timezone.now())
    observe(chat, pods=(pod(ready_since=started + timedelta(hours=2)),))

    assert "was up 1 min after its last start" in page(alice, "detail", chat)


def state_event(to: str, message: str) -> Event:
    return Event(kind="state", level="info", message=message, data={"to": to}, created_at=NOW)


def test_the_timeline_keeps_the_last_step_of_a_way_up_and_folds_a_loop() -> None:
    crash = "Failed: The engine crashed."
    newest_first = [
        state_event("Failed", crash),
        state_event("Starting", "Starting"),
        state_event("Failed", crash),
        state_event("Starting", "Starting: the engine"),
        state_event("Downloading", "Downloading"),
        state_event("Starting", "Starting: the image"),
        Event(kind="gpus_reserved", message="1 GPUs reserved for revision 1", created_at=NOW),
    ]

    lines = told(newest_first)

    assert [(line.text, line.times) for line in lines] == [
        (crash, 2),
        ("Starting: the engine", 1),
        ("1 GPU reserved for revision 1", 1),
    ]


def test_a_name_that_the_message_says_is_not_said_twice() -> None:
    carol = User(username="carol", first_name="Carol", last_name="Admin")
    lines = told(
        [
            Event(kind="approved", message="Revision 1 approved by Carol Admin", actor=carol, created_at=NOW),
            Event(kind="stopped", message="Stop asked for", actor=carol, created_at=NOW),
            Event(kind="asked", message="Revision 1 asked for by carol: for search", actor=carol, created_at=NOW),
        ]
    )

    assert [line.who for line in lines] == ["", "Carol Admin", ""]
    assert lines[2].text == "Revision 1 asked for by Carol Admin: for search"


def test_a_long_timeline_folds_after_twelve(chat: Deployment, alice: User) -> None:
    for number in range(15):
        Event.objects.create(team=chat.team, deployment=chat, kind="x", message=f"Thing {number}")

    assert "Show all 15" in page(alice, "detail", chat)


def event(name: str, reason: str = "Pulled", *, kind: str = "Normal", message: str = "") -> EventView:
    return EventView(type=kind, reason=reason, message=message, kind="Pod", name=name, last_seen=NOW)


def test_events_of_the_cluster_are_folded_per_object_with_warnings_first() -> None:
    groups = said(
        [
            event("a", message="image vllm@sha256:" + "5" * 64),
            event("b"),
            event("b", "BackOff", kind="Warning"),
            event("c", "VirtualServiceCRDNotFound", kind="Warning"),
        ]
    )

    assert [(group.name, group.warnings) for group in groups] == [("b", 1), ("a", 0), ("c", 0)]
    assert [row.reason for row in groups[0].events] == ["BackOff", "Pulled"]
    assert groups[1].events[0].message == "image vllm@sha256:55555555…"


def test_the_run_before_is_only_offered_after_a_restart(chat: Deployment, alice: User) -> None:
    once = ContainerView(name="kserve-container", state="running")
    again = ContainerView(name="kserve-container", state="terminated", restarts=2)
    observe(chat, pods=(pod("a", containers=(once,)), pod("b", containers=(again,))))

    fresh = page(alice, "logs", chat, pod="a", previous="1")
    old = page(alice, "logs", chat, pod="b", previous="1")

    assert 'value="1" disabled>Previous run' in fresh
    assert "previous=1" not in fresh
    assert 'value="1" checked>Previous run' in old


@pytest.mark.parametrize(
    ("kind", "status", "running", "tone"),
    [
        ("Stopped", "False", True, "grey"),
        ("Stopped", "True", False, "grey"),
        ("Ready", "True", True, "green"),
        ("Ready", "False", True, "red"),
        ("Ready", "False", False, "grey"),
        ("Ready", "Unknown", True, "grey"),
    ],
)
def test_a_condition_is_coloured_by_what_it_means(kind: str, status: str, running: bool, tone: str) -> None:
    assert tone_of(ConditionView(kind, status), wanted_running=running) == tone


def test_a_revision_on_its_way_beside_one_that_serves_says_so(chat: Deployment, alice: User) -> None:
    Deployment.objects.filter(pk=chat.pk).update(detail={"text": "Revision 1 is coming up while revision 0 serves."})

    assert "revision 1 is coming up" in page(alice, "detail", chat)
