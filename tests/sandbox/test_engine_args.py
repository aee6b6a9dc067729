"""The engine's command line is vLLM's own."""

import pytest

from sandbox.engine import args as cli
from sandbox.engine.errors import EngineExit
from tests.sandbox.engine_support import make_args, recorded_log


def refused(*words: str, model: str = "/mnt/models") -> EngineExit:
    with pytest.raises(EngineExit) as caught:
        cli.check_ranges(cli.parse(["vllm", "serve", model], list(words)))
    return caught.value


@pytest.mark.parametrize(
    ("recording", "words"),
    [
        ("swap-space", ["--swap-space", "4"]),
        ("unrecognized-flag", ["--use-v2-block-manager"]),
        ("bad-json", ["--kv-transfer-config", "{kv_connector:NixlConnector}"]),
        ("bool-dtype", ["--dtype", "int8"]),
    ],
)
def test_usage_errors_are_word_for_word_the_recorded_ones(recording, words):
    end = refused(*words)

    assert end.code == 2
    assert end.lines == recorded_log(recording)[1:]


def test_utilisation_out_of_range_ends_as_recorded():
    end = refused("--gpu-memory-utilization=1.5")

    assert end.code == 1
    assert end.lines == recorded_log("util-out-of-range")[-len(end.lines) :]
    assert end.lines[0].startswith("Traceback")


def test_a_boolean_flag_takes_no_value():
    assert "ignored explicit argument 'false'" in refused("--enable-prefix-caching=false").lines[-1]


def test_zero_tensor_parallel_is_refused_before_anything_starts():
    assert refused("--tensor-parallel-size=0").code == 1


@pytest.mark.parametrize(
    ("text", "tokens"), [("16384", 16384), ("1k", 1000), ("1K", 1024), ("25.6k", 25600), ("auto", -1), ("-1", -1)]
)
def test_sizes_are_read_as_vllm_reads_them(text, tokens):
    assert make_args(f"--max-model-len={text}").max_model_len == tokens


def test_underscores_and_dashes_are_the_same_flag():
    assert make_args("--max_model_len=4096", "--gpu_memory_utilization", "0.8").max_model_len == 4096


def test_later_arguments_win_as_kserve_appends_the_users():
    assert make_args("--max-model-len=1", "--max-model-len=2").max_model_len == 2


def test_only_the_servers_own_command_is_understood():
    with pytest.raises(LookupError):
        cli.parse(["python", "-m", "http.server"], [])
    with pytest.raises(LookupError):
        cli.parse(["/bin/sh", "-c", "vllm serve"], [])


def test_non_default_arguments_are_told_as_vllm_prints_them():
    assert make_args("--served-model-name=chat").non_default == {
        "port": 8080,
        "model": "/mnt/models",
        "served_model_name": ["chat"],
    }


def test_an_engine_over_several_nodes_counts_what_runs_here():
    words = ["--data-parallel-size", "16", "--data-parallel-size-local", "8", "--headless"]
    args = cli.parse(["vllm", "serve", "m"], words)

    assert (args.data_parallel, args.data_parallel_local, args.headless) == (16, 8, True)
    assert cli.parse(["vllm", "serve", "m"], ["--data-parallel-size=2"]).data_parallel_local == 2


def test_a_connector_is_read_from_its_configuration():
    config = '{"kv_connector":"NixlConnector","kv_role":"kv_producer"}'

    assert cli.parse(["vllm", "serve", "m"], ["--kv-transfer-config", config]).kv_connector == "NixlConnector"
    assert cli.parse(["vllm", "serve", "m"], []).kv_connector is None
