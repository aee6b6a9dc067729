"""Readings become Plotly figures: plain dicts without chrome colours, which the stylesheet gives by theme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .panels import Panel
from .prometheus import Range, Series
from .readings import Reading

# At least 3:1 against both card backgrounds; green, lime and yellow would not be.
COLOURS = ("#066fd1", "#ae3ec9", "#f76707", "#0ca678", "#d6336c", "#4263eb", "#17a2b8", "#d63939")

DOT = 5  # pixels, for a value that has no neighbours
LABEL = 0.25  # share of a chart's width that the words at a mark need

SCALES: dict[str, list[tuple[float, float, str]]] = {
    "s": [(1.0, 1.0, "s"), (0.0, 1000.0, "ms")],
    "ratio": [(0.0, 100.0, "%")],
    "bytes": [(2.0**30, 2.0**-30, "GiB"), (0.0, 2.0**-20, "MiB")],
    "celsius": [(0.0, 1.0, "°C")],
    "1/s": [(0.0, 1.0, "/s")],
    "tok/s": [(0.0, 1.0, "tokens/s")],
    "req": [(0.0, 1.0, "")],
    "W": [(0.0, 1.0, "W")],
}


def scale_for(unit: str, largest: float) -> tuple[float, str]:
    """Factor and unit that show values up to `largest` in a readable size."""
    return next((factor, name) for least, factor, name in SCALES[unit] if largest >= least)


def show(value: float | None, unit: str) -> tuple[str, str]:
    """A number with three significant digits and its unit, e.g. ("318", "ms"); a dash when there is none."""
    if value is None:
        return "–", ""
    factor, name = scale_for(unit, abs(value))
    return (coarse if unit in COARSE else digits)(value * factor), name


# Shares and rates are read at a glance: more than one decimal says nothing there.
COARSE = frozenset({"ratio", "tok/s", "req", "1/s", "celsius", "W"})


def coarse(value: float) -> str:
    """Whole numbers from ten on, one decimal below, and never a zero for something that is not zero."""
    if 0 < abs(value) < 0.1:
        return "<0.1"
    return f"{value:,.0f}" if abs(value) >= 10 or value == 0 else f"{value:.1f}"


def digits(value: float) -> str:
    """Three significant digits, thousands separated by a comma."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def line_name(series: Series) -> str:
    """The line's label; `<` would be read as markup by Plotly."""
    return (series.name or "value").replace("<", "‹").replace("&", "＆")


@dataclass(frozen=True)
class Mark:
    """Something that happened, drawn as an upright line: epoch seconds, and a few words."""

    at: int
    text: str


def figure(reading: Reading, marks: Sequence[Mark] = ()) -> dict[str, Any]:
    """A figure for Plotly: epoch milliseconds on x (shown in the viewer's zone), null where nothing is known."""
    panel, over = reading.panel, reading.over
    largest = max((abs(v) for line in reading.series for _, v in line.points if v is not None), default=0.0)
    # The axis speaks the unit of the number in the title.
    factor, unit = scale_for(panel.unit, abs(reading.headline or largest))
    drawn = _Drawn(panel, over, factor, unit)
    traces = [trace for index, line in enumerate(reading.series) for trace in drawn.traces(line, _colour(index))]
    limit = panel.limit
    drawn_limit = limit if limit is not None and (largest == 0 or largest > limit * 0.6) else None
    layout: dict[str, Any] = {
        "xaxis": {
            "type": "date",
            "range": [over.start * 1000, over.end * 1000],
            "nticks": 3,  # what fits upright on the narrowest card, with seconds too
            "tickangle": 0,
            "tickformat": _tick_format(over),
        },
        "yaxis": {"rangemode": "tozero", "nticks": 4, "ticksuffix": unit if unit in {"%", "°C"} else ""},
        "showlegend": False,
        "hovermode": "x unified",
        "margin": {"l": 44, "r": 8, "t": 14 if marks else 8, "b": 28},
        "shapes": [*drawn.bands, *(_upright(mark.at) for mark in marks)],
        "annotations": _words(marks, over),
    }
    if drawn_limit is not None:
        layout["shapes"].append(_level(drawn_limit * factor))
    if largest == 0:
        layout["yaxis"]["range"] = [0, drawn_limit * factor * 1.2 if drawn_limit is not None else 1]
    return {"data": traces, "layout": layout, "unit": unit}


