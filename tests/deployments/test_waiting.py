"""Waiting for quota: the place in line, what would free GPUs, and other ways that fit now."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.engine.alternatives import Alternative, Room, alternatives
from deployments.engine.options import Choice
from deployments.engine.profiles import seeded_profiles
from deployments.engine.sizing import Sizer
from deployments.findings import field_of
from deployments.models import Deployment, EngineProfile, Flavor, Team, User
from deployments.preflight import check
from deployments.preflight.cluster import surge_of
from deployments.services import facts, ledger, lifecycle, quota_requests, waiting
from deployments.services.waits import Freeing, changed, missing, waiting_of
from deployments.spec import DeploymentSpec
from deployments.views.waiting_links import links_of
from tests.deployments import factories as make
from tests.deployments.viewing import add_node
from tests.deployments.wishes import FLAVORS, LLAMA, spec_of


def room(slug: str, quota: int, free: int | None = 16, block: int | None = 8) -> Room:
    flavor = FLAVORS[slug]
    return Room(Choice(slug, flavor.gpu, flavor.gpus_per_node), flavor.label, quota, free, block)


def offered(rooms: list[Room], **changes: Any) -> list[Alternative]:
    return alternatives(Sizer(LLAMA), spec_of(**changes), {item.choice.slug: item for item in rooms})


def test_fewer_replicas_that_fit_are_offered() -> None:
    [found] = offered([room("h100", 2)], replicas={"min": 3, "max": 4})
    assert found == Alternative("2 replicas", (("/spec/replicas/max", 2), ("/spec/replicas/min", 2)), 2)


def test_another_flavor_is_offered_with_the_split_that_holds_the_model() -> None:
    [found] = offered([room("h100", 0), room("l4", 4)])
    assert found.sets == (("/spec/flavor", "l4"),)
    assert (found.text, found.gpus) == ("1 × L4 per replica", 1)


def test_an_fp8_cache_is_offered_where_the_model_fits_only_with_it() -> None:
    args = {"max-model-len": 32768, "tensor-parallel-size": 2}
    [found] = offered([room("l4", 1)], flavor="l4", args=args)
    assert found.sets == (("/spec/engine/args/tensor-parallel-size", 1), ("/spec/engine/args/kv-cache-dtype", "fp8"))
    assert found.gpus == 1


@pytest.mark.parametrize(
    ("rooms", "why"),
    [
        ([room("h100", 0)], "no quota is left"),
        ([room("h100", 0), room("l4", 4, free=0)], "no GPU of the other flavor is free"),
        ([room("h100", 0), room("l4", 4, block=0)], "no node has one"),
        ([room("h100", 0), room("t4", 1)], "the model does not fit on one T4"),
    ],
)
def test_nothing_is_offered_that_would_not_start(rooms: list[Room], why: str) -> None:
    assert offered(rooms) == [], why


def test_who_waits_for_the_pod_that_comes_first_can_have_it_replaced_in_place() -> None:
    wish = {"replicas": {"min": 1, "max": 4}, "surge": 1}
    found = offered([room("h100", 4)], **wish)

    assert [(item.text, dict(item.sets)) for item in found[:2]] == [
        ("pods replaced in place", {"/spec/surge": 0}),
        ("3 replicas", {"/spec/replicas/max": 3}),
    ]
    for item in found:
        spec = changed(spec_of(**wish).to_json(), item)
        assert item.gpus == spec.gpus + surge_of(spec) <= 4, "as the ledger counts it"
    assert "pods replaced in place" not in {item.text for item in offered([room("h100", 3)], **wish)}


@pytest.mark.parametrize(("quota", "flavors"), [(3, []), (4, ["l4"])], ids=["not all of it", "with its surge"])
def test_roles_are_offered_another_flavor_whole_or_not_at_all(quota: int, flavors: list[str]) -> None:
    role = {"replicas": {"min": 1, "max": 1}}
    found = offered([room("h100", 2), room("l4", quota)], strategy="disaggregated", prefill=role, decode=role)

    assert [dict(item.sets).get("/spec/flavor") for item in found] == flavors
    assert all(not pointer.startswith("/spec/replicas") for item in found for pointer, _ in item.sets)


PREFILL, DECODE = {"replicas": {"min": 1, "max": 2}}, {"replicas": {"min": 2, "max": 4}}
TWO = {"replicas": {"min": 1, "max": 3}, "args": {"tensor-parallel-size": 2}}
ONE = {"replicas": {"min": 1, "max": 3}}


@pytest.mark.parametrize(
    ("prefill", "decode", "quota", "text", "sets"),
    [
        # Three, and one more of each while they are replaced.
        (PREFILL, DECODE, 5, "1 × prefill and 2 × decode", {"prefill/replicas/max": 1, "decode/replicas/max": 2}),
        (
            PREFILL,
            DECODE,
            4,
            "1 × prefill and 1 × decode",
            {"prefill/replicas/max": 1, "decode/replicas/max": 1, "decode/replicas/min": 1},
        ),
        # The role with a split of its own counts twice.
        (ONE, TWO, 7, "2 × prefill and 1 × decode", {"prefill/replicas/max": 2, "decode/replicas/max": 1}),
        (ONE, TWO, 9, "2 × prefill and 2 × decode", {"prefill/replicas/max": 2, "decode/replicas/max": 2}),
    ],
)
def test_roles_are_offered_as_many_replicas_as_fit_near_their_balance(
    prefill: dict[str, Any], decode: dict[str, Any], quota: int, text: str, sets: dict[str, int]
) -> None:
    wish = {"strategy": "disaggregated", "prefill": prefill, "decode": decode}
    [found] = offered([room("h100", quota)], **wish)

    assert (found.text, dict(found.sets)) == (text, {f"/spec/{place}": count for place, count in sets.items()})
    spec = changed(spec_of(**wish).to_json(), found)
    assert found.gpus == spec.gpus + surge_of(spec) <= quota, "as the ledger counts it"
    assert all(field_of(pointer) for pointer, _ in found.sets), "the form has a field for each"


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (room("h100", 3), "one of each takes four while they roll"),
        (room("h100", 5, free=1), "one GPU is free on the nodes"),
        (room("h100", 5, block=0), "no node has one"),
    ],
)
def test_roles_are_offered_nothing_that_would_not_start(held: Room, why: str) -> None:
    assert offered([held], strategy="disaggregated", prefill=PREFILL, decode=DECODE) == [], why


@pytest.mark.django_db
def test_two_roles_that_wait_can_ask_for_fewer_replicas(
    hub: list[str], team: Team, h100: Flavor, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four GPUs are granted: one of each, and one more of each while they roll."""
    add_node(gpus=8)
    role = {"replicas": {"min": 1, "max": 3}, "args": {}}
    spec = make.a_spec(strategy="disaggregated", prefill=role, decode={**role, "replicas": {"min": 1, "max": 2}})
    monkeypatch.setattr(make, "a_spec", lambda **_: {name: spec[name] for name in spec if name != "replicas"})
    row = wait(team, ann, h100, 5)

    found = waiting_of(row)

    assert found is not None
    one_each = ("/spec/prefill/replicas/max", 1), ("/spec/decode/replicas/max", 1)
    assert [item.sets for item in found.alternatives] == [one_each]
    [way] = links_of(make.principal(ann), row, found)["ways"]
    assert (way["text"], way["gpus"]) == ("1 × prefill and 1 × decode", 4)
    assert way["url"].endswith("?set=prefill_replicas_max%3D1&set=decode_replicas_max%3D1"), way["url"]


