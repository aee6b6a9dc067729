"""What Slipway asks of the API server: no more of a real one than of `lite`, and no write while nothing is wanted."""

from __future__ import annotations

import asyncio
import re

import pytest

from deployments.kube.cluster import KUBE_SYSTEM
from deployments.kube.logs import LogSource
from deployments.models import AppliedObject, Deployment
from portal.lib.hints import RECONCILE, RECONCILE_TEAM
from tests.scenarios import comparison, timings
from tests.scenarios.hour import LISTS, READS, Listing, asked_between, mark, sweep_an_hour, watching_an_hour
from tests.scenarios.stage import Stage, engine, versions, writes

pytestmark = pytest.mark.django_db


def test_calls_of_a_reconcile(stage: Stage):
    """Runs on `lite` wherever it runs on the real ground: the calls are compared, each kind of them."""
    costs = {}
    stage.open_namespace()
    row = stage.ask()
    row, calls = counted_pass(stage, row)
    assert row.outcome["phase"] == "applied"
    assert len(writes(calls)) == AppliedObject.objects.filter(deployment=row).count() > 0
    costs["first apply"] = worded(stage, calls)

    # While pods come up KServe writes statuses, and a pass may have to read again.
    row = stage.serving(row)
    stage.sweep(row)
    row, calls = counted_pass(stage, row)
    assert writes(calls) == []
    costs["nothing to do"] = worded(stage, calls)

    row = stage.revise(row, engine=engine(max_model_len=4096))
    row, calls = counted_pass(stage, row)
    assert row.applied.number == 2
    costs["update of a field"] = worded(stage, calls)

    for what, words in costs.items():
        timings.called(what, stage.ground.name, words)
    lite = {what: timings.calls_of(what, "lite") for what in costs}
    if None in lite.values():
        numbers = {what: len(words) for what, words in costs.items()}
        pytest.skip(f"these are the calls on {stage.ground.name}: {numbers}; those on lite are not known")
    more = [comparison.more(what, stage.ground.name, words, lite[what] or []) for what, words in costs.items()]
    assert not any(more), "\n".join(filter(None, more))


@pytest.mark.timeout(400)
def test_an_idle_hour_writes_nothing(stage: Stage):
    """Counted at the doors of worker and watcher; on the real ground also in the API server's own log."""
    asked = [stage.ask(name) for name in ("chat", "draft", "notes")]
    rows = [stage.serving(row) for row in asked]
    stage.settle()
    for row in rows:
        stage.sweep(row)
    before = [versions(stage, row) for row in rows]
    eyes = Listing.from_kubeconfig(stage.ground.kubeconfig_of("watcher"))
    begin = mark(stage)
    with stage.counting() as calls, watching_an_hour(eyes):
        passed = sweep_an_hour(stage)
        asyncio.run(read_a_log(stage))
    end = mark(stage)
    eyes.close()

    wanted = {(RECONCILE, row.pk) for row in rows} | {(RECONCILE_TEAM, stage.team.pk)}
    assert passed.keys() == wanted
    assert min(eyes.lists.values()) >= LISTS
    assert (writes(calls), writes(eyes.sent)) == ([], [])
    assert [versions(stage, row) for row in rows] == before
    assert {stage.fresh(row).state for row in rows} == {"Running"}
    if stage.ground.name == "real":
        asked = list(asked_between(stage.ground.audit_log, begin, end))
        assert {account for account, _, _ in asked} >= {"worker", "watcher", "live"}
        assert [each for each in asked if each[0] in ("worker", "watcher", "live") and each[1] not in READS] == []


def counted_pass(stage: Stage, row: Deployment) -> tuple[Deployment, list[tuple[str, str]]]:
    """A pass of a worker that has not asked for three seconds which cluster answers, and its requests."""
    stage.worker._identity = None
    with stage.counting() as calls:
        row = stage.pass_over(row)
    # Asked in every pass, but only once the watcher has told which cluster it has to be: the stage waits for that.
    assert calls[0] == ("GET", KUBE_SYSTEM.path)
    return row, calls


def worded(stage: Stage, calls: list[tuple[str, str]]) -> list[str]:
    """Requests without what differs between two teams: the namespace, and the digest that ends a runtime's name."""
    return [
        f"{verb} {re.sub('-[0-9a-f]{10}$', '-DIGEST', path.replace(stage.namespace, 'TEAM'))}" for verb, path in calls
    ]


async def read_a_log(stage: Stage) -> None:
    """What `live` does for a page that somebody looks at."""
    source = LogSource(stage.ground.kubeconfig_of("live"))
    try:
        name = stage.pods()[0]["metadata"]["name"]
        await source.tail(stage.namespace, name, "kserve-container", previous=False, lines=50)
    finally:
        await source.close()