@dataclass
class _Drawn:
    """The lines of one figure; `bands` are where a line is only known to lie below the panel's floor."""

    panel: Panel
    over: Range
    factor: float
    unit: str
    bands: list[dict[str, Any]] = field(default_factory=list)

    def traces(self, line: Series, colour: str) -> list[dict[str, Any]]:
        """The line where its values are known, and unseen points that tell the hover box where they are not."""
        known = dict(line.points)
        values = [known.get(at) for at in range(self.over.start, self.over.end + 1, self.over.step)]
        below = [self.panel.is_below(line.name, value) for value in values]
        exact = [None if hidden else value for value, hidden in zip(values, below, strict=True)]
        traces = [self._trace(line, colour, exact, "%{y:.3~g} " + self.unit)]
        if any(below):
            floor = [self.panel.floor if hidden else None for hidden in below]
            self.bands += [self._band(first, last, colour) for first, last in _runs(below)]
            trace = self._trace(line, colour, floor, f"< {self.panel.floor * self.factor:.3g} {self.unit}")
            traces.append(trace | {"mode": "markers", "marker": {"opacity": 0, "color": colour}})
        return traces

    def _trace(self, line: Series, colour: str, values: list[float | None], hover: str) -> dict[str, Any]:
        alone = _alone(values)
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": "lines+markers" if any(alone) else "lines",
            "name": line_name(line),
            "x0": self.over.start * 1000,
            "dx": self.over.step * 1000,
            "y": [None if value is None else float(f"{value * self.factor:.4g}") for value in values],
            "line": {"width": 1.75, "color": colour},
            "hovertemplate": f"{hover}<extra>{line_name(line)}</extra>",
        }
        if any(alone):
            trace["marker"] = {"size": [DOT if single else 0 for single in alone], "color": colour, "opacity": 1}
        return trace

    def _band(self, first: int, last: int, colour: str) -> dict[str, Any]:
        """From zero to the floor, half a step to both sides."""
        begin, half = self.over.start * 1000, self.over.step * 500
        return {
            "type": "rect",
            "layer": "below",
            "x0": begin + first * 2 * half - half,
            "x1": begin + last * 2 * half + half,
            "y0": 0,
            "y1": self.panel.floor * self.factor,
            "fillcolor": colour,
            "opacity": 0.14,
            "line": {"width": 0},
        }


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _alone(values: Sequence[float | None]) -> list[bool]:
    """Which values have no neighbour: a line through one point is not seen."""
    padded = [None, *values, None]
    return [
        value is not None and padded[index] is None and padded[index + 2] is None for index, value in enumerate(values)
    ]


def _runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    firsts = [index for index, flag in enumerate(flags) if flag and (index == 0 or not flags[index - 1])]
    lasts = [index for index, flag in enumerate(flags) if flag and (index + 1 == len(flags) or not flags[index + 1])]
    return list(zip(firsts, lasts, strict=True))


def _tick_format(over: Range) -> str:
    """Seconds where minutes would repeat themselves, the day where hours would."""
    seconds = over.end - over.start
    if seconds < 6 * 60:
        return "%H:%M:%S"
    return "%H:%M" if seconds <= 24 * 3600 else "%-d %b"


def _upright(at: int) -> dict[str, Any]:
    line = {"width": 1, "dash": "dot", "color": "#8a8f98"}
    return {"type": "line", "yref": "paper", "x0": at * 1000, "x1": at * 1000, "y0": 0, "y1": 1, "line": line}


def _level(height: float) -> dict[str, Any]:
    line = {"width": 1, "dash": "dot", "color": "#d63939"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height, "line": line}


def _words(marks: Sequence[Mark], over: Range) -> list[dict[str, Any]]:
    """What the marks are called: to the side where there is room, and never one over the other."""
    width = max(1, over.end - over.start)
    words: list[dict[str, Any]] = []
    taken = float(over.end + width)  # where the label to the right begins, if it may be written over
    for mark in sorted(marks, key=lambda mark: mark.at, reverse=True):
        leftwards = (over.end - mark.at) / width < LABEL
        begins, ends = (mark.at - LABEL * width, mark.at) if leftwards else (mark.at, mark.at + LABEL * width)
        if ends > taken:
            continue
        taken = begins
        place = {"x": mark.at * 1000, "yref": "paper", "y": 1, "yanchor": "bottom"}
        place["xanchor"] = "right" if leftwards else "left"
        words.append(place | {"text": mark.text, "showarrow": False, "font": {"size": 10, "color": "#8a8f98"}})
    return words


def sparkline(line: Series, start: int, end: int, step: int, width: int = 96, height: int = 24) -> str:
    """Points of an SVG polyline over the time, or since its first value where that is later; nothing without one.

    One value gives the same point twice, which round line caps show as a dot.
    """
    known = [(at, value) for at, value in line.points if value is not None]
    if not known or end <= start:
        return ""
    since = known[0][0]
    if since > start + step:
        # One step of air, so that the beginning of a line is told from its going on before.
        start = min(since - step, end - 1)
    ordered = sorted(value for _, value in known)
    # One spike at the start would flatten everything after it: it may leave the picture at the top.
    largest = min(ordered[-1], 4 * ordered[len(ordered) // 2]) or ordered[-1] or 1.0
    points = [
        f"{(at - start) / (end - start) * (width - 2) + 1:.1f},{height - 2 - value / largest * (height - 4):.1f}"
        for at, value in known
    ]
    return " ".join(points if len(points) > 1 else points * 2)
