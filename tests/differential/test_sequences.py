"""`lite` answers as kube-apiserver does: recorded sequences, and generated ones.

SLIPWAY_SEQUENCES is how many are generated (2,000 where the cluster tier is asked for by its marker, else 200),
SLIPWAY_SEED what they begin from.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, currently_in_test_context, given, note, seed, settings

from tests.differential import generating, recorded
from tests.differential.bodies import LEAST
from tests.differential.pair import Pair
from tests.differential.sequences import Sequence

SEED = int(os.environ.get("SLIPWAY_SEED", "1"))

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def sequences(request: pytest.FixtureRequest) -> int:
    """How many sequences are generated in all."""
    asked = "cluster" in (request.config.option.markexpr or "")
    return int(os.environ.get("SLIPWAY_SEQUENCES", "2000" if asked else "200"))


@pytest.mark.parametrize("kind", recorded.CHANGES)
def test_a_reconciler_is_answered_the_same(pair: Pair, kind: str) -> None:
    assert_same(pair, recorded.reconciled(kind, recorded.CHANGES[kind]))


@pytest.mark.parametrize("kind", recorded.CHANGES)
def test_kubectl_is_answered_the_same(pair: Pair, kind: str) -> None:
    assert_same(pair, recorded.by_kubectl(kind, recorded.CHANGES[kind]))


def test_a_used_up_quota_is_told_the_same(pair: Pair) -> None:
    assert_same(pair, recorded.quota_used_up())


@pytest.mark.parametrize("kind", LEAST)
def test_generated_requests_are_answered_the_same(pair: Pair, kind: str, sequences: int) -> None:
    print(f"{kind}: SLIPWAY_SEED={SEED} SLIPWAY_SEQUENCES={sequences}")

    @seed(SEED)
    @settings(
        max_examples=-(-sequences // len(LEAST)),
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
        if currently_in_test_context():
            note(str(sequence))
        else:
            print(sequence)
        raise AssertionError("\n".join(str(difference) for difference in found))
