"""When the first pod of each revision came how far: kept, because the cluster itself only tells the latest time.

A pod that is not heard of for a minute is unready and then ready again, an engine that ends begins again, a pod that
is evicted has a successor: none of that changes how long its revision took to serve. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from deployments.kube.observe import Observed, PodView

Moments = Mapping[str, datetime]


def moments_of(pod: PodView, known: Moments) -> dict[str, datetime]:
    """What the pod itself tells now: made, model download begun, engine begun, ready.

    A container that was started again tells its latest start alone; without its first among the moments `known` it
    says nothing of when its revision first served.
    """
    weights, engine = pod.initializer, pod.engine
    first = engine is not None and not engine.restarts
    told = {
        "created": pod.created,
        "download": weights.since if weights and not weights.restarts else None,
        "engine": engine.since if engine and first and engine.state == "running" else None,
        "ready": pod.ready_since if pod.ready and (first or "engine" in known) else None,
    }
    return {step: at for step, at in told.items() if at is not None}


def remembered(observed: Observed, before: Observed | None) -> Observed:
    """The same with the moments known `before` and those that its pods tell; the earlier of two stays.

    A service that is stopped or gone begins anew: its next pods are another start of the same revision.
    """
    service = observed.service
    begins_anew = observed.complete and (service is None or service.stop_asked or service.stopped)
    kept = {} if before is None or begins_anew else {number: dict(known) for number, known in before.moments.items()}
    if begins_anew:
        return replace(observed, moments={})
    for pod in observed.live_pods:
        known = kept.setdefault(str(pod.revision or ""), {})
        for step, at in moments_of(pod, known).items():
            known[step] = min(at, known.get(step, at))
    here = {str(pod.revision or "") for pod in observed.pods}
    newest = max(kept, key=lambda number: int(number or 0), default="")
    return replace(observed, moments={number: known for number, known in kept.items() if number in {*here, newest}})
