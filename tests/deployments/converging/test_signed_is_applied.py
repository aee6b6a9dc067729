"""What was approved is what runs: byte for byte, whatever has moved on since, and nothing that differs in any value."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from deployments.manifests import standard
from deployments.models import Deployment, EngineProfile, Flavor, ModelCheck, Revision, Team, User
from deployments.services import approvals, lifecycle
from deployments.services.errors import StaleError
from deployments.spec import canonical
from tests.deployments import factories as make
from tests.deployments.converging.stage import Stage

pytestmark = pytest.mark.django_db

OTHER_COMMIT = "b" * 40
OTHER_IMAGE = "vllm/vllm-openai:v0.32.0@sha256:" + "6" * 64


@pytest.fixture
def approved(stage: Stage, carol: User) -> Deployment:
    """A request of a member that an admin has approved, and that no worker has seen yet."""
    Team.objects.filter(pk=stage.team.pk).update(policy=Team.Policy.LEAD)
    row = stage.ask()
    assert row.latest is not None
    approvals.decide(principal=make.principal(carol), revision=row.latest, digest=row.latest.digest, approve=True)
    return stage.fresh(row)


@pytest.fixture
def sent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every body that the worker writes to the cluster, as it leaves."""
    bodies: list[dict[str, Any]] = []
    create, apply = stage.worker.create, stage.worker.apply

    def creates(body: dict[str, Any], *args: Any, **more: Any) -> Any:
        bodies.append(copy.deepcopy(body))
        return create(body, *args, **more)

    def applies(body: dict[str, Any], *args: Any, **more: Any) -> Any:
        bodies.append(copy.deepcopy(body))
        return apply(body, *args, **more)

    monkeypatch.setattr(stage.worker, "create", creates)
    monkeypatch.setattr(stage.worker, "apply", applies)
    return bodies


def the_alias_moves(_: pytest.MonkeyPatch) -> None:
    """The hub's branch points at another commit by now."""
    facts = {**ModelCheck.objects.get().facts, "sha": OTHER_COMMIT}
    ModelCheck.objects.update(commit=OTHER_COMMIT, facts=facts)


def the_image_moves(_: pytest.MonkeyPatch) -> None:
    """An admin gave the profile another image."""
    EngineProfile.objects.update(image=OTHER_IMAGE)


def the_flavor_changes(_: pytest.MonkeyPatch) -> None:
    """The flavor is another product by now."""
    Flavor.objects.update(product="NVIDIA-H200", resource_name="nvidia.com/mig-3g.40gb")


def the_rendering_changes(patch: pytest.MonkeyPatch) -> None:
    """A new Slipway renders every object differently."""
    build = standard.build

    def renders(wish: Any) -> list[dict[str, Any]]:
        return [{**obj, "metadata": {**obj["metadata"], "labels": {"new": "slipway"}}} for obj in build(wish)]

    patch.setattr(standard, "build", renders)


def the_gateway_moves(patch: pytest.MonkeyPatch) -> None:
    """The operator configured another gateway."""
    from django.conf import settings

    patch.setattr(settings, "GATEWAY_REF", "elsewhere/other-gateway")


MOVES = [the_alias_moves, the_image_moves, the_flavor_changes, the_rendering_changes, the_gateway_moves]


@pytest.mark.parametrize("moves", MOVES, ids=lambda move: move.__name__)
def test_what_was_signed_is_sent_byte_for_byte(
    stage: Stage,
    approved: Deployment,
    sent: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    moves: Callable[[pytest.MonkeyPatch], None],
) -> None:
    signed = Revision.objects.get(pk=approved.latest_id).objects_json
    moves(monkeypatch)
    stage.converge_team()
    sent.clear()

    row = stage.converge(approved)

    assert row.outcome["phase"] == "applied", row.outcome
    # The account that its pods run as is no part of what is signed.
    bodies = [canonical(body) for body in sent if body["kind"] != "ServiceAccount"]
    assert sorted(bodies) == sorted(canonical(body) for body in signed)


