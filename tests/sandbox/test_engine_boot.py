"""An engine starts, or ends for the reason and with the words of the real one."""

import asyncio
import re

import pytest

from sandbox.nodes import GIB, H100
from tests.sandbox.engine_support import RECORDED, SMOLLM2, recorded_log, run_engine


def start(*words, **around):
    return asyncio.run(run_engine(words, **around))


def stripped(lines):
    """Log lines without process, time and padding of the recordings' own machine."""
    return [re.sub(r"\(\w+ pid=\d+\) |\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in lines]


@pytest.mark.parametrize(
    ("recording", "words"),
    [
        ("context-over-model", ["--max-model-len=100000", "--enforce-eager"]),
        ("heads-not-divisible", ["--max-model-len=2048", "--enforce-eager", "--tensor-parallel-size=2"]),
        ("quantization-mismatch", ["--max-model-len=2048", "--enforce-eager", "--quantization=awq"]),
    ],
)
def test_configuration_errors_end_as_recorded(recording, words):
    code, log = start(*words, model=SMOLLM2, gpus=2)

    theirs = recorded_log(recording)
    traceback = theirs[theirs.index("Traceback (most recent call last):") :]
    assert code == 1
    assert log[-len(traceback) :] == traceback


def test_a_directory_without_a_model_ends_as_recorded():
    code, log = start("--enforce-eager", model=None)

    theirs = recorded_log("no-config")
    assert code == 1
    assert log[-9:] == theirs[-9:]


def test_a_cache_too_small_for_one_request_ends_as_recorded():
    """The sentence and the frames are the recorded ones; the numbers are this model's on this GPU."""
    code, log = start("--gpu-memory-utilization=0.78")

    theirs = stripped(recorded_log("kv-too-small"))
    ours = stripped(log)
    begin = next(i for i, line in enumerate(ours) if "EngineCore failed to start." in line)
    their_begin = next(i for i, line in enumerate(theirs) if "EngineCore failed to start." in line)

    def without_numbers(lines):
        return [re.sub(r"\d[\d.]*", "N", line) for line in lines]

    assert code == 1
    assert without_numbers(ours[begin:]) == without_numbers(theirs[their_begin:])
    assert "max seq len (32768), (1.75 GiB KV cache is needed" in "\n".join(ours)


def test_no_memory_left_for_the_cache_says_so():
    code, log = start("--gpu-memory-utilization=0.6")

    assert code == 1
    assert any("ValueError: No available memory for the cache blocks." in line for line in log)


def test_weights_larger_than_the_gpu_are_an_out_of_memory_error_of_cuda():
    code, log = start(model="Qwen/Qwen2.5-14B-Instruct")

    assert code == 1
    assert any(line.startswith("torch.OutOfMemoryError: CUDA out of memory.") for line in log)
    assert not any("kv_cache_utils" in line for line in log)


def test_more_ranks_than_gpus_are_refused():
    code, log = start("-tp=4", gpus=2)

    assert code == 1
    assert any("World size (4) is larger than the number of available GPUs (2)" in line for line in log)


def test_too_little_host_memory_is_killed_by_the_kernel():
    code, log = start(memory_limit=1 * GIB)

    assert code == 137
    assert "Traceback" not in "\n".join(log)


def test_the_long_context_variable_is_obeyed():
    longer = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    code, _ = start("--max-model-len=40000", "--port=8080", ip="127.77.3.3", until=_nothing, environment=longer)

    assert code == 0


async def _nothing(process, http):
    return None


def test_a_start_prints_the_lines_that_the_real_one_prints():
    code, log = start("--served-model-name=chat", "--port=8080", ip="127.77.3.1", until=_nothing, gpu=H100)

    text = "\n".join(log)
    recorded = (RECORDED / "success.log").read_text()
    assert code == 0
    for shared in (
        "Resolved architecture: ",
        "Using max model len ",
        "Starting to load model /mnt/models...",
        "Supported tasks: ['generate']",
        "Available routes are:",
        "INFO:     Application startup complete.",
    ):
        assert shared in recorded
        assert shared in text
    assert re.search(r"Model loading took 14\.2\d GiB memory and \d+\.\d+ seconds", text)
    assert re.search(r"Available KV cache memory: \d+\.\d\d GiB", text)
    pattern = r"KV cache size: [\d,]+ tokens, Maximum concurrency for [\d,]+ tokens per request: \d+\.\d\dx"
    assert re.search(pattern, recorded)
    assert re.search("GPU " + pattern, text)
    assert "Graph capturing finished in" in text
    assert "[shutdown] API server: shutdown triggered" in text


def test_an_automatic_context_shrinks_to_what_fits():
    async def ask(process, http):
        answer = await http.get("http://127.77.3.2:8080/v1/models")
        assert 20_000 < answer.json()["data"][0]["max_model_len"] < 32_768

    code, log = start(
        "--port=8080", "--max-model-len=auto", "--gpu-memory-utilization=0.77", ip="127.77.3.2", until=ask
    )

    assert code == 0
    assert any("Auto-fit max_model_len: reduced from 32768 to" in line for line in log)
