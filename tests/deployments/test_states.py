"""States are stored, told and announced when they change, with a fixed number of queries."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.kube.errors import transport_error
from deployments.kube.observe import observe
from deployments.kube.reflector import Broken, Listed
from deployments.models import Deployment, Event, Revision, Status, Wanted
from deployments.reconciler import endings
from deployments.services import events, states
from deployments.watcher.run import Watcher
from deployments.watcher.statuses import Statuses
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db

State = Deployment.State


def pod(name: str = "p", *, ready: bool = True, revision: int = 1) -> dict:
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "labels": {"slipway.dev/revision": str(revision), "serving.kserve.io/inferenceservice": "chat"},
        },
        "spec": {"nodeName": "n"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": "kserve-container", "ready": ready, "state": {"running": {}}}],
        },
    }


def see(row: Deployment, *pods: dict, **parts: object) -> None:
    observed = states.write_observed(observe(pods=pods, **parts))
    Status.objects.update_or_create(deployment=row, defaults={"observed": observed})


def applied(row: Deployment) -> None:
    Deployment.objects.filter(pk=row.pk).update(outcome={"phase": "applied", "revision": 1})


@pytest.fixture
def row(alice, team, h100) -> Deployment:
    return make.make_deployment(team, alice, approved=True)


def test_pods_that_are_ready_make_it_run(row):
    applied(row)
    see(row, pod())

    states.refresh(row.pk)

    row.refresh_from_db()
    assert row.state == State.RUNNING
    event = Event.objects.get(deployment=row, kind="state", data__to="Running")
    assert (event.level, event.message) == ("good", "Running")


def test_the_same_again_changes_and_tells_nothing(row):
    applied(row)
    see(row, pod())
    states.refresh(row.pk)
    since = Deployment.objects.get(pk=row.pk).state_since

    assert states.refresh_many([row.pk]) == 0

    assert Deployment.objects.get(pk=row.pk).state_since == since
    assert Event.objects.filter(deployment=row, kind="state").count() == 1


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (Revision.Verdict.PENDING, State.AWAITING_APPROVAL),
        (Revision.Verdict.REJECTED, State.REJECTED),
        (Revision.Verdict.APPROVED, State.AWAITING_QUOTA),
        (Revision.Verdict.EXPIRED, State.EXPIRED),
    ],
)
def test_before_anything_runs_the_verdict_decides(alice, team, h100, verdict, state):
    row = make.make_deployment(team, alice)
    Revision.objects.filter(pk=row.latest_id).update(verdict=verdict)
    states.refresh(row.pk)
    row.refresh_from_db()
    assert row.state == state


def test_a_refusal_of_the_reconciler_is_shown_with_its_remedy(row):
    Deployment.objects.filter(pk=row.pk).update(
        outcome={"phase": "blocked", "code": "name_taken", "message": "Taken.", "remedy": "Rename it."}
    )
    states.refresh(row.pk)
    row.refresh_from_db()
    assert row.state == State.BLOCKED
    assert (row.reason["title"], row.reason["remedy"]) == ("Taken.", "Rename it.")
    assert row.reason["code"] == "name_taken"


@pytest.mark.parametrize("code", sorted({*endings._TITLES, "name_taken", "disowned", "other_cluster"} - {"bad_answer"}))
def test_what_stands_in_the_way_of_a_write_has_a_reason_of_its_own(row, code: str):
    Deployment.objects.filter(pk=row.pk).update(outcome={"phase": "blocked", "code": code, "message": "No."})
    states.refresh(row.pk)
    assert Deployment.objects.get(pk=row.pk).reason["code"] == code


def test_stopped_is_said_only_when_a_complete_list_shows_no_pod(row):
    applied(row)
    Deployment.objects.filter(pk=row.pk).update(wanted=Wanted.STOPPED)
    see(row, pod())
    states.refresh(row.pk)
    assert Deployment.objects.get(pk=row.pk).state == State.STOPPING
    see(row)
    states.refresh(row.pk)
    assert Deployment.objects.get(pk=row.pk).state == State.STOPPED


def test_texts_of_the_cluster_with_nul_can_be_stored(row):
    see(row, events=[{"metadata": {}, "message": "a\x00b", "reason": "x"}], log_tails={"p": "\x00\x00"})
    stored = Status.objects.get(deployment=row).observed
    assert stored["events"][0]["message"] == "ab"


def test_an_observation_survives_being_stored(row):
    seen = observe(pods=[pod()], service={"metadata": {"name": "chat"}}, log_tails={"p": "line"})
    assert states.read_observed(states.write_observed(seen)) == seen


def test_many_cost_as_many_queries_as_few(alice, team, h100):
    rows = [make.make_deployment(team, alice, name=f"d{number}", approved=True) for number in range(12)]
    for row in rows:
        applied(row)
        see(row, pod())
    counts = []
    for batch in (rows[:2], rows[2:]):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            states.refresh_many(row.pk for row in batch)
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert counts[0] <= 7


def test_the_heavy_columns_stay_in_the_database(row):
    with CaptureQueriesContext(connection) as queries:
        states.refresh(row.pk)
    assert not any("objects_json" in query["sql"] for query in queries.captured_queries)


def test_pods_that_became_ready_are_asked_for_an_answer(row, no_broker, django_capture_on_commit_callbacks):
    applied(row)
    see(row, pod())
    with django_capture_on_commit_callbacks(execute=True):
        states.refresh(row.pk)
    assert ("deployments.probe", row.pk) in no_broker


def test_an_endpoint_asked_since_is_left_alone(row, no_broker, django_capture_on_commit_callbacks):
    applied(row)
    see(row, pod())
    Deployment.objects.filter(pk=row.pk).update(probe={"ok": True}, probed_at=timezone.now())
    with django_capture_on_commit_callbacks(execute=True):
        states.refresh(row.pk)
    assert no_broker == []


def test_a_status_of_another_version_counts_as_never_seen(row):
    applied(row)
    Status.objects.create(deployment=row, observed={"pods": [{"colour": "red"}]})
    states.refresh(row.pk)
    assert Deployment.objects.get(pk=row.pk).state == State.APPLYING


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["a state", "an event alone"])
def test_a_change_is_announced_after_commit(alice, team, h100, what):
    row = make.make_deployment(team, alice, approved=True)
    applied(row)
    see(row, pod())
    parameters = {
        name: value
        for name, value in connection.get_connection_params().items()
        if name in {"dbname", "user", "password", "host", "port"}
    }
    with psycopg.connect(**parameters, autocommit=True) as listener:
        listener.execute("LISTEN slipway")
        if what == "a state":
            states.refresh(row.pk)
        else:
            events.record(kind="gpus_released", message="2 GPUs given back", deployment=row)
        heard = [notice.payload for notice in listener.notifies(timeout=3, stop_after=1)]
    assert heard == [f"deployment:{row.pk}"]


def test_a_status_says_when_everything_was_last_listed_and_when_it_is_not_complete(row, monkeypatch):
    first, second = timezone.now() - timedelta(minutes=9), timezone.now() - timedelta(minutes=2)
    watcher = Watcher(None, None)  # type: ignore[arg-type]
    watcher._essential = {"Pod", "InferenceService"}
    statuses = Statuses()

    def flush() -> Status:
        statuses.flush(watcher.world, complete=watcher.synced, listed_at=watcher.listed_at)
        return Status.objects.get(deployment=row)

    watcher._take(Listed("Pod", {}, second))
    assert (watcher.synced, watcher.listed_at) == (False, None)
    watcher._take(Listed("InferenceService", {}, first))
    assert flush().listed_at == first  # the older list bounds what is known

    watcher._take(Broken("Pod", transport_error("unreachable", "away", mutating=False)))
    watcher.world.dirty.add((row.team.namespace, row.name))
    seen = flush()
    assert (watcher.synced, seen.listed_at, seen.observed["complete"]) == (False, None, False)

    watcher._take(Listed("Pod", {}, second))
    seen = flush()
    assert (watcher.synced, seen.listed_at, seen.observed["complete"]) == (True, first, True)
