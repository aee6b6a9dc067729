"""Reads panels, and tells apart why a chart may be empty: never a false zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from django.conf import settings
from django.utils import timezone

from .panels import GPU, Panel, Scope, health
from .prometheus import Prometheus, PrometheusUnreachableError, QueryRefusedError, Range, Series


class Display(StrEnum):
    """What stands where a chart would be."""

    DRAWN = "drawn"
    NO_TRAFFIC = "no-traffic"
    NOT_SCRAPED = "not-scraped"
    DOWN = "down"
    COLLECTING = "collecting"
    STARTING = "starting"
    UNKNOWN_METRIC = "unknown-metric"
    NO_GPU_METRICS = "no-gpu-metrics"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


SENTENCES = {
    Display.NO_TRAFFIC: "No traffic in this time.",
    Display.NOT_SCRAPED: "Not scraped: Prometheus knows no target of this deployment. It appears a few seconds after "
    "the first pod has an address.",
    Display.DOWN: "No figures: none of its pods answers Prometheus.",
    Display.COLLECTING: "Collecting: first values in about {seconds} s.",
    Display.STARTING: "Collecting: the engine does not answer Prometheus yet.",
    Display.UNKNOWN_METRIC: "This vLLM does not export this figure.",
    Display.NO_GPU_METRICS: "The DCGM exporter says nothing about the GPUs of these pods.",
    Display.UNREACHABLE: "Prometheus cannot be reached. Nothing is known of this time.",
    Display.REFUSED: "Prometheus could not run this query.",
}


@dataclass(frozen=True)
class Health:
    """What Prometheus knows of a scope's targets."""

    known: int = 0
    up: int = 0
    wait_seconds: int = 0  # until the oldest target has answered for long enough to compute rates
    starting: bool = False  # no target ever answered, and none had to: an engine that loads is not one that is down
    reachable: bool = True


@dataclass(frozen=True)
class Reading:
    """A panel's lines over a range, or the reason why there are none."""

    panel: Panel
    over: Range
    display: Display
    series: Sequence[Series] = field(default_factory=list)
    wait_seconds: int = 0

    @property
    def sentence(self) -> str:
        return SENTENCES.get(self.display, "").format(seconds=self.wait_seconds)

    @property
    def headline(self) -> float | None:
        """Last value of the line that stands in the title; None when it is older than two steps."""
        for series in self.series:
            if series.name == self.panel.headline:
                recent = [value for at, value in series.points[-3:] if at > self.over.end - 3 * self.over.step]
                return next((value for value in reversed(recent) if value is not None), None)
        return None


def read_health(
    door: Prometheus, scope: Scope, over: Range | None = None, expected_since: datetime | None = None
) -> Health:
    """Ask once which targets are known, up, and old enough to compute the rates of `over` from.

    `expected_since`, where known, is when the pods became ready or the deployment failed: from then on they have one
    rate window to answer before their silence counts.
    """
    over = over or Range.last(900)
    needed = over.window + over.step  # the first point with a full window behind it
    try:
        answer = {series.name: series.last or 0 for series in door.instant(health(scope, needed))}
    except (PrometheusUnreachableError, QueryRefusedError):
        return Health(reachable=False)
    wait = 0
    if not answer.get("before"):
        scrape = settings.PROMETHEUS_SCRAPE_INTERVAL
        wait = max(0, needed - scrape * int(answer.get("answers", 0)))
    patient = expected_since is None or timezone.now() - expected_since < timedelta(seconds=needed)
    starting = patient and not answer.get("ever")
    return Health(int(answer.get("known", 0)), int(answer.get("up", 0)), wait, starting)


def read_panel(door: Prometheus, panel: Panel, scope: Scope, over: Range, state: Health) -> Reading:
    """One panel over a range, by one query; `state` comes from `read_health` of the same scope."""
    if not state.reachable:
        return Reading(panel, over, Display.UNREACHABLE)
    try:
        found = [line for line in door.range(panel.build(scope, over.window), over) if line.points]
        series = sorted(found, key=lambda line: (line.name != panel.headline, line.name))
    except PrometheusUnreachableError:
        return Reading(panel, over, Display.UNREACHABLE)
    except QueryRefusedError:
        return Reading(panel, over, Display.REFUSED)
    if panel.ramps:
        series = [_without_ramp(line, over) for line in series]
    if any(value is not None for line in series for _, value in line.points):
        return Reading(panel, over, Display.DRAWN, series)
    return _empty(panel, over, state, known=bool(series))


def _empty(panel: Panel, over: Range, state: Health, known: bool) -> Reading:
    if not state.known:
        return Reading(panel, over, Display.NOT_SCRAPED)
    if state.starting:
        return Reading(panel, over, Display.STARTING)
    if not state.up and panel.group != GPU:
        return Reading(panel, over, Display.DOWN)
    if state.wait_seconds:
        return Reading(panel, over, Display.COLLECTING, wait_seconds=state.wait_seconds)
    if known or panel.needs_traffic:
        return Reading(panel, over, Display.NO_TRAFFIC)
    return Reading(panel, over, Display.NO_GPU_METRICS if panel.group == GPU else Display.UNKNOWN_METRIC)


def _without_ramp(line: Series, over: Range) -> Series:
    """Drop what rate() reads too low at the start of a series that began within the range."""
    first = line.points[0][0]
    if first <= over.start + over.step:
        return line
    return Series(line.labels, [(at, value) for at, value in line.points if at >= first + over.window])
