"""How a pass ends: when the next one comes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deployments.kube.errors import ClusterError, ErrorClass
from deployments.reconciler import endings

TRIES = endings.PASSING_TRIES


@pytest.mark.parametrize("code", sorted(endings.PASSING))
def test_a_refusal_that_may_pass_is_looked_at_again_soon_then_seldom(code: str):
    """An API server that has just started refuses, for a moment, what it will allow."""
    error = ClusterError(ErrorClass.WAIT, code, "no")
    first = endings.failed(error, failures=0, revision=None)
    late = endings.failed(error, failures=TRIES, revision=None)
    assert first.outcome.phase == late.outcome.phase == endings.BLOCKED
    assert first.again <= timedelta(seconds=2)
    assert late.again >= timedelta(minutes=8)


def test_a_refusal_of_the_object_waits_for_a_person():
    ending = endings.failed(ClusterError(ErrorClass.WAIT, "invalid", "no"), failures=0, revision=None)
    assert ending.again >= timedelta(minutes=8)
