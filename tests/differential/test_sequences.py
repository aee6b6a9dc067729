"""`lite` answers as kube-apiserver does: recorded sequences, and generated ones.

SLIPWAY_SEQUENCES is how many are generated (2,000 in the cluster tier's own run), SLIPWAY_SEED what they begin from.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, note, seed, settings

from tests.differential import generating, recorded
from tests.differential.bodies import LEAST
from tests.differential.pair import Pair
from tests.differential.sequences import Sequence

SEQUENCES = int(os.environ.get("SLIPWAY_SEQUENCES", "2000"))
SEED = int(os.environ.get("SLIPWAY_SEED", "1"))

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.mark.parametrize("kind", recorded.CHANGES)
def test_a_reconciler_is_answered_the_same(pair: Pair, kind: str) -> None:
    assert_same(pair, recorded.reconciled(kind, recorded.CHANGES[kind]))


@pytest.mark.parametrize("kind", recorded.CHANGES)
def test_kubectl_is_answered_the_same(pair: Pair, kind: str) -> None:
    assert_same(pair, recorded.by_kubectl(kind, recorded.CHANGES[kind]))


@pytest.mark.parametrize("kind", LEAST)
def test_generated_requests_are_answered_the_same(pair: Pair, kind: str) -> None:
    print(f"{kind}: SLIPWAY_SEED={SEED}")

    @seed(SEED)
    @settings(
        max_examples=-(-SEQUENCES // len(LEAST)),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(generating.sequences(kind))
    def compare(sequence: Sequence) -> None:
        assert_same(pair, sequence)

    compare()


def assert_same(pair: Pair, sequence: Sequence) -> None:
    """Fail with the sequence and every place where the answers differ."""
    found = pair.play(sequence)
    if found:
        note(str(sequence)) if _generating() else print(sequence)
        raise AssertionError("\n".join(str(difference) for difference in found))


def _generating() -> bool:
    from hypothesis import currently_in_test_context

    return currently_in_test_context()
