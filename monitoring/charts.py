"""Readings become Plotly figures: plain dicts without chrome colours, which the stylesheet gives by theme."""

from __future__ import annotations

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
    return digits(value * factor), name


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


def figure(reading: Reading) -> dict[str, Any]:
    """A figure for Plotly: epoch milliseconds on x (shown in the viewer's zone), null where nothing is known."""
    largest = max((abs(v) for line in reading.series for _, v in line.points if v is not None), default=0.0)
    factor, unit = scale_for(reading.panel.unit, largest)
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
    layout: dict[str, Any] = {
        "xaxis": {"type": "date", "range": [over.start * 1000, over.end * 1000], "nticks": 4},
        "yaxis": {"rangemode": "tozero", "nticks": 4},
        "showlegend": False,
        "hovermode": "x unified",
        "margin": {"l": 44, "r": 8, "t": 8, "b": 28},
    }
    if reading.panel.limit is not None and largest > reading.panel.limit * 0.6:
        height = reading.panel.limit * factor
        layout["shapes"] = [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height,
             "line": {"width": 1, "dash": "dot", "color": "#d63939"}}
        ]  # fmt: skip
    return {"data": traces, "layout": layout, "unit": unit}


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
    largest = max(value for _, value in known) or 1.0
    return " ".join(
        f"{(at - start) / (end - start) * width:.1f},{height - 1 - value / largest * (height - 2):.1f}"
        for at, value in known
    )
