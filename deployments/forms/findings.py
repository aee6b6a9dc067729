"""Findings as a form shows them: one message for one mistake, and never two fixes that contradict each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from deployments.findings import Finding, Severity

# A split that cannot be made: everything that was computed from it means nothing.
UNSPLITTABLE = frozenset({"heads_not_divisible", "stages_over_layers", "gpus_per_node"})
OF_THE_SPLIT = frozenset(
    {"memory", "memory_tight", "kv_heads_replicated", "quota_exceeded", "no_room_now", "no_block_now"}
)
GATED = "source_gated"
# What is said of a model that could not be looked at; a gated one says why itself.
UNSEEN = frozenset({"not_checked", "source_not_pinned"})


def tidied(findings: Iterable[Finding], *, sent: bool) -> list[Finding]:
    """The findings to show; `sent` when the form was sent, so that what stops it is called an error."""
    found = list(dict.fromkeys(findings))
    codes = {finding.code for finding in found}
    if codes & UNSPLITTABLE:
        found = [finding for finding in found if finding.code not in OF_THE_SPLIT]
    if GATED in codes:
        gated = next(_gated(finding, sent) for finding in found if finding.code == GATED)
        found = [gated, *(finding for finding in found if finding.code not in UNSEEN | {GATED})]
    return _one_fix_each(found)


def _gated(finding: Finding, sent: bool) -> Finding:
    return dataclasses.replace(finding, severity=Severity.ERROR if sent else Severity.WARNING)


def _one_fix_each(findings: list[Finding]) -> list[Finding]:
    """Of errors of one field that offer numbers keep the strictest; and offer no fix twice."""
    strictest: dict[str, Finding] = {}
    for finding in findings:
        if finding.is_error and _number(finding) is not None:
            best = strictest.get(finding.pointer)
            if best is None or _rank(finding) < _rank(best):
                strictest[finding.pointer] = finding
    kept: list[Finding] = []
    fixes: set[tuple[str, object, object]] = set()
    for finding in findings:
        best = strictest.get(finding.pointer)
        if best is not None and finding is not best and (not finding.is_error or _number(finding) is not None):
            continue
        fix = (finding.pointer, finding.value, finding.also)
        if finding.value is not None and fix in fixes:
            continue
        fixes.add(fix)
        kept.append(finding)
    return kept


def _rank(finding: Finding) -> tuple[bool, float]:
    """Lowest first: what model and node allow keeps to the engine's limits too, and is the largest that does."""
    return finding.code not in UNSPLITTABLE, _number(finding) or 0.0


def _number(finding: Finding) -> float | None:
    value = finding.value
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