def test_what_runs_is_not_written_again_because_something_moved_on(
    stage: Stage, approved: Deployment, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.converge(approved)
    for moves in MOVES[:-1]:
        moves(monkeypatch)
    sent.clear()

    row = stage.converge(approved, passes_made=2)

    assert row.outcome["phase"] == "applied"
    assert sent == []


def test_stopped_and_started_again_it_is_the_approved_one(
    stage: Stage, approved: Deployment, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.converge(approved)
    for moves in MOVES[:-1]:
        moves(monkeypatch)
    lifecycle.stop(principal=stage.principal, deployment=approved)
    stage.converge_until(approved, lambda: stage.fresh(approved).outcome["phase"] == "gone")
    lifecycle.start(principal=stage.principal, deployment=stage.fresh(approved))
    sent.clear()

    row = stage.converge(approved)

    signed = {canonical(body) for body in row.approved.objects_json}
    bodies = {canonical(body) for body in sent if body["kind"] != "ServiceAccount"}
    assert bodies
    assert bodies <= signed


def test_what_moved_on_before_the_decision_does_not_come_in_by_it(stage: Stage, carol: User, alice: User) -> None:
    """The page showed one digest, somebody edits, and the approval of the first one signs nothing."""
    Team.objects.filter(pk=stage.team.pk).update(policy=Team.Policy.LEAD)
    row = stage.ask()
    shown = row.latest
    assert shown is not None
    the_image_moves(pytest.MonkeyPatch())
    stage.revise(row, replicas={"min": 1, "max": 2})

    with pytest.raises(StaleError):
        approvals.decide(principal=make.principal(carol), revision=shown, digest=shown.digest, approve=True)

    row = stage.converge(row)
    assert stage.service(row) is None


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all plain values in decoded JSON."""
    if isinstance(value, dict) and value:
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path


def mutated(value: Any, path: tuple[Any, ...]) -> Any:
    """The same JSON with another value at that path."""
    if not path:
        return other(value)
    changed = copy.copy(value)
    changed[path[0]] = mutated(value[path[0]], path[1:])
    return changed


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}x" if isinstance(value, str) and value else "other"


def forge(revision: Revision, **columns: Any) -> None:
    """Change a signed row past every trigger, as a thief with the database would."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL session_replication_role = replica")
        Revision.objects.filter(pk=revision.pk).update(**columns)
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")


def every_mutation(revision: Revision) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """Each value of what is signed, changed alone: (column, path, what the column holds then)."""
    for column in ("spec", "resolution", "objects_json"):
        signed = getattr(revision, column)
        for path in leaves(signed):
            yield column, path, mutated(signed, path)


def test_no_signed_value_can_be_changed_after_the_approval(
    stage: Stage, approved: Deployment, sent: list[dict[str, Any]]
) -> None:
    revision = Revision.objects.get(pk=approved.latest_id)
    stage.converge_team()
    sent.clear()
    tried = 0
    for column, path, forged in every_mutation(revision):
        if column == "spec" and not still_a_spec(forged):
            continue  # No such spec exists, and so no row of it: see the next test.
        forge(revision, **{column: forged})
        row = stage.converge(approved)

        assert row.outcome["code"] == "not_approved", (column, path, row.outcome)
        assert sent == [], (column, path)
        forge(revision, **{column: getattr(revision, column)})
        tried += 1

    assert tried > 60  # Every value of spec, resolution and objects, not just a few.
    assert stage.converge(approved).outcome["phase"] == "applied"
    assert sent


def still_a_spec(data: Any) -> bool:
    from pydantic import ValidationError

    from deployments.spec import DeploymentSpec

    try:
        DeploymentSpec.model_validate(data)
    except ValidationError:
        return False
    return True


def test_a_spec_that_cannot_be_one_is_not_applied_either(stage: Stage, approved: Deployment) -> None:
    revision = Revision.objects.get(pk=approved.latest_id)
    forge(revision, spec={**revision.spec, "podSpec": {"hostNetwork": True}})

    row = stage.converge(approved)

    assert row.outcome.get("phase") != "applied"
    assert stage.service(row) is None


@pytest.mark.parametrize("column", ["digest", "verdict"])
def test_another_digest_or_a_withdrawn_verdict_is_not_applied(stage: Stage, approved: Deployment, column: str) -> None:
    revision = Revision.objects.get(pk=approved.latest_id)
    forge(revision, **{column: {"digest": "0" * 64, "verdict": Revision.Verdict.REJECTED}[column]})

    row = stage.converge(approved)

    assert row.outcome["code"] == "not_approved"
    assert stage.service(row) is None