def wait(team: Team, user: User, flavor: Flavor, gpus: int, name: str = "late") -> Deployment:
    """A deployment that is approved and waits."""
    row = make.make_deployment(team, user, name=name, flavor=flavor, gpus=gpus)
    assert row.latest is not None
    make.approve(row.latest, current=False)
    return row


@pytest.mark.django_db
def test_who_waits_sees_the_place_and_what_would_free_gpus(team: Team, h100: Flavor, ann: User, alice: User) -> None:
    holder = make.make_deployment(team, ann, name="holder", gpus=3, approved=True)
    ledger.reserve(deployment=holder, revision=holder.latest, gpus=3)  # type: ignore[arg-type]
    going = make.make_deployment(team, ann, name="going", gpus=1, approved=True)
    ledger.reserve(deployment=going, revision=going.latest, gpus=1)  # type: ignore[arg-type]
    Deployment.objects.filter(pk=going.pk).update(wanted="stopped")
    begins = timezone.now() + timedelta(days=2)
    make.make_grant(team, h100, 2, valid_from=begins)
    quota_requests.ask(principal=make.principal(alice), team=team, flavor=h100, gpus=5, why="Fair")
    first, second = wait(team, ann, h100, 2, "first"), wait(team, ann, h100, 6, "second")

    one, two = waiting_of(first), waiting_of(second)

    assert one is not None
    assert two is not None
    assert (one.place, one.of, one.needs, one.more, one.free, one.limit) == (1, 2, 2, 2, 0, 4)
    assert (one.beyond, one.ask_for) == (0, 2)
    assert (two.place, two.beyond, two.ask_for) == (2, 2, 8), "with six more the first would take two of them"
    assert one.frees == (
        Freeing("stopping", 1, "going", going.pk),
        Freeing("grant", 2, at=begins),
        Freeing("request", 5),
        Freeing("hold", 3, "holder", holder.pk),
    )
    assert waiting_of(holder) is None


