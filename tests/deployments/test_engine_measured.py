"""Figures that an engine reports at its start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deployments.engine.measured import Measured, measured
from tests.deployments.pods import log

START = """
(EngineCore pid=7) INFO 11-25 12:01:30 [gpu_model_runner.py:1] Model loading took 14.99 GiB memory and 8.25 seconds
(EngineCore pid=7) INFO 11-25 12:01:36 [gpu_worker.py:497] Available KV cache memory: 3.81 GiB
(EngineCore pid=7) INFO 11-25 12:01:36 [kv_cache_utils.py:2327] GPU KV cache size: 31,232 tokens, Maximum concurrency \
for 20,000 tokens per request: 1.56x
(EngineCore pid=7) INFO 11-25 12:01:39 [gpu_model_runner.py:1] Graph capturing finished in 12 secs, took 0.54 GiB
"""


def test_figures_of_a_start():
    assert measured(START) == Measured(14.99, 8.25, 3.81, 31232, 20000, 1.56, 0.54)


def test_a_recorded_start_says_what_its_cache_holds():
    found = measured(log("success"))
    assert found.complete
    assert (found.kv_tokens, found.max_model_len, found.concurrency) == (46592, 2048, 22.75)


def test_older_engines_say_in_one_sentence_what_takes_the_memory():
    found = measured(
        "the current vLLM instance can use total_gpu_memory (39.50GiB) x gpu_memory_utilization (0.90) = 35.55GiB\n"
        "model weights take 14.96GiB; non_torch_memory takes 0.10GiB; PyTorch activation peak memory takes 9.37GiB; "
        "the rest of the memory reserved for KV Cache is 11.12GiB.\n"
    )
    assert (found.weights_gib, found.kv_gib, found.activation_gib, found.non_torch_gib) == (14.96, 11.12, 9.37, 0.1)


def test_a_failed_start_is_not_complete():
    assert not measured(log("unrecognized-flag")).complete


def test_of_two_starts_the_last_counts():
    assert measured(START + START.replace("31,232", "40,208")).kv_tokens == 40208


@given(text=st.text("0123456789,.-x ", max_size=40))
def test_no_log_breaks_the_reading(text: str):
    measured(f"GPU KV cache size: {text} tokens\nAvailable KV cache memory: {text} GiB\nModel loading took {text} GiB")
