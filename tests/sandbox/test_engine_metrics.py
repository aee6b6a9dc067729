"""The engine exposes exactly what a real vLLM 0.32.0 exposes."""

import pytest

from sandbox.engine.metrics import Registry, buckets_1_2_5, cache_config_labels
from tests.sandbox.engine_support import CREATED, RECORDED

HANDLER = "/v1/chat/completions"


def names(text: str) -> list[str]:
    """Comments as they are, samples without their values."""
    return [line if line.startswith("#") else line.rsplit(" ", 1)[0] for line in text.splitlines()]


def served_registry() -> Registry:
    """A registry after one good and one bad request, as when the recording was made."""
    registry = Registry("smollm2-135m", 2048, CREATED)
    registry["vllm:cache_config_info"].child(**cache_config_labels({})).value = 1
    for status in ("2xx", "4xx"):
        registry.value("http_requests_total", handler=HANDLER, method="POST", status=status).inc()
    for name in ("http_request_size_bytes", "http_response_size_bytes"):
        registry[name].child(handler=HANDLER).observe(10)
    registry.histogram("http_request_duration_seconds", handler=HANDLER, method="POST").observe(0.2)
    return registry


def test_families_labels_and_buckets_are_those_recorded():
    recorded = (RECORDED / "metrics.txt").read_text()

    assert names(served_registry().text()) == names(recorded)


def test_numbers_are_printed_as_prometheus_client_prints_them():
    registry = served_registry()
    registry.value("vllm:prompt_tokens_total").inc(2335072256)
    registry.value("vllm:generation_tokens_total").inc(3835)

    text = registry.text()

    assert 'vllm:prompt_tokens_total{engine="0",model_name="smollm2-135m"} 2.335072256e+09\n' in text
    assert 'vllm:generation_tokens_total{engine="0",model_name="smollm2-135m"} 3835.0\n' in text


def test_histograms_are_cumulative_and_count_what_was_observed():
    registry = Registry("m", 100, CREATED)
    ttft = registry.histogram("vllm:time_to_first_token_seconds")

    ttft.observe(0.3, count=3)
    ttft.observe(5000.0)

    lines = [line for line in registry.text().splitlines() if line.startswith("vllm:time_to_first_token_seconds_")]
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}
    labels = 'engine="0",{}model_name="m"'
    assert values["vllm:time_to_first_token_seconds_bucket{" + labels.format('le="0.25",') + "}"] == 0
    assert values["vllm:time_to_first_token_seconds_bucket{" + labels.format('le="0.5",') + "}"] == 3
    assert values["vllm:time_to_first_token_seconds_bucket{" + labels.format('le="2560.0",') + "}"] == 3
    assert values["vllm:time_to_first_token_seconds_bucket{" + labels.format('le="+Inf",') + "}"] == 4
    assert values["vllm:time_to_first_token_seconds_count{" + labels.format("") + "}"] == 4
    assert values["vllm:time_to_first_token_seconds_sum{" + labels.format("") + "}"] == pytest.approx(5000.9)


def test_an_observation_on_a_bound_belongs_to_that_bucket():
    registry = Registry("m", 100, CREATED)
    registry.histogram("vllm:request_params_n").observe(1.0)

    assert 'vllm:request_params_n_bucket{engine="0",le="1.0",model_name="m"} 1.0' in registry.text()


@pytest.mark.parametrize(("most", "last"), [(2048, 2000.0), (16384, 10000.0), (131072, 100000.0), (4, 2.0)])
def test_token_buckets_end_at_the_context(most, last):
    assert buckets_1_2_5(most)[-1] == last


def test_label_values_are_escaped():
    registry = Registry('a"b\\c', 100, CREATED)

    assert 'model_name="a\\"b\\\\c"' in registry.text()
