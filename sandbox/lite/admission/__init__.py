"""What stands between a valid object and storage: steps that change it, then steps that may refuse it."""

from __future__ import annotations

from sandbox.lite.admission import (
    accounts,
    escalation,
    keda,
    kserve,
    limits,
    namespaces,
    podsecurity,
    policies,
    quota,
    scheduling,
    services,
)
from sandbox.lite.admission.change import Change

_MUTATING = (
    namespaces.must_be_open,
    accounts.give_account,
    scheduling.give_priority,
    scheduling.tolerate_trouble,
    limits.fill,
    services.give_address,
    services.forget_type,
    kserve.complete,
)
_VALIDATING = (
    services.advise,
    services.check_address,
    limits.check,
    podsecurity.check,
    policies.check,
    kserve.check,
    keda.check,
    escalation.check,
    quota.check,
)


def mutate(change: Change) -> None:
    """Run the steps that complete an object. StatusError when one refuses."""
    for step in _MUTATING:
        step(change)


def admit(change: Change) -> None:
    """Run the steps that may refuse. StatusError when one does."""
    for step in _VALIDATING:
        step(change)


__all__ = ["Change", "admit", "mutate"]
