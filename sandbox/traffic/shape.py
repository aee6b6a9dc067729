"""How much is asked when: a day squeezed into twenty minutes, with bursts, and prompts of many lengths. Pure."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

DAY = 1200.0  # seconds
SWING = 0.6
BURST_EVERY, BURST_LASTS, BURST_FACTOR = 240.0, 25.0, 3.0
LONGEST_ANSWER = 600

SYSTEM = (
    "You are a helpful assistant of our company. Answer in plain words, say when you are not sure, "
    "and never invent an order number, a price or a date. "
) * 6
PROMPTS = (
    "Summarise this for a colleague who was away: ",
    "Which of these points needs a decision this week, and why? ",
    "Write a friendly answer to this customer: ",
    "Find the contradiction in this text: ",
    "Turn these notes into a table with owner and date: ",
)
FILLER = (
    "The delivery arrived on Tuesday without the two spare parts that we had asked for in March. "
    "Support promised to call back and did so, but the call ended before the question was answered. "
    "We would like to keep the machine and need the parts before the end of the month. "
)


@dataclass(frozen=True)
class Question:
    """One request: the words sent and the longest answer wanted, in tokens."""

    system: str
    text: str
    max_tokens: int


def rate_at(seconds: float, base: float, phase: float = 0.0) -> float:
    """Return requests a second at a time; `base` is the mean of the day without bursts, `phase` (0..1) shifts it."""
    day = 1.0 + SWING * math.sin(2 * math.pi * (seconds / DAY + phase))
    into = (seconds + phase * BURST_EVERY) % BURST_EVERY
    # A burst swells and fades; a step would be no load that anybody has seen.
    burst = 1.0 + (BURST_FACTOR - 1.0) * math.sin(math.pi * into / BURST_LASTS) if into < BURST_LASTS else 1.0
    return base * day * burst


def highest_rate(base: float) -> float:
    """Return what `rate_at` never exceeds."""
    return base * (1.0 + SWING) * BURST_FACTOR


def next_arrival(seconds: float, base: float, phase: float, chance: random.Random) -> float:
    """Return when the next request comes, for arrivals that know nothing of each other (Poisson, by thinning)."""
    highest = highest_rate(base)
    while True:
        seconds += chance.expovariate(highest)
        if chance.random() * highest < rate_at(seconds, base, phase):
            return seconds


def question(chance: random.Random) -> Question:
    """Return a request: most are short, a few are long, and half share a beginning that a prefix cache knows."""
    repeats = min(40, int(chance.lognormvariate(0.7, 0.9)))
    answer = min(LONGEST_ANSWER, 16 + int(chance.lognormvariate(4.6, 0.7)))
    # A number in front keeps the rest of two equal prompts from being shared.
    text = f"({chance.randrange(10**6)}) {chance.choice(PROMPTS)}{FILLER * repeats}"
    return Question(SYSTEM if chance.random() < 0.5 else "", text, answer)