@pytest.mark.django_db
def test_other_ways_are_weighed_against_quota_and_free_gpus(
    hub: list[str], team: Team, h100: Flavor, ann: User
) -> None:
    add_node(gpus=4)
    holder = make.make_deployment(team, ann, name="holder", gpus=3, approved=True)
    ledger.reserve(deployment=holder, revision=holder.latest, gpus=3)  # type: ignore[arg-type]
    row = wait(team, ann, h100, 2)

    found = waiting_of(row)

    assert found is not None
    assert [item.sets for item in found.alternatives] == [(("/spec/replicas/max", 1),)]
    assert hub == [], "nobody asks the hub to draw a page"


@pytest.mark.django_db
def test_whoever_is_not_first_is_told_what_those_before_take(team: Team, h100: Flavor, ann: User) -> None:
    add_node(gpus=8)
    holder = make.make_deployment(team, ann, name="holder", gpus=3, approved=True)
    ledger.reserve(deployment=holder, revision=holder.latest, gpus=3)  # type: ignore[arg-type]
    first, second = wait(team, ann, h100, 3, "first"), wait(team, ann, h100, 2, "second")

    one, two = waiting_of(first), waiting_of(second)

    assert one is not None
    assert two is not None
    assert (one.free, one.more, one.ask_for) == (1, 3, 2)
    assert (two.free, two.more, two.ask_for) == (1, 2, 4)
    assert two.alternatives == (), "a change waits after the first, however few GPUs it needs"
    make.make_grant(team, h100, two.ask_for - 1)
    account = ledger.account_of(team_id=team.pk, flavor_id=h100.pk)
    assert (waiting.wake(account.pk), waiting_of(first)) == (1, None)
    make.make_grant(team, h100, 1)
    assert (waiting.wake(account.pk), waiting_of(second)) == (1, None)


@pytest.mark.django_db
def test_who_was_stopped_while_waiting_starts_again_behind_the_others(team: Team, h100: Flavor, ann: User) -> None:
    holder = make.make_deployment(team, ann, name="holder", gpus=4, approved=True)
    ledger.reserve(deployment=holder, revision=holder.latest, gpus=4)  # type: ignore[arg-type]
    parked = wait(team, ann, h100, 2, "parked")
    lifecycle.stop(principal=make.principal(ann), deployment=parked)
    wait(team, ann, h100, 2, "late")
    Deployment.objects.filter(pk=parked.pk).update(wanted="running", wanted_at=timezone.now())

    account = ledger.account_of(team_id=team.pk, flavor_id=h100.pk)
    assert [each.name for each in waiting.line(account)] == ["late", "parked"]


@pytest.mark.django_db
def test_beyond_the_whole_quota_only_grants_and_requests_help(team: Team, h100: Flavor, ann: User) -> None:
    holder = make.make_deployment(team, ann, name="holder", gpus=3, approved=True)
    ledger.reserve(deployment=holder, revision=holder.latest, gpus=3)  # type: ignore[arg-type]
    wait(team, ann, h100, 2, "first")
    begins = timezone.now() + timedelta(days=3)
    make.make_grant(team, h100, 2, valid_from=begins)

    found = waiting_of(wait(team, ann, h100, 6, "beyond"))

    assert found is not None
    assert (found.beyond, found.frees) == (2, (Freeing("grant", 2, at=begins),))


