"""`lite` answers as kube-apiserver does: what Slipway was recorded to send, what is written by hand, what is generated.

SLIPWAY_SEQUENCES is how many there are in all (2,000 in CI and where the cluster tier is asked for by its marker, else
200), SLIPWAY_SEED what the generated ones begin from, the same in every run: one that fails by chance says nothing of
a change.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, currently_in_test_context, given, note, seed, settings

from tests.differential import SEED, generating, scripted
from tests.differential.bodies import LEAST
from tests.differential.bodies_more import UNGENERATED, UNHELD
from tests.differential.pair import Pair
from tests.differential.sequences import Recorded, Request, Sequence

WHOLE = [kind for kind in LEAST if kind not in UNGENERATED]
RECONCILED = [kind for kind in scripted.CHANGES if kind != "Job"]
HELD = [kind for kind in scripted.CHANGES if kind not in UNHELD]
SCALED = ["Deployment", "ReplicaSet", "StatefulSet", "LeaderWorkerSet"]
RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.json"))
# What is recorded or written by hand: a sequence of each list's kinds, a used up quota, odd options, a mere name.
WRITTEN = sum(map(len, (RECORDINGS, RECONCILED, scripted.CHANGES, HELD, LEAST, SCALED))) + 3

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def sequences(request: pytest.FixtureRequest) -> int:
    """How many sequences are generated of each kind."""
    asked = "cluster" in (request.config.option.markexpr or "") or os.environ.get("CI") == "true"
    together = int(os.environ.get("SLIPWAY_SEQUENCES", "2000" if asked else "200"))
    return max(1, math.ceil((together - WRITTEN) / len(WHOLE)))


def test_there_are_recordings() -> None:
    """Without one the next test would say nothing."""
    assert RECORDINGS


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_slipway_is_answered_the_same(pair: Pair, path: Path) -> None:
    requests = json.loads(path.read_text())["requests"]
    assert_same(pair, Recorded(path.stem, tuple(Request(each) for each in requests)))


@pytest.mark.parametrize("kind", RECONCILED)
def test_a_reconciler_is_answered_the_same(pair: Pair, kind: str) -> None:
    assert_same(pair, scripted.reconciled(kind, scripted.CHANGES[kind]))


@pytest.mark.parametrize("kind", scripted.CHANGES)
def test_kubectl_is_answered_the_same(pair: Pair, kind: str) -> None:
    assert_same(pair, scripted.by_kubectl(kind, scripted.CHANGES[kind]))


@pytest.mark.parametrize("kind", HELD)
def test_what_finalizers_held_is_let_go_the_same(pair: Pair, kind: str) -> None:
    assert_same(pair, scripted.let_go(kind))


@pytest.mark.parametrize("kind", LEAST)
def test_another_kind_is_refused_the_same(pair: Pair, kind: str) -> None:
    assert_same(pair, scripted.of_another_kind(kind))


def test_a_used_up_quota_is_told_the_same(pair: Pair) -> None:
    assert_same(pair, scripted.quota_used_up())


def test_odd_options_are_answered_the_same(pair: Pair) -> None:
    assert_same(pair, scripted.asked_oddly())


@pytest.mark.parametrize("kind", SCALED)
def test_a_scale_is_answered_the_same(pair: Pair, kind: str) -> None:
    assert_same(pair, scripted.scaled(kind))


def test_a_service_that_is_but_a_name_is_told_the_same(pair: Pair) -> None:
    assert_same(pair, scripted.but_a_name())


@pytest.mark.parametrize("kind", WHOLE)
def test_generated_requests_are_answered_the_same(pair: Pair, kind: str, sequences: int) -> None:
    print(f"{kind}: SLIPWAY_SEED={SEED}, {sequences} sequences")

    @seed(SEED)
    @settings(
        max_examples=sequences,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(generating.sequences(kind))
    def compare(sequence: Sequence) -> None:
        assert_same(pair, sequence)

    compare()


def assert_same(pair: Pair, sequence: Sequence | Recorded) -> None:
    """Fail with the sequence and every place where the answers differ."""
    found = pair.play(sequence)
    if found:
        if currently_in_test_context():
            note(str(sequence))
        else:
            print(sequence)
        raise AssertionError("\n".join(str(difference) for difference in found))
