"""What a revision's steps took is told once, and not again by every later transition of its pods."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from deployments.kube.moments import remembered
from deployments.kube.observe import ContainerView, Observed, PodView, ServiceView
from deployments.kube.reflector import Changed
from deployments.models import Deployment, Flavor, Status, Team, User
from deployments.services import probes
from deployments.services.states import observed_of, read_observed, write_observed
from deployments.views import present
from deployments.views.steps import Step, steps
from deployments.watcher.seen import OwnedSeen, ServiceSeen
from deployments.watcher.statuses import Statuses
from deployments.watcher.world import World
from tests.deployments import factories as make
from tests.deployments.viewing import observe, pod

START = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
SERVICE = ServiceView(name="chat", namespace="search-x7k2p")


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def serving(revision: int = 1, *, created: float = 0, ready: float | None = 25) -> PodView:
    """A pod whose download began after 2 s and whose engine began after 10 s, ready since then."""
    download = ContainerView(
        name="storage-initializer", init=True, state="terminated", exit_code=0, since=at(created + 2)
    )
    engine = ContainerView(
        name="kserve-container", state="running", started=True, ready=ready is not None, since=at(created + 10)
    )
    return pod(
        f"chat-{revision}",
        ready=ready is not None,
        revision=revision,
        created=at(created),
        ready_since=at(ready) if ready is not None else None,
        containers=(download, engine),
    )


def seen(*pods: PodView, service: ServiceView | None = SERVICE, complete: bool = True) -> Observed:
    return Observed(service=service, pods=pods, complete=complete)


def moments(*history: Observed) -> dict[str, dict[str, datetime]]:
    """What is known after these observations, one after the other."""
    last: Observed | None = None
    for observed in history:
        last = remembered(observed, last)
    assert last is not None
    return {number: dict(known) for number, known in last.moments.items()}


def test_an_engine_that_was_started_again_tells_nothing_of_its_first_start():
    engine = serving().containers[1]
    again = replace(serving(ready=3600), containers=(serving().containers[0], replace(engine, restarts=2)))
    assert set(moments(seen(again))["1"]) == {"created", "download"}
    crashed = moments(seen(serving(ready=None)), seen(again))["1"]
    assert (crashed["engine"], crashed["ready"]) == (at(10), at(3600))


def test_a_pod_that_was_not_heard_of_for_a_while_was_ready_before() -> None:
    known = moments(seen(serving()), seen(serving(ready=None)), seen(serving(ready=1260)))

    assert known == {"1": {"created": at(0), "download": at(2), "engine": at(10), "ready": at(25)}}


def test_a_successor_of_the_same_revision_changes_nothing() -> None:
    known = moments(seen(serving()), seen(serving(created=900, ready=930)))

    assert known["1"]["created"] == at(0)
    assert known["1"]["ready"] == at(25)


def test_each_revision_has_its_own_and_old_ones_go_with_their_pods() -> None:
    both = moments(seen(serving()), seen(serving(), serving(2, created=100, ready=130)))
    later = moments(seen(serving()), seen(serving(), serving(2, created=100, ready=130)), seen())

    assert {number: known["ready"] for number, known in both.items()} == {"1": at(25), "2": at(130)}
    assert {number: known["ready"] for number, known in later.items()} == {"2": at(130)}


@pytest.mark.parametrize("service", [None, ServiceView(name="chat", namespace="search-x7k2p", stop_asked=True)])
def test_a_stop_begins_anew(service: ServiceView | None) -> None:
    known = moments(seen(serving()), seen(serving(), service=service), seen(serving(created=600, ready=640)))

    assert known["1"]["ready"] == at(640)


def test_a_list_that_is_not_complete_forgets_nothing() -> None:
    assert moments(seen(serving()), seen(service=None, complete=False))["1"]["ready"] == at(25)


def test_they_survive_being_stored() -> None:
    observed = remembered(seen(serving()), None)

    assert read_observed(write_observed(observed)) == observed


def test_a_new_watcher_goes_on_with_what_the_one_before_it_knew(chat: Deployment) -> None:
    namespace, name = place = chat.team.namespace, chat.name
    pk = str(chat.pk)
    ours = replace(serving(), deployment=pk, namespace=namespace, service=name)
    Status.objects.create(deployment=chat, observed=write_observed(remembered(seen(ours), None)))
    world = World()
    world.services[place] = ServiceSeen(replace(SERVICE, namespace=namespace, deployment=pk), OwnedSeen("uid", "h"))
    world.take(Changed("Pod", (namespace, ours.name), replace(ours, ready_since=at(1260))))

    Statuses().flush(world, complete=True, listed_at=None)

    stored = read_observed(Status.objects.get().observed)
    assert stored.pods[0].ready_since == at(1260)
    assert stored.moments["1"]["ready"] == at(25)


@pytest.fixture
def chat(db: None, team: Team, ann: User, h100: Flavor) -> Deployment:
    make.make_profile()
    row = make.make_deployment(team, ann, approved=True)
    Deployment.objects.filter(pk=row.pk).update(applied=row.latest, state=Deployment.State.RUNNING, probe={"ok": True})
    row.refresh_from_db()
    return row


def way(row: Deployment, observed: Observed) -> dict[str, Step]:
    return {step.label: step for step in steps(row, observed, None)}


def test_each_step_took_what_it_took_the_first_time(chat: Deployment) -> None:
    observed = remembered(seen(serving(ready=1260)), remembered(seen(serving()), None))
    probe = {"ok": True, "answered": {"revision": 1, "at": at(27).isoformat()}}
    Deployment.objects.filter(pk=chat.pk).update(probe=probe, state_since=at(1262))
    chat.refresh_from_db()

    took = {label: step.took for label, step in way(chat, observed).items() if label in {"Image", "Weights", "Engine"}}

    assert took == {
        "Image": timedelta(seconds=2),
        "Weights": timedelta(seconds=8),
        "Engine": timedelta(seconds=15),
    }
    assert way(chat, observed)["Ready"].at == at(25)
    assert way(chat, observed)["Answering"].took == timedelta(seconds=2)


def test_the_answer_of_an_older_revision_is_not_the_newest_ones(chat: Deployment) -> None:
    Deployment.objects.filter(pk=chat.pk).update(
        probe={"ok": True, "answered": {"revision": 7, "at": at(27).isoformat()}}
    )
    chat.refresh_from_db()

    assert way(chat, seen(serving()))["Answering"].at is None


def test_a_replica_is_as_old_as_its_pod() -> None:
    assert present.replicas(seen(serving(ready=1260)))[0].since == at(0)


def test_the_first_answer_of_a_revision_is_kept(chat: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"ok": True, "detail": "", "latency_ms": 9, "answer": "OK."}

    def answer(seconds: float, observed: Observed, *, ok: bool = True) -> dict[str, object] | None:
        Status.objects.update_or_create(deployment=chat, defaults={"observed": write_observed(observed)})
        Deployment.objects.filter(pk=chat.pk).update(probed_at=None)
        monkeypatch.setattr(probes, "ask", lambda row: {**said, "ok": ok, "at": at(seconds).isoformat()})
        probes.probe(chat.pk)
        found: dict[str, object] | None = Deployment.objects.get(pk=chat.pk).probe["answered"]
        return found

    first = remembered(seen(serving()), None)
    assert answer(20, first, ok=False) is None
    assert answer(27, first) == {"revision": 1, "at": at(27).isoformat()}
    assert answer(90, first, ok=False) == {"revision": 1, "at": at(27).isoformat()}
    assert answer(95, first) == {"revision": 1, "at": at(27).isoformat()}
    again = remembered(seen(serving(created=600, ready=640)), None)  # stopped and started in between
    assert answer(641, again) == {"revision": 1, "at": at(641).isoformat()}
    second = remembered(seen(serving(2, created=900, ready=930)), again)
    assert answer(931, second) == {"revision": 2, "at": at(931).isoformat()}


def test_a_status_without_moments_is_still_read(chat: Deployment) -> None:
    status = observe(chat, pods=(serving(),))
    del status.observed["moments"]
    status.save()

    observed = observed_of(Deployment.objects.get(pk=chat.pk))

    assert observed is not None
    assert way(chat, observed)["Ready"].at == at(25)
