"""The load's shape, and who gets some."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from sandbox.traffic.app import ANNOTATION, rates_of, read_plan
from sandbox.traffic.shape import (
    BURST_LASTS,
    DAY,
    LONGEST_ANSWER,
    highest_rate,
    next_arrival,
    question,
    rate_at,
)


def test_the_rate_moves_over_the_day_and_never_jumps() -> None:
    rates = [rate_at(second, 2.0, 0.3) for second in range(int(DAY))]
    assert min(rates) > 0.5
    assert max(rates) > 2 * 2.0
    assert max(rates) <= highest_rate(2.0)
    assert max(abs(a - b) for a, b in itertools.pairwise(rates)) < 1.0


def test_a_burst_swells_and_fades() -> None:
    calm, peak, after = (rate_at(second, 1.0) for second in (0.0, BURST_LASTS / 2, BURST_LASTS + 1))
    assert peak > 2.5 * calm
    assert after < 1.3 * calm


def test_arrivals_follow_the_rate() -> None:
    chance, now, count = random.Random(1), 0.0, 0
    while now < DAY:
        now = next_arrival(now, 1.0, 0.0, chance)
        count += 1
    expected = sum(rate_at(second, 1.0, 0.0) for second in range(int(DAY)))
    assert abs(count - expected) < 4 * expected**0.5


def test_questions_differ_in_length_and_share_beginnings() -> None:
    chance = random.Random(2)
    asked = [question(chance) for _ in range(400)]
    lengths = [len(one.text) for one in asked]
    assert min(lengths) < 200 < 4000 < max(lengths)
    assert all(16 <= one.max_tokens <= LONGEST_ANSWER for one in asked)
    assert 100 < sum(bool(one.system) for one in asked) < 300
    assert len({one.text for one in asked}) == 400


def service(ready: str = "True", **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "chat", "annotations": annotations},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


@pytest.mark.parametrize(
    ("wish", "plan", "rate"),
    [
        (service(), {}, None),
        (service(), {"search-*/chat": 1.5, "*": 9}, 1.5),
        (service(), {"other-*/chat": 1.5}, None),
        (service("False"), {"*": 1}, None),
        (service(**{ANNOTATION: "3"}), {"*": 1}, 3.0),
        (service(**{ANNOTATION: "0"}), {"*": 1}, None),
        (service(**{ANNOTATION: "lots"}), {"*": 1}, None),
        ({"metadata": {"name": "chat"}}, {"*": 1}, None),
    ],
)
def test_who_gets_how_much(wish: dict[str, Any], plan: dict[str, float], rate: float | None) -> None:
    expected = {("search-abc", "chat"): rate} if rate else {}
    assert rates_of({("search-abc", "chat"): wish}, plan) == expected


def test_a_plan_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert read_plan(None) == {}
    assert read_plan(tmp_path / "none") == {}
    (tmp_path / "plan").write_text('{"a/b": 2}')
    assert read_plan(tmp_path / "plan") == {"a/b": 2.0}
