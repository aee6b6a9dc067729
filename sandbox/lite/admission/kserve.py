"""KServe's webhooks for InferenceServices; what they say is the controllers' business, that they are asked is ours."""

from __future__ import annotations

from sandbox.lite import errors
from sandbox.lite.admission.change import Change

_KIND = "serving.kserve.io/inferenceservices"
_VALIDATOR = "inferenceservice.kserve-webhook-server.validator"


def complete(change: Change) -> None:
    """Let the mutating webhook complete an InferenceService."""
    if not _concerns(change):
        return
    from sandbox.lite.controllers import kserve_admission

    completed = kserve_admission.default(change.obj)
    change.obj.clear()
    change.obj.update(completed)


def check(change: Change) -> None:
    """403 in the words of the validating webhook."""
    if not _concerns(change):
        return
    from sandbox.lite.controllers import kserve_admission

    refusals = kserve_admission.validate(change.obj, change.old)
    if refusals:
        raise errors.denied(_VALIDATOR, refusals[0])


def _concerns(change: Change) -> bool:
    return (
        change.resource.storage_key == _KIND
        and change.request.subresource == ""
        and not change.obj["metadata"].get("deletionTimestamp")
    )
