"""KEDA's webhook for ScaledObjects; what it says is the controllers' business, that it is asked is ours."""

from __future__ import annotations

from typing import Any

from sandbox.lite import errors
from sandbox.lite.admission.change import Change

_KIND, _AUTOSCALERS = "keda.sh/scaledobjects", "autoscaling/horizontalpodautoscalers"


def check(change: Change) -> None:
    """403 in the words of the webhook; what means nothing is answered as a warning."""
    if change.resource.storage_key != _KIND or change.request.subresource or not change.cluster.webhooks:
        return
    from sandbox.lite.controllers import keda_admission as webhook

    if change.obj["metadata"].get("deletionTimestamp") or webhook.skipped(change.obj, change.old):
        return
    change.request.warnings += webhook.warnings(change.obj)
    others = change.cluster.read_all(_KIND, change.namespace)
    autoscalers = change.cluster.read_all(_AUTOSCALERS, change.namespace)
    for refusal in webhook.refusals(change.obj, others, autoscalers, _pod_spec(change)):
        raise errors.denied(webhook.WEBHOOK, refusal)


def _pod_spec(change: Change) -> dict[str, Any] | None:
    """Return the pod spec of a workload that a ScaledObject scales, if it is there."""
    from sandbox.lite.controllers.keda_objects import target_of

    version, kind, name = target_of(change.obj)
    resource = change.cluster.registry.by_kind(version, kind)
    if resource is None or resource.storage_key not in ("apps/deployments", "apps/statefulsets"):
        return None
    found = change.cluster.read(resource.storage_key, change.namespace, name)
    return None if found is None else found["spec"]["template"]["spec"]
