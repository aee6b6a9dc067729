"""Readings become Plotly figures: plain dicts without chrome colours, which the stylesheet gives by theme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .prometheus import Series
from .readings import Reading

# At least 3:1 against both card backgrounds; green, lime and yellow would not be.
COLOURS = ("#066fd1", "#ae3ec9", "#f76707", "#0ca678", "#d6336c", "#4263eb", "#17a2b8", "#d63939")

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
    largest = max((abs(v) for line in reading.series for _, v in line.points if v is not None), default=0.0)
    # The axis speaks the unit of the number in the title.
    factor, unit = scale_for(reading.panel.unit, abs(reading.headline or largest))
    over = reading.over
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": line_name(line),
            "x0": over.start * 1000,
            "dx": over.step * 1000,
            "y": _grid(line, over.start, over.end, over.step, factor),
            "line": {"width": 1.75, "color": COLOURS[index % len(COLOURS)]},
            "hovertemplate": f"%{{y:.3~g}} {unit}<extra>{line_name(line)}</extra>",
        }
        for index, line in enumerate(reading.series)
    ]
    limit = reading.panel.limit
    drawn_limit = limit if limit is not None and (largest == 0 or largest > limit * 0.6) else None
    layout: dict[str, Any] = {
        "xaxis": {"type": "date", "range": [over.start * 1000, over.end * 1000], "nticks": 4},
        "yaxis": {"rangemode": "tozero", "nticks": 4, "ticksuffix": unit if unit in {"%", "°C"} else ""},
        "showlegend": False,
        "hovermode": "x unified",
        "margin": {"l": 44, "r": 8, "t": 14 if marks else 8, "b": 28},
        "shapes": [_upright(mark.at) for mark in marks],
        "annotations": [_words(mark) for mark in marks],
    }
    if drawn_limit is not None:
        layout["shapes"].append(_level(drawn_limit * factor))
    if largest == 0:
        layout["yaxis"]["range"] = [0, drawn_limit * factor * 1.2 if drawn_limit is not None else 1]
    return {"data": traces, "layout": layout, "unit": unit}


def _upright(at: int) -> dict[str, Any]:
    line = {"width": 1, "dash": "dot", "color": "#8a8f98"}
    return {"type": "line", "yref": "paper", "x0": at * 1000, "x1": at * 1000, "y0": 0, "y1": 1, "line": line}


def _level(height: float) -> dict[str, Any]:
    line = {"width": 1, "dash": "dot", "color": "#d63939"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height, "line": line}


def _words(mark: Mark) -> dict[str, Any]:
    place = {"x": mark.at * 1000, "yref": "paper", "y": 1, "yanchor": "bottom", "xanchor": "left"}
    return place | {"text": mark.text, "showarrow": False, "font": {"size": 10, "color": "#8a8f98"}}


def _grid(line: Series, start: int, end: int, step: int, factor: float) -> list[float | None]:
    known = dict(line.points)
    return [
        None if (value := known.get(at)) is None else float(f"{value * factor:.4g}")
        for at in range(start, end + 1, step)
    ]


def sparkline(line: Series, start: int, end: int, step: int, width: int = 96, height: int = 24) -> str:
    """Points of an SVG polyline, or nothing when fewer than two values are known."""
    known = [(at, value) for at, value in line.points if value is not None]
    if len(known) < 2 or end <= start:
        return ""
    ordered = sorted(value for _, value in known)
    # One spike at the start would flatten everything after it: it may leave the picture at the top.
    largest = min(ordered[-1], 4 * ordered[len(ordered) // 2]) or ordered[-1] or 1.0
    return " ".join(
        f"{(at - start) / (end - start) * width:.1f},{height - 1 - value / largest * (height - 2):.1f}"
        for at, value in known
    )
