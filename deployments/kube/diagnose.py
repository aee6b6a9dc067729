"""All causes of one deployment, the weightiest first."""

from __future__ import annotations

from deployments.kube.cluster_causes import failed_load, from_group, from_service, from_workload, rollout_slow
from deployments.kube.observe import FETCH, Observed, PodView
from deployments.kube.pod_causes import from_pod
from deployments.kube.reasons import Code, Reason, Weight

ORDER = (Weight.FAILED, Weight.BLOCKED, Weight.STALLED, Weight.PROGRESS)


def diagnose(observed: Observed, revision: int | None = None) -> list[Reason]:
    """Every cause there is, the weightiest first; with `revision`, only what that revision's pods say."""
    here = [pod for pod in observed.pods if not pod.terminating]
    pods = [pod for pod in here if revision is None or pod.revision in {revision, None}]
    pods = _without_tries(pods)
    found = [from_pod(pod, observed.events, observed.log_tails.get(pod.name, "")) for pod in pods]
    found += [from_workload(item) for item in observed.workloads if item.kind == "Deployment"]
    found.append(from_group(observed.events, pods))
    if observed.service is not None:
        found.append(from_service(observed.service, observed.events))
        if _only_kserve_speaks(observed, pods):
            found.append(failed_load(observed.service))
    reasons = [reason for reason in found if reason is not None]
    if not any(reason.weight is not Weight.PROGRESS for reason in reasons):
        slow = (rollout_slow(item) for item in observed.workloads if item.kind == "Deployment")
        if not pods or not all(pod.ready for pod in pods):
            reasons += [reason for reason in slow if reason is not None]
    return sorted(_once(reasons), key=lambda reason: ORDER.index(reason.weight))


def _without_tries(pods: list[PodView]) -> list[PodView]:
    """The pods without those that tried to fetch weights ahead before the newest of them did."""
    tries = [pod for pod in pods if pod.role == FETCH]
    newest = max(tries, key=lambda pod: (pod.created is not None and pod.created.timestamp(), pod.name), default=None)
    return [pod for pod in pods if pod.role != FETCH or pod is newest]


def _only_kserve_speaks(observed: Observed, pods: list[PodView]) -> bool:
    """True when a single placed pod shows no containers, so that KServe cannot mean another one."""
    return len(observed.pods) == 1 and len(pods) == 1 and not pods[0].containers and not pods[0].unschedulable


def _once(reasons: list[Reason]) -> list[Reason]:
    seen: set[tuple[Code, str]] = set()
    kept: list[Reason] = []
    for reason in reasons:
        key = (reason.code, reason.field)
        if key not in seen:
            seen.add(key)
            kept.append(reason)
    return kept
