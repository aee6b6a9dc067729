"""Whether pages may say that the queue is away."""

from __future__ import annotations

from typing import Any

import pytest

from portal.lib import broker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(broker.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(broker, "_asked_at", float("-inf"))
    monkeypatch.setattr(broker, "_away_since", None)
    return now


def test_a_running_redis_answers(redis_url: str) -> None:
    assert broker.answers(redis_url)


def test_nobody_at_the_address_is_no_answer() -> None:
    assert not broker.answers("redis://127.0.0.1:9/0")


def test_an_outage_keeps_its_beginning_and_is_asked_about_now_and_then(
    clock: list[float], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    up = [False]
    monkeypatch.setattr(broker, "answers", lambda url: asked.append(url) or up[0])

    began = broker.away_since()
    assert began is not None
    assert broker.away_since() == began
    assert len(asked) == 1  # a moment ago is recent enough

    clock[0] += 10
    assert broker.away_since() == began

    up[0], clock[0] = True, clock[0] + 10
    assert broker.away_since() is None
