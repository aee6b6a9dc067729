"""Why a chart is empty is always said, and never the wrong reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from plotly import graph_objects
from plotly.offline import get_plotlyjs_version

from monitoring import pages
from monitoring.charts import DOT, Mark, digits, figure, show, sparkline
from monitoring.pages import card
from monitoring.panels import BY_ID, Scope
from monitoring.prometheus import PrometheusUnreachableError, Range, Series
from monitoring.readings import Display, Health, Reading, read_health, read_panel

SCOPE = Scope.deployment(1, "search-x7k2p")
OVER = Range(1000, 1600, 10)
FINE = Health(known=1, up=1)


class Door:
    """Answers every query alike; what is asked is none of these tests' business."""

    def __init__(self, answer: Callable[[], list[Series]]) -> None:
        self.answer = answer

    def range(self, query: object, over: Range) -> list[Series]:
        return self.answer()

    def instant(self, query: object) -> list[Series]:
        return self.answer()


def line(values: list[float | None], start: int = 1000, name: str = "p95") -> Series:
    return Series({"series": name}, [(start + 10 * i, value) for i, value in enumerate(values)])


def unreachable() -> list[Series]:
    raise PrometheusUnreachableError


def read(panel: str, series: list[Series], state: Health = FINE) -> Reading:
    return read_panel(Door(lambda: series), BY_ID[panel], SCOPE, OVER, state)  # type: ignore[arg-type]


def test_values_are_drawn() -> None:
    assert read("ttft", [line([0.1, 0.2])]).display is Display.DRAWN


def test_only_nan_means_no_traffic() -> None:
    assert read("ttft", [line([None, None])]).display is Display.NO_TRAFFIC


def test_no_target_means_not_scraped() -> None:
    assert read("ttft", [], Health(known=0)).display is Display.NOT_SCRAPED


def test_a_target_that_does_not_answer_is_down() -> None:
    assert read("ttft", [], Health(known=2, up=0)).display is Display.DOWN


def test_a_young_target_is_collecting_and_says_how_long() -> None:
    reading = read("throughput", [], Health(known=1, up=1, wait_seconds=45))

    assert reading.display is Display.COLLECTING
    assert "45 s" in reading.sentence


def health_of(over: Range = OVER, expected_since: datetime | None = None, **answer: float) -> Health:
    """What is made of Prometheus's answer about the targets."""
    lines = [Series({"series": name}, [(1600, value)]) for name, value in answer.items()]
    return read_health(Door(lambda: lines), SCOPE, over, expected_since)  # type: ignore[arg-type]


def test_an_engine_that_loads_is_collecting_and_not_down() -> None:
    loading = {"known": 1, "answers": 0, "before": 0, "ever": 0}

    assert read("ttft", [], health_of(**loading)).display is Display.STARTING
    just_ready = timezone.now() - timedelta(seconds=8)
    assert read("kv", [], health_of(expected_since=just_ready, **loading)).display is Display.STARTING


def test_one_that_never_answered_though_its_pods_serve_for_long_is_down() -> None:
    long_ready = timezone.now() - timedelta(minutes=5)

    state = health_of(expected_since=long_ready, known=1, answers=0, before=0, ever=0)

    assert read("kv", [], state).display is Display.DOWN


def test_one_that_answered_and_stopped_is_down() -> None:
    assert read("kv", [], health_of(known=1, answers=2, before=1, ever=1)).display is Display.DOWN


@pytest.mark.parametrize(("over", "wait"), [(Range(1000, 1600, 5), 15), (Range(0, 3600, 20), 35)])
def test_only_answers_count_towards_the_age_of_a_target(over: Range, wait: int, settings: Any) -> None:
    settings.PROMETHEUS_SCRAPE_INTERVAL = 5

    # Scraped for long, but it answers only since two scrapes.
    state = health_of(over, known=1, up=1, answers=2, before=0, ever=1)

    assert state.wait_seconds == wait
    assert read("ttft", [], state).display is Display.COLLECTING
    assert read("throughput", [], state).display is Display.COLLECTING


def test_a_missed_scrape_does_not_make_an_old_target_young() -> None:
    state = health_of(known=1, up=1, answers=1, before=1, ever=1)

    assert read("ttft", [], state).display is Display.NO_TRAFFIC


