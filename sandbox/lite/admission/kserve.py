"""The webhooks of KServe and LeaderWorkerSet: what they say is the controllers' business, that they are asked ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.lite import errors
from sandbox.lite.admission.change import Change

Obj = dict[str, Any]

# By what is stored: the validating webhook's name, and the status it refuses with.
_VALIDATORS = {
    "serving.kserve.io/inferenceservices": ("inferenceservice.kserve-webhook-server.validator", 403),
    "serving.kserve.io/llminferenceservices": ("llminferenceservice.kserve-webhook-server.{version}.validator", 422),
    "leaderworkerset.x-k8s.io/leaderworkersets": ("vleaderworkerset.kb.io", 403),
}


def complete(change: Change) -> None:
    """Let the mutating webhook complete an object."""
    if not _concerns(change):
        return
    completed = _webhooks(change)[0](change.obj)
    change.obj.clear()
    change.obj.update(completed)


def check(change: Change) -> None:
    """Refuse in the words of the validating webhook."""
    if not _concerns(change):
        return
    refusals = _webhooks(change)[1](change.obj, change.old)
    if refusals:
        name, code = _VALIDATORS[change.resource.storage_key]
        raise errors.denied(name.format(version=change.request.version), refusals[0], code)


def _webhooks(change: Change) -> tuple[Callable[[Obj], Obj], Callable[[Obj, Obj | None], list[str]]]:
    from sandbox.lite.controllers import kserve_admission, llm_admission, lws_admission

    module: Any = {
        "serving.kserve.io/inferenceservices": kserve_admission,
        "serving.kserve.io/llminferenceservices": llm_admission,
        "leaderworkerset.x-k8s.io/leaderworkersets": lws_admission,
    }[change.resource.storage_key]
    return module.default, module.validate


def _concerns(change: Change) -> bool:
    return (
        change.cluster.webhooks
        and change.resource.storage_key in _VALIDATORS
        and change.request.subresource == ""
        and not change.obj["metadata"].get("deletionTimestamp")
    )
