"""What a check does over and over it does once, and wishes with several mistakes lead it to few others.

Counted, not timed: `make bench-fit` times checks, of more wishes than these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from bench.fit.costs import R1, wishes
from deployments import preflight
from deployments.engine import sizing
from deployments.engine.facts import ModelFacts
from deployments.engine.profiles import EngineProfile
from deployments.engine.sizing import FitState
from deployments.findings import Finding, error, warning
from deployments.preflight import Facts, FlavorFacts, check, sizer
from deployments.preflight.rules import Case, Rule, said
from deployments.preflight.trials import Refusals
from deployments.spec import DeploymentSpec, Engine
from deployments.views.fits import WORDS
from deployments.views.ways import other_ways
from tests.deployments.wishes import LLAMA, facts_of, spec_of

# The dearest of these looks at 30 wishes. Where proposals are followed one by one, with all remedies at each, it is 57.
MOST_LOOKS = 32


def wrong_wishes() -> Iterator[tuple[str, DeploymentSpec, Facts]]:
    """Two roles of two models, each of which is wrong in several ways on most GPUs."""
    for title, spec, facts in wishes():
        if spec.decode is not None and facts.model is not None and title.startswith((R1.id, "hf://google/gemma-3-27b")):
            yield title, spec, facts


def test_a_wish_with_several_mistakes_leads_to_few_others(monkeypatch):
    looked: list[DeploymentSpec] = []
    found = preflight._found

    def counted(case: Case) -> Iterator[Finding]:
        looked.append(case.spec)
        return found(case)

    monkeypatch.setattr(preflight, "_found", counted)
    counts = {}
    for title, spec, facts in wrong_wishes():
        looked.clear()
        check(spec, "chat", "search", facts)
        counts[title] = len(looked)
    assert {title: count for title, count in counts.items() if count > MOST_LOOKS} == {}
    # They do lead on: what is counted is counted.
    assert max(counts.values()) > 10


def test_an_estimate_is_made_once_in_a_check(monkeypatch):
    made: Counter[str] = Counter()
    fit = sizing.fit

    def counted(model: ModelFacts, gpu: Any, args: Any, **more: Any) -> Any:
        made[repr((model.id, gpu, args, more))] += 1
        return fit(model, gpu, args, **more)

    monkeypatch.setattr(sizing, "fit", counted)
    for title, spec, facts in wrong_wishes():
        made.clear()
        check(spec, "chat", "search", facts)
        assert set(made.values()) == {1}, title


def test_what_rules_said_of_a_spec_they_are_not_asked_again():
    runs: Counter[str] = Counter()

    def plain(case: Case) -> Iterator[Finding]:
        runs["plain"] += 1
        yield warning("plain", "/spec/flavor", case.spec.flavor)

    def remedied(case: Case) -> Iterator[Finding]:
        runs["remedied"] += 1
        yield warning("remedied", "/spec/flavor", "There is a way." if case.admits and case.admits([]) else "None.")

    def within(case: Case) -> Iterator[Finding]:
        # What it tries is looked at by the same rules, and these may not ask: that this one did stays known.
        runs["within"] += 1
        tried = case.admits is not None and case.admits([])
        yield warning("within", "/spec/flavor", f"{tried} {[each.code for each in said(elsewhere, [plain])]}")

    checks: list[Rule] = [plain, remedied, within]
    case = Case(spec_of(), "chat", "search", facts_of())
    elsewhere = Case(spec_of(flavor="h100-80gb"), "chat", "search", facts_of(), scratch=case.scratch)
    with_remedies = Case(spec_of(), "chat", "search", facts_of(), tries=lambda changes: True, scratch=case.scratch)
    first = [finding.message for finding in said(case, checks)]
    second = [finding.message for finding in said(with_remedies, checks)]
    assert (first[1], second[1]) == ("None.", "There is a way.")
    assert (first[2], second[2]) == ("False ['plain']", "True ['plain']")
    assert first[0] == second[0] == spec_of().flavor
    assert runs == {"plain": 2, "remedied": 2, "within": 2}


def test_no_rule_says_something_else_where_it_has_not_asked_for_remedies():
    for title, spec, facts in wrong_wishes():
        for own in spec.by_role().values():
            for rule in preflight.RULES:
                quiet = Case(own, "chat", "search", facts, tries=lambda changes: False)
                found = list(rule(quiet))
                if not quiet.scratch.asked:
                    assert found == list(rule(Case(own, "chat", "search", facts))), (title, rule)


def test_refusals_are_worked_out_as_far_as_somebody_asks():
    ran: list[int] = []

    def found() -> Iterator[Finding]:
        ran.append(1)
        yield warning("quota_none", "/spec/flavor", "")
        yield error("memory", "/spec/flavor", "")
        ran.append(2)
        yield error("memory", "/spec/flavor", "")
        yield error("heads", "/spec/flavor", "")
        ran.append(3)

    refusals = Refusals(found())
    assert next(iter(refusals)).code == "memory"
    assert ran == [1]
    one, other = iter(refusals), iter(refusals)
    assert [next(one).code, next(other).code, next(other).code, next(one).code] == [
        "memory",
        "memory",
        "heads",
        "heads",
    ]
    assert [item.code for item in refusals] == ["memory", "heads"]
    assert ran == [1, 2, 3]


def test_gpus_of_a_copy_are_its_own():
    spec = spec_of(engine={"args": {"tensor-parallel-size": 2}}, replicas={"min": 1, "max": 3})
    assert (spec.gpus_per_replica, spec.gpus_at_first, spec.gpus) == (2, 2, 6)
    copied = spec.model_copy(update={"engine": Engine(args={"tensor-parallel-size": 4})})
    assert (copied.gpus_per_replica, copied.gpus_at_first, copied.gpus) == (4, 4, 12)
    assert spec.gpus == 6
    assert spec == DeploymentSpec.from_json(spec.to_json())


@pytest.mark.parametrize(("adapters", "state"), [(0, FitState.FITS), (8, FitState.TIGHT)])
def test_other_ways_have_room_for_adapters(adapters, state):
    given = [{"name": f"a{number}", "uri": "hf://acme/lora"} for number in range(adapters)]
    args = {"max-model-len": 512, "gpu-memory-utilization": 0.78, "max-num-seqs": 8}
    spec = spec_of(flavor="t4", engine={"args": args}, **({"adapters": given} if given else {}))
    l4 = FlavorFacts("l4", "NVIDIA-L4", 23_034, 8.9, 1)
    sized = sizer(spec, facts_of(model=LLAMA))
    assert sized is not None
    (way,) = other_ways(sized, spec, {"l4": l4})
    assert way.word == WORDS[state][0]


def test_an_engine_with_a_name_of_its_own_sizes_as_its_version_does():
    own = {
        f"ours-{version}": EngineProfile(f"ours-{version}", version=version, image="x@sha256:" + "1" * 64)
        for version in ("0.17.0", "0.32.0")
    }
    facts = facts_of(model=LLAMA, profiles=own)
    gpu = next(iter(facts.flavors.values())).gpu
    overheads = []
    for slug in own:
        sized = sizer(spec_of(engine={"profile": slug}), facts)
        assert sized is not None
        overheads.append(sized.fit(gpu, {}).overhead_gib)
    # CUDA graphs count in the budget since 0.20.
    assert overheads[0] < overheads[1]
