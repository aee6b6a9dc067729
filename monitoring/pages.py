"""What the chart pages share: the range in the URL, and readings made ready for a template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from .charts import COLOURS, Mark, digits, figure, line_name, scale_for, show
from .panels import PANELS, Panel, Scope
from .prometheus import Prometheus, Range
from .readings import Display, Reading, read_health, read_panel

RANGES: dict[str, tuple[str, int]] = {
    "15m": ("15 minutes", 15 * 60),
    "1h": ("1 hour", 3600),
    "6h": ("6 hours", 6 * 3600),
    "24h": ("24 hours", 24 * 3600),
    "7d": ("7 days", 7 * 24 * 3600),
}
DEFAULT_RANGE = "15m"


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
    def line(self) -> str:
        """The name of the line whose value stands in the title, where the title does not say it already."""
        return "" if self.panel.headline == self.panel.title.lower() else self.panel.headline


def span(range_name: str) -> Range:
    """The steps of a named range that ends now."""
    return Range.last(RANGES[range_name][1])


def chosen_range(value: str | None) -> str:
    """The range a URL names; anything else is the default."""
    return value if value in RANGES else DEFAULT_RANGE


def cards(
    door: Prometheus,
    scope: Scope,
    over: Range,
    panels: tuple[Panel, ...] = PANELS,
    marks: Sequence[Mark] = (),
    serving_since: datetime | None = None,
) -> list[Card]:
    """Read `panels`, one query each and one for the targets' health."""
    state = read_health(door, scope, over, serving_since)
    return [card(read_panel(door, panel, scope, over, state), marks) for panel in panels]


def card(reading: Reading, marks: Sequence[Mark] = ()) -> Card:
    value, unit = show(reading.headline, reading.panel.unit)
    return Card(
        panel=reading.panel,
        reading=reading,
        value=value,
        unit=unit,
        figure=orjson.dumps(figure(reading, marks)).decode() if reading.display is Display.DRAWN else "",
        legend=[(line_name(line), COLOURS[i % len(COLOURS)]) for i, line in enumerate(reading.series)],
        table=[_row(line, reading.panel.unit) for line in reading.series],
    )


def _row(line: Any, unit: str) -> tuple[str, str, str]:
    """Name, last and largest value: the chart in words, for those who do not see it."""
    values = [value for _, value in line.points if value is not None]
    if not values:
        return line_name(line), "–", "–"
    factor, name = scale_for(unit, max(map(abs, values)))
    return line_name(line), f"{digits(values[-1] * factor)} {name}", f"{digits(max(values) * factor)} {name}"
