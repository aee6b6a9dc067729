"""Rules about a change of what serves now: whether calls are answered all the while."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.findings import Change, Finding, warning
from deployments.preflight.facts import Serving
from deployments.preflight.rules import Case, Rules, plural

rules = Rules()

MEANWHILE = "calls are refused for about as long as a start takes"
IN_PLACE = "Let pods be replaced in place, which takes no GPU more and interrupts service where one replica runs"
FIRST: Change = ("/spec/surge", 1)


@rules.rule
def service_goes_on(case: Case) -> Iterator[Finding]:
    """Where no GPU is charged for a pod beside those that serve, the only one goes before its successor comes."""
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
    elif not after.surge and (before.fewest == 1 or after.replaced_alone) and after.kind != "roles":
        yield _one_goes_first(case)


def _one_goes_first(case: Case) -> Finding:
    """The new revision says how it replaces the old one, so a change that asks for a pod first has it already."""
    said = (
        "Service is interrupted wherever one replica runs: its pod goes before the new one starts, as no GPU is "
        f"reserved for both, and {MEANWHILE}."
    )
    if case.admits is None or not case.admits([FIRST]):
        return warning(
            "service_interrupted",
            "/spec/replicas/min",
            said,
            "Two replicas or more are replaced one by one while the others answer; going up to two is itself such a "
            "change.",
        )
    extra, flavor = case.spec.gpus_per_replica, case.flavor
    more = plural(extra, "more GPU") + (f" of {flavor.label}" if flavor else "")
    room = _room_for_one_more(case)
    return warning(
        "service_interrupted",
        FIRST[0],
        said,
        f"Start the new pod first: calls are answered all the while, for {more} while it changes."
        + ("" if room else " There are not as many free: the change would wait for them, and what serves now go on."),
        FIRST[1] if room else None,
    )


def _room_for_one_more(case: Case) -> bool:
    """True where quota and cluster have the GPUs of one replica more than the most; also where neither is known."""
    quota, flavor, extra = case.quota, case.flavor, case.spec.gpus_per_replica
    if quota is not None and quota.available < case.spec.gpus + extra:
        return False
    held = quota.held if quota is not None else 0
    return flavor is None or flavor.free is None or flavor.free + held >= case.spec.gpus + extra
