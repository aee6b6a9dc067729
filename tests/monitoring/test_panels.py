"""Every panel asks a query that Prometheus understands, for the right targets, and in the names vLLM really exports."""

from __future__ import annotations

import re
from pathlib import Path

import promql_parser
import pytest

from monitoring.panels import BY_ID, OVERVIEW_IDS, PANELS, Panel, Scope, columns, health

ONE = Scope.deployment(17, "search-x7k2p")
SOME = Scope.fleet(("search-x7k2p", "labs-q1w2e"), everything=False)
ALL = Scope.fleet((), everything=True)
METRICS = Path(__file__).parent.parent / "data" / "vllm-0.32.0" / "metrics.txt"


@pytest.mark.parametrize("scope", [ONE, SOME, ALL], ids=["one", "some", "all"])
@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.id)
def test_query_parses(panel: Panel, scope: Scope) -> None:
    promql_parser.parse(str(panel.build(scope, 60)))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.id)
def test_every_engine_metric_is_limited_to_the_deployment(panel: Panel) -> None:
    query = str(panel.build(ONE, 60))

    for name, selector in re.findall(r"\b(vllm:\w+|http_requests_total|up)(\{[^}]*\})?", query):
        assert 'slipway_dev_deployment="17"' in selector, f"{name} is not limited"
        assert 'namespace="search-x7k2p"' in selector


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.id)
def test_gpu_metrics_of_other_namespaces_are_never_read(panel: Panel) -> None:
    query = str(panel.build(ONE, 60))

    for name, selector in re.findall(r"\b(DCGM_\w+)\{([^}]*)\}", query):
        assert re.search(r'(exported_)?namespace=~"search\\\\-x7k2p"', selector), name


def test_the_newest_names_are_those_of_a_recorded_vllm() -> None:
    recorded = set(re.findall(r"^# TYPE (\S+)", METRICS.read_text(), re.MULTILINE))
    suffix = re.compile(r"_(bucket|sum|count)$")
    older = {"vllm:gpu_cache_usage_perc", "vllm:time_per_output_token_seconds"}
    older |= {"vllm:gpu_prefix_cache_hits_total", "vllm:gpu_prefix_cache_queries_total"}

    for panel in PANELS:
        for name in re.findall(r"\bvllm:\w+", str(panel.build(ONE, 60))):
            base = suffix.sub("", name)
            assert {base, base.removesuffix("_total")} & recorded or base in older, f"{panel.id}: {name}"


def test_the_floor_of_a_panel_is_the_first_bound_of_its_recorded_histogram() -> None:
    first: dict[str, float] = {}
    for name, bound in re.findall(r'^(\S+)_bucket\{.*?le="([^"]+)"', METRICS.read_text(), re.MULTILINE):
        first.setdefault(name, float(bound))

    floors = {panel.id: panel.floor for panel in PANELS if "histogram_quantile" in str(panel.build(ONE, 60))}
    asked = {
        panel.id: {
            first[name] for name in re.findall(r"\b(vllm:\w+)_bucket", str(panel.build(ONE, 60))) if name in first
        }
        for panel in PANELS
    }

    assert floors == {"ttft": 0.001, "tpot": 0.01, "itl": 0.01, "e2e": 0.3, "queue_time": 0.3}
    assert {panel: {floor} for panel, floor in floors.items()} == {panel: asked[panel] for panel in floors}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.id)
def test_no_gauge_is_drawn_on_where_nobody_scraped(panel: Panel) -> None:
    """A bare selector would repeat a value for five minutes after Prometheus stopped scraping."""
    engines = re.findall(r"\b(?:vllm:\w+|http_requests_total|up)\{[^}]*\}(.?)", str(panel.build(ONE, 60)))

    assert engines
    assert set(engines) == {"["}


def test_a_stranger_sees_only_the_own_namespaces() -> None:
    for query in [*columns(SOME, 60).values(), health(SOME, 60)]:
        assert 'namespace=~"labs\\\\-q1w2e|search\\\\-x7k2p"' in str(query)


def test_panels_are_named_once_and_the_overview_knows_them() -> None:
    assert len(BY_ID) == len(PANELS)
    assert set(OVERVIEW_IDS) <= set(BY_ID)