@pytest.mark.django_db
def test_what_is_asked_for_already_is_not_asked_for_again(team: Team, h100: Flavor, ann: User, alice: User) -> None:
    row, lead = wait(team, ann, h100, 9), make.principal(alice)

    def asks() -> str | None:
        return links_of(lead, row, waiting_of(row))["ask"].get("gpus")

    assert asks() == "5"
    quota_requests.ask(principal=lead, team=team, flavor=h100, gpus=1, why="Something else")
    assert asks() == "4"
    later = timezone.now() + timedelta(days=9)
    quota_requests.ask(principal=lead, team=team, flavor=h100, gpus=7, why="For a fair", valid_from=later)
    assert asks() == "4", "what begins later does not start it now"
    quota_requests.ask(principal=lead, team=team, flavor=h100, gpus=4, why="The rest")
    assert asks() is None


@pytest.mark.parametrize(
    ("line", "limit", "free", "more"),
    [
        ([(2, 0)], 4, 4, 0),
        ([(2, 0)], 4, 1, 1),
        ([(6, 0)], 4, 4, 2),
        ([(6, 4)], 4, 0, 2),
        ([(3, 0), (2, 0)], 4, 1, 4),
        ([(8, 0), (2, 0)], 4, 1, 1),  # the first waits for a larger quota, and lets the second pass
        ([(5, 0), (2, 0)], 4, 1, 6),  # with one more the first fits the limit, and does not
        ([(2, 0)], 4, -2, 4),
    ],
)
def test_quota_that_is_missing_serves_the_line_in_order(
    line: list[tuple[int, int]], limit: int, free: int, more: int
) -> None:
    assert missing(line, limit=limit, free=free) == more


@pytest.mark.django_db
def test_preflight_says_who_is_served_before(team: Team, h100: Flavor, ann: User) -> None:
    holder = make.make_deployment(team, ann, name="holder", gpus=2, approved=True)
    ledger.reserve(deployment=holder, revision=holder.latest, gpus=2)  # type: ignore[arg-type]
    waits = wait(team, ann, h100, 3)
    wait(team, ann, h100, 9, "beyond")
    spec = DeploymentSpec.from_json(waits.latest.spec | {"replicas": {"min": 1, "max": 1}})  # type: ignore[union-attr]

    def said(deployment: Deployment | None) -> list[str]:
        known = facts.gather(team=team, name="new", deployment=deployment, spec=spec)
        return [each.message for each in check(spec, "new", team.slug, known) if each.code == "quota_line"]

    assert said(None) == [f"1 deployment waits for {h100.name} of the team's quota: approved, this is served after."]
    assert said(waits) == []
    assert said(holder) == [], "it takes none on top of what it holds"


@pytest.mark.django_db
def test_an_edit_that_takes_no_more_passes_the_line(team: Team, h100: Flavor, ann: User) -> None:
    row = make.make_deployment(team, ann, gpus=4, approved=True)
    ledger.reserve(deployment=row, revision=row.latest, gpus=4)  # type: ignore[arg-type]
    Deployment.objects.filter(pk=row.pk).update(applied=row.latest)
    row.refresh_from_db()
    late = wait(team, ann, h100, 2)
    revision = make.add_revision(row, ann, gpus=4)
    make.approve(revision, current=False)

    assert waiting.accept(deployment=row, revision=revision, actor=None)
    found = waiting_of(late)
    assert found is not None
    assert (found.place, found.of) == (1, 1)


@pytest.mark.django_db
def test_what_preflight_would_refuse_is_not_offered(hub: list[str], team: Team, h100: Flavor, ann: User) -> None:
    t4 = Flavor.objects.create(
        slug="t4",
        name="T4",
        product="Tesla-T4",
        resource_name="gpu.example.com/t4",
        memory_mib=15360,
        compute_capability="7.5",
        gpus_per_node=4,
    )
    l4 = make.make_flavor("l4-24gb")
    for flavor in (t4, l4):
        make.make_grant(team, flavor, 8)
    row = wait(team, ann, h100, 6)

    found = waiting_of(row)

    assert found is not None
    flavors = [dict(item.sets).get("/spec/flavor") for item in found.alternatives]
    assert flavors == [None, "l4-24gb"], "fewer replicas, or L4s: engines are made for another vendor's"


@pytest.mark.django_db
def test_an_edit_of_equal_size_starts_at_a_full_quota(team: Team, h100: Flavor, ann: User) -> None:
    """Pods are replaced one by one without surge, so the same GPUs serve the new revision."""
    row = make.make_deployment(team, ann, gpus=4, approved=True)
    ledger.reserve(deployment=row, revision=row.latest, gpus=4)  # type: ignore[arg-type]
    Deployment.objects.filter(pk=row.pk).update(applied=row.latest)
    row.refresh_from_db()
    revision = make.add_revision(row, ann, gpus=4)
    make.approve(revision, current=False)

    assert waiting.accept(deployment=row, revision=revision, actor=None)
    assert ledger.held_by(row) == 4
    assert waiting_of(row) is None