def test_a_gauge_that_is_missing_is_unknown_to_this_vllm() -> None:
    assert read("kv", []).display is Display.UNKNOWN_METRIC


def test_missing_gpu_series_are_the_exporters() -> None:
    assert read("gpu", []).display is Display.NO_GPU_METRICS


def test_unreachable_is_not_an_empty_chart() -> None:
    reading = read_panel(Door(unreachable), BY_ID["kv"], SCOPE, OVER, FINE)  # type: ignore[arg-type]

    assert reading.display is Display.UNREACHABLE
    assert read_health(Door(unreachable), SCOPE).reachable is False  # type: ignore[arg-type]


def test_the_ramp_of_a_new_series_is_not_drawn(settings: object) -> None:
    reading = read("throughput", [line([5.0] * 30, start=1200, name="generated")])

    assert reading.series[0].points[0][0] == 1200 + OVER.window


def test_an_old_value_is_no_headline() -> None:
    stale = line([0.5] * 3)
    fresh = line([0.5] * 61)

    assert read("ttft", [stale]).headline is None
    assert read("ttft", [fresh]).headline == 0.5


def test_a_figure_holds_null_where_nothing_is_known() -> None:
    drawn = figure(read("ttft", [line([0.1, None, 0.3])]))

    assert drawn["unit"] == "ms"
    assert drawn["data"][0]["y"][:4] == [100.0, None, 300.0, None]
    assert drawn["data"][0]["x0"] == 1_000_000


def test_markup_in_a_series_name_stays_text() -> None:
    drawn = figure(read("requests", [line([1.0], name="<b>stop</b>")]))

    assert "<" not in drawn["data"][0]["name"]


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.318, "s", ("318", "ms")),
        (1.4, "s", ("1.4", "s")),
        (0.61, "ratio", ("61", "%")),
        (22.5 * 2**30, "bytes", ("22.5", "GiB")),
        (4810.3, "tok/s", ("4,810", "tokens/s")),
        (None, "s", ("–", "")),
    ],
)
def test_numbers_have_three_digits_and_a_unit(value: float | None, unit: str, shown: tuple[str, str]) -> None:
    assert show(value, unit) == shown


def test_zero_is_zero() -> None:
    assert digits(0) == "0"


def test_a_sparkline_begins_with_its_first_value_and_shows_a_single_one_as_a_dot() -> None:
    old = sparkline(line([1.0] * 61), 1000, 1600, 10)
    young = sparkline(line([1.0, 2.0, 1.0], start=1580), 1000, 1600, 10)
    single = sparkline(line([2.0], start=1600), 1000, 1600, 10)

    assert sparkline(line([None]), 1000, 1600, 10) == ""
    assert old.split()[0].startswith("1.0,")
    assert [float(pair.split(",")[0]) for pair in young.split()] == pytest.approx([32.3, 63.7, 95.0], abs=0.1)
    assert len(single.split()) == 2
    assert len(set(single.split())) == 1


@pytest.mark.parametrize("seconds", [60, 900, 3600, 86400, 30 * 86400])
def test_ranges_are_aligned_and_bounded(seconds: int) -> None:
    over = Range.last(seconds, now=1_795_602_881.7)

    assert over.start % over.step == 0
    assert over.end % over.step == 0
    assert (over.end - over.start) // over.step <= 600
    assert over.window >= over.step


def test_every_panels_figure_is_one_that_plotly_accepts() -> None:
    for panel in BY_ID.values():
        drawn = figure(read(panel.id, [line([0.9] * 61), line([0.5] * 61, name="p50")]))
        graph_objects.Figure(data=drawn["data"], layout=drawn["layout"])


def test_the_vendored_script_is_the_version_that_plotly_for_python_carries() -> None:
    script = Path(__file__).parent.parent.parent / "static" / "vendor" / "plotly" / "plotly-basic.min.js"

    assert f"plotly.js (basic - minified) v{get_plotlyjs_version()}" in script.read_text()[:300]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0"), (0.04, "<0.1"), (0.66, "0.7"), (9.94, "9.9"), (37.6, "38"), (1267.4, "1,267")]
)
def test_shares_and_rates_are_told_coarsely(value: float, shown: str) -> None:
    assert show(value, "tok/s")[0] == shown


