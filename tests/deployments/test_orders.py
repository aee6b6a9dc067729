"""In which order other ways are told: the fewest GPUs first, of as many the cheapest, then the smallest."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.alternatives import Room, alternatives
from deployments.engine.defaults import NEWEST, Defaults, defaults_of
from deployments.engine.facts import GIB
from deployments.engine.flags import flags_of, versions
from deployments.engine.gpus import gpu_facts
from deployments.engine.options import Choice, options, places
from deployments.engine.proposals import propose
from deployments.engine.sizing import Sizer
from deployments.forms.engine_fields import FIELDS, groups
from deployments.preflight import check
from deployments.views.ask import DEFAULTS
from deployments.views.ways import other_ways
from tests.deployments.preflighting import the
from tests.deployments.wishes import A100, H100, L4, LLAMA, T4, facts_of, spec_of

LARGE = dataclasses.replace(LLAMA, weights_bytes=30 * GIB)
PRICES = {"h100": 3.2, "a100": 1.5, "l4": 0.45, "t4": 0.3}
# The dearest first, as tables of flavors list them.
ROWS = {row.slug: dataclasses.replace(row, price_per_hour=PRICES[row.slug], nodes=2) for row in (H100, A100, L4, T4)}
FREE = {slug: dataclasses.replace(row, price_per_hour=0.0) for slug, row in ROWS.items()}


def choices(rows: dict[str, Any] = ROWS) -> list[Choice]:
    return [Choice(row.slug, row.gpu, row.gpus_per_node, price=row.price_per_hour) for row in rows.values()]


@pytest.mark.parametrize("rows", [ROWS, FREE], ids=["priced", "without prices"])
def test_each_list_begins_with_the_fewest_gpus_and_of_these_the_cheapest(rows: dict[str, Any]):
    args = {"max-model-len": 4096}
    assert [(each.flavor, each.gpus) for each in propose(LLAMA, choices(rows))] == [
        *(("l4", 1), ("a100", 1), ("h100", 1)),
        ("t4", 2),
    ]
    by_place = [(each.fit.gpus, each.flavor) for each in places(Sizer(LARGE), args, choices(rows))]
    assert by_place == sorted(by_place, key=lambda each: (each[0], ["t4", "l4", "a100", "h100"].index(each[1])))
    others = [choice for choice in choices(rows) if choice.slug != "t4"]
    told = [
        way.value
        for way in options(Sizer(LLAMA), T4.gpu, args, gpus_per_node=1, others=others)
        if "flavor" in way.pointer
    ]
    assert told == ["l4", "a100", "h100"]


def test_of_two_things_at_once_the_narrowest_other_flavor_is_told():
    huge = dataclasses.replace(LLAMA, weights_bytes=100 * GIB)
    found = options(Sizer(huge), T4.gpu, {"max-model-len": 4096}, gpus_per_node=1, others=choices())
    assert (found[0].value, found[0].also) == ("h100", (("/spec/engine/args/tensor-parallel-size", 2),))


def test_ways_of_the_form_are_the_fewest_gpus_first_also_without_prices():
    for rows, priced in ((ROWS, True), (FREE, True), (ROWS, False)):
        ways = other_ways(Sizer(LLAMA), spec_of(flavor="t4"), rows, priced=priced)
        assert [way.label for way in ways] == ["1 × T4", "1 × L4", "1 × A100 40 GB", "1 × H100 80 GB"]


def test_who_waits_is_offered_the_fewest_gpus_first():
    rooms = {choice.slug: Room(choice, choice.slug, quota=8) for choice in choices()}
    rooms["t4"] = dataclasses.replace(rooms["t4"], quota=0)
    found = alternatives(Sizer(LLAMA), spec_of(flavor="t4"), rooms)
    assert [dict(way.sets)["/spec/flavor"] for way in found] == ["l4", "a100", "h100"]


def test_what_does_not_fit_names_the_cheapest_flavor_that_does():
    wish = spec_of(flavor="t4", args={"max-model-len": 8192, "kv-cache-dtype": "auto"})
    known = facts_of(flavors={**ROWS, "t4": dataclasses.replace(ROWS["t4"], gpus_per_node=1)})
    finding = the("memory", check(wish, "chat", "search", known))
    assert finding.remedy.index("flavor l4") < finding.remedy.index("flavor a100") < finding.remedy.index("flavor h100")


# The share of memory


@pytest.mark.parametrize("version", versions())
def test_the_share_of_memory_is_that_of_the_flag_file(version: str):
    default = flags_of(version)["gpu-memory-utilization"].default
    assert defaults_of(version).utilization == default
    field = next(field for field in FIELDS if field.flag == "gpu-memory-utilization")
    [shown] = [one for group in groups(version, {}, {}) for one in group.fields if one.field is field]
    # The form leaves it to the engine, and says what that takes.
    assert field.name not in DEFAULTS
    assert (shown.value, shown.offer.placeholder) == ("", str(default))


def test_the_newest_share_is_what_counts_where_no_version_is_named():
    assert NEWEST.utilization == Defaults().utilization == defaults_of(versions()[-1]).utilization


def test_a_larger_share_of_a_newer_version_holds_more():
    gpu = gpu_facts("NVIDIA-L4")
    older, newer = (propose(LLAMA, [Choice("l4", gpu, 8)], defaults_of(name)) for name in ("0.19.0", versions()[-1]))
    assert [each.gpus for each in newer] <= [each.gpus for each in older]