def running(team: Team, user: User, flavor: Flavor, *, gpus: int, surge: int) -> Deployment:
    """One that runs and holds its GPUs and its surge, which is the team's whole quota."""
    row = make.make_deployment(team, user, name="roles", flavor=flavor)
    revision = make.add_revision(row, user, flavor=flavor, gpus=gpus, surge=surge)
    make.approve(revision)
    make.make_grant(team, flavor, gpus + surge - 4)  # beside the four that the team has
    ledger.reserve(deployment=row, revision=revision, gpus=gpus + surge)
    Deployment.objects.filter(pk=row.pk).update(applied=revision)
    row.refresh_from_db()
    assert row.latest is not None
    return row


@pytest.mark.django_db
def test_an_edit_of_equal_size_with_its_surge_starts_at_a_full_quota(team: Team, h100: Flavor, ann: User) -> None:
    """Roles roll with a surge that nothing changes: it was reserved at the first start."""
    row = running(team, ann, h100, gpus=12, surge=3)
    revision = make.add_revision(row, ann, flavor=h100, gpus=12, surge=3)
    make.approve(revision, current=False)

    assert waiting.accept(deployment=row, revision=revision, actor=None)
    assert ledger.held_by(row) == 15


@pytest.mark.django_db
def test_an_edit_whose_surge_does_not_fit_is_offered_to_stop_first(team: Team, h100: Flavor, ann: User) -> None:
    row = running(team, ann, h100, gpus=12, surge=3)
    revision = make.add_revision(row, ann, flavor=h100, gpus=10, surge=4)
    make.approve(revision, current=False)

    assert not waiting.accept(deployment=row, revision=revision, actor=None)
    found = waiting_of(row)

    assert found is not None
    assert (found.needs, found.apart, found.more, found.limit) == (16, 14, 1, 15)
    assert found.fits_apart

    lifecycle.stop(principal=make.principal(ann), deployment=row)
    make.release(row)
    row = lifecycle.start(principal=make.principal(ann), deployment=row)

    row.refresh_from_db()
    assert row.approved == revision, "the newest that was approved runs"
    assert ledger.held_by(row) == 14
    assert waiting_of(row) is None


@pytest.mark.django_db
@pytest.mark.parametrize("why", ["too large", "others wait"])
def test_stopping_first_is_offered_only_where_it_helps(team: Team, h100: Flavor, ann: User, why: str) -> None:
    row = running(team, ann, h100, gpus=12, surge=3)
    size = (13, 4) if why == "too large" else (10, 4)
    revision = make.add_revision(row, ann, flavor=h100, gpus=size[0], surge=size[1])
    if why == "others wait":
        wait(team, ann, h100, 1, "before")
    make.approve(revision, current=False)
    found = waiting_of(row)

    assert found is not None
    assert not found.fits_apart


@pytest.mark.django_db
def test_what_ran_before_starts_again_while_a_larger_one_waits(team: Team, h100: Flavor, ann: User) -> None:
    row = running(team, ann, h100, gpus=12, surge=3)
    before = row.approved
    larger = make.add_revision(row, ann, flavor=h100, gpus=20, surge=4)
    make.approve(larger, current=False)

    lifecycle.stop(principal=make.principal(ann), deployment=row)
    make.release(row)
    row = lifecycle.start(principal=make.principal(ann), deployment=row)

    row.refresh_from_db()
    assert row.approved == before
    assert ledger.held_by(row) == 15
    assert waiting_of(row) is not None, "the larger one waits on"


@pytest.mark.django_db
def test_the_sandboxs_own_engine_is_no_obstacle_in_the_sandbox(
    hub: list[str], team: Team, h100: Flavor, ann: User, settings: Any
) -> None:
    for profile in seeded_profiles().values():
        EngineProfile.objects.filter(slug=profile.slug).update(image=profile.image)
    row = wait(team, ann, h100, 6)

    settings.SLIPWAY_SANDBOX = True
    found = waiting_of(row)

    assert found is not None
    assert [item.text for item in found.alternatives] == ["4 replicas"]