def test_a_revision_is_marked_where_it_was_applied() -> None:
    drawn = figure(read("ttft", [line([0.1] * 61)]), [Mark(1200, "rev 2")])

    assert [shape["x0"] for shape in drawn["layout"]["shapes"]] == [1_200_000]
    assert drawn["layout"]["annotations"][0]["text"] == "rev 2"


def test_the_words_at_a_mark_stay_within_the_chart_and_apart() -> None:
    marks = [Mark(1000, "rev 1"), Mark(1240, "rev 2"), Mark(1250, "rev 3"), Mark(1595, "rev 4")]

    drawn = figure(read("ttft", [line([0.1] * 61)]), marks)

    words = {item["text"]: item["xanchor"] for item in drawn["layout"]["annotations"]}
    assert words == {"rev 4": "right", "rev 3": "left", "rev 1": "left"}
    assert len(drawn["layout"]["shapes"]) == 4


def test_a_value_without_neighbours_is_drawn_as_a_dot() -> None:
    trace = figure(read("ttft", [line([0.1, None, 0.2, 0.3])]))["data"][0]

    assert trace["mode"] == "lines+markers"
    assert trace["marker"]["size"][:5] == [DOT, 0, 0, 0, 0]
    assert figure(read("ttft", [line([0.1, 0.2])]))["data"][0]["mode"] == "lines"


def test_a_quantile_within_the_first_bucket_is_shown_as_below_it() -> None:
    guessed = read("queue_time", [line([0.285] * 50 + [0.6] * 11), line([0.004] * 61, name="mean")])

    drawn = figure(guessed)

    mean, p95, hint = drawn["data"]
    assert (drawn["unit"], mean["y"][0], p95["y"][0], p95["y"][50]) == ("ms", 4.0, None, 600.0)
    assert hint["hovertemplate"] == "< 300 ms<extra>p95</extra>"
    band = drawn["layout"]["shapes"][0]
    assert (band["x0"], band["x1"], band["y0"], band["y1"]) == (995_000, 1_495_000, 0, 300.0)
    assert card(guessed).table == [("mean", "4 ms", "4 ms"), ("p95", "600 ms", "600 ms")]
    low = read("queue_time", [line([0.285] * 61), line([0.004] * 61, name="mean")])
    assert card(low).table[1] == ("p95", "< 300 ms", "< 300 ms")
    assert (card(low).value, card(low).unit) == ("4", "ms")


def test_a_headline_within_the_first_bucket_says_so() -> None:
    shown = card(read("e2e", [line([0.2] * 61)]))

    assert (shown.value, shown.unit) == ("< 300", "ms")


@pytest.mark.parametrize(
    ("seconds", "ticks"), [(120, "%H:%M:%S"), (900, "%H:%M"), (86400, "%H:%M"), (7 * 86400, "%-d %b")]
)
def test_ticks_tell_times_apart(seconds: int, ticks: str) -> None:
    over = Range.last(seconds, now=1_795_602_881.7)

    drawn = figure(Reading(BY_ID["ttft"], over, Display.DRAWN, []))

    assert drawn["layout"]["xaxis"]["tickformat"] == ticks


@pytest.mark.parametrize(("age", "covered"), [(10, 120), (300, 330), (7200, 900)])
def test_a_range_begins_a_little_before_what_is_younger_than_it(age: int, covered: int) -> None:
    over = pages.span("15m", timezone.now() - timedelta(seconds=age))

    assert over.end - over.start == pytest.approx(covered, abs=over.step)


def test_a_quiet_chart_shows_its_limit_rather_than_an_invented_scale() -> None:
    drawn = figure(read("failures", [line([0.0] * 61, name="5xx")]))

    assert drawn["layout"]["yaxis"]["range"] == pytest.approx([0, 6])


def test_one_spike_does_not_flatten_a_sparkline() -> None:
    points = sparkline(line([100.0] + [1.0] * 20), 1000, 1600, 10)

    lowest = {float(pair.split(",")[1]) for pair in points.split()[1:]}
    assert max(lowest) < 19  # of 24: a quarter of the height at least


def test_the_axis_has_the_unit_of_the_number_in_the_title() -> None:
    reading = read("ttft", [line([2.5] + [0.2] * 60)])

    assert show(reading.headline, "s") == ("200", "ms")
    assert figure(reading)["unit"] == "ms"
    assert max(figure(reading)["data"][0]["y"]) == 2500
