"""Adapters over experts that are spread over GPUs: what vLLM 0.32.0's fused_moe.py asserts at the engine's start."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.findings import Finding, Severity
from deployments.preflight import check
from tests.deployments.preflighting import codes, the
from tests.deployments.test_adapter_room import DP, EP, QWEN, TP
from tests.deployments.wishes import H100, facts_of, spec_of

HAIKU = {"name": "haiku", "uri": "hf://owner/haiku-lora"}
WIDE = dataclasses.replace(H100, gpus_per_node=8, total=8, free=8, largest_free_block=8)
SPREAD = {TP: 4, DP: 2, EP: True}


def found(args: dict[str, Any], architecture: str = QWEN.architecture, adapters: bool = True) -> list[Finding]:
    facts = facts_of(flavors={"h100": WIDE}, model=dataclasses.replace(QWEN, architecture=architecture))
    wish = spec_of(args={"max-model-len": 8192} | args, adapters=[HAIKU] if adapters else [])
    return check(wish, "chat", "search", facts)


def test_experts_of_several_split_engines_take_no_adapters():
    finding = the("adapter_experts", found(SPREAD))
    assert (finding.field, finding.value, finding.is_error) == ("enable_expert_parallel", False, True)
    assert "adapter_experts" not in codes(found({**SPREAD, EP: finding.value}))
    assert "adapter_experts" not in codes(found(SPREAD, adapters=False))


@pytest.mark.parametrize("fewer", [{TP: 1}, {DP: 1}, {EP: False}])
def test_all_three_together_are_what_stops_it(fewer: dict[str, Any]):
    assert "adapter_experts" not in codes(found(SPREAD | fewer))


def test_of_families_whose_experts_take_all_tokens_it_is_a_warning():
    assert the("adapter_experts", found(SPREAD, "MixtralForCausalLM")).severity is Severity.WARNING


def test_experts_that_are_moved_leave_adapters_behind():
    moved = {TP: 4, EP: True, "enable-eplb": True}
    finding = the("adapter_experts_moved", found(moved))
    assert (finding.field, finding.value, finding.severity) == ("enable_eplb", False, Severity.WARNING)
    assert "adapter_experts_moved" not in codes(found(moved, adapters=False))
    assert "adapter_experts_moved" not in codes(found({TP: 4, EP: True}))
