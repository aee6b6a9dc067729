"""Rules about a change of what serves now: whether calls are answered all the while."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.findings import Finding, warning
from deployments.preflight.facts import Serving
from deployments.preflight.rules import Case, Rules

rules = Rules()

MEANWHILE = "calls are refused for about as long as a start takes"


@rules.rule
def service_goes_on(case: Case) -> Iterator[Finding]:
    """No GPU is reserved for a pod beside those that serve, so the only one goes before its successor comes."""
    before = case.facts.serving
    if before is None:
        return
    after = Serving.of(case.spec.to_json())
    if before.kind != after.kind:
        yield warning(
            "service_interrupted",
            "/spec/nodes" if before.strategy == after.strategy else "/spec/strategy",
            f"Service is interrupted: what serves now goes before the other kind of workload is made, and {MEANWHILE}.",
            "To keep the service up, ask for a second deployment beside it, and delete this one when that answers.",
        )
    elif before.replaced_alone or after.replaced_alone:
        yield warning(
            "service_interrupted",
            "/spec/replicas/min",
            "Service is interrupted wherever one replica runs: its pod goes before the new one starts, as no GPU is "
            f"reserved for both, and {MEANWHILE}.",
            "Two replicas or more are replaced one by one while the others answer; going up to two is itself such a "
            "change.",
        )
