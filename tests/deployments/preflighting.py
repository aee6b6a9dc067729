"""What the tests of preflight's rules share: a wish checked, and what was said of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from deployments.findings import Finding
from deployments.preflight import ClusterFacts, Facts, check
from tests.deployments.wishes import LLAMA, facts_of, spec_of

EIGHT_K = {"max-model-len": 8192}
SERVED = {
    "serving.kserve.io": ("v1beta1", "v1alpha1", "v1alpha2"),
    "gateway.networking.k8s.io": ("v1",),
    "monitoring.coreos.com": ("v1",),
    "inference.networking.k8s.io": ("v1",),
    "keda.sh": ("v1alpha1",),
}


def said(
    facts: Facts | None = None, name: str = "chat", args: dict[str, Any] | None = None, **spec: Any
) -> list[Finding]:
    return check(spec_of(args=EIGHT_K | (args or {}), **spec), name, "search", facts or facts_of())


def the(code: str, found: list[Finding]) -> Finding:
    matching = [finding for finding in found if finding.code == code]
    assert len(matching) == 1, [finding.code for finding in found]
    return matching[0]


def codes(found: list[Finding]) -> set[str]:
    return {finding.code for finding in found}


def with_model(**changes: Any) -> Facts:
    return facts_of(model=dataclasses.replace(LLAMA, **changes))


def with_cluster(**changes: Any) -> Facts:
    return facts_of(cluster=ClusterFacts(sandbox=True, **{"groups": SERVED, **changes}))
