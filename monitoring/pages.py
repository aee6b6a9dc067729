"""What the chart pages share: the range in the URL, and readings made ready for a template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson
from django.utils import timezone

from .charts import COLOURS, Mark, digits, figure, line_name, scale_for, show
from .panels import PANELS, Panel, Scope
from .prometheus import Prometheus, Range, Series
from .readings import Display, Reading, read_health, read_panel

RANGES: dict[str, tuple[str, int]] = {
    "15m": ("15 minutes", 15 * 60),
    "1h": ("1 hour", 3600),
    "6h": ("6 hours", 6 * 3600),
    "24h": ("24 hours", 24 * 3600),
    "7d": ("7 days", 7 * 24 * 3600),
}
DEFAULT_RANGE = "15m"
SHORTEST = 120  # seconds that a chart covers at least


@dataclass(frozen=True)
class Card:
    """One chart as the template draws it."""

    panel: Panel
    reading: Reading
    value: str
    unit: str
    figure: str
    legend: list[tuple[str, str]]
    table: list[tuple[str, str, str]]

    @property
    def drawn(self) -> bool:
        return self.reading.display is Display.DRAWN

    @property
    def soon(self) -> bool:
        """True while its first values are seconds away."""
        return self.reading.display in {Display.COLLECTING, Display.STARTING}

    @property
    def words(self) -> str:
        """The lines as a sentence, for those who do not see the picture."""
        return "; ".join(f"{name} {last}, at most {most}" for name, last, most in self.table)

    @property
    def line(self) -> str:
        """The name of the line whose value stands in the title, where the title does not say it already."""
        return "" if self.panel.headline == self.panel.title.lower() else self.panel.headline


def span(range_name: str, began: datetime | None = None) -> Range:
    """The steps of a named range that ends now; of a shorter one for what only `began` within it."""
    seconds = RANGES[range_name][1]
    if began is not None:
        age = (timezone.now() - began).total_seconds()
        seconds = min(seconds, max(SHORTEST, math.ceil(age * 1.1)))
    return Range.last(seconds)


def chosen_range(value: str | None) -> str:
    """The range a URL names; anything else is the default."""
    return value if value in RANGES else DEFAULT_RANGE


def cards(
    door: Prometheus,
    scope: Scope,
    over: Range,
    panels: tuple[Panel, ...] = PANELS,
    marks: Sequence[Mark] = (),
    expected_since: datetime | None = None,
) -> list[Card]:
    """Read `panels`, one query each and one for the targets' health."""
    state = read_health(door, scope, over, expected_since)
    return [card(read_panel(door, panel, scope, over, state), marks) for panel in panels]


def card(reading: Reading, marks: Sequence[Mark] = ()) -> Card:
    value, unit = _told(reading.panel, reading.panel.headline, reading.headline)
    return Card(
        panel=reading.panel,
        reading=reading,
        value=value,
        unit=unit,
        figure=orjson.dumps(figure(reading, marks)).decode() if reading.display is Display.DRAWN else "",
        legend=[(line_name(line), COLOURS[i % len(COLOURS)]) for i, line in enumerate(reading.series)],
        table=[_row(reading.panel, line) for line in reading.series],
    )


def _told(panel: Panel, line: str, value: float | None) -> tuple[str, str]:
    """A value in words; "< 300 ms" where no more than that is known."""
    if not panel.is_below(line, value):
        return show(value, panel.unit)
    shown, unit = show(panel.floor, panel.unit)
    return f"< {shown}", unit


def _row(panel: Panel, line: Series) -> tuple[str, str, str]:
    """Name, last and largest value: the chart in words, for those who do not see it."""
    values = [value for _, value in line.points if value is not None]
    if not values:
        return line_name(line), "–", "–"
    factor, name = scale_for(panel.unit, max(map(abs, values)))
    last, most = (
        " ".join(_told(panel, line.name, value))
        if panel.is_below(line.name, value)
        else f"{digits(value * factor)} {name}"
        for value in (values[-1], max(values))
    )
    return line_name(line), last, most
