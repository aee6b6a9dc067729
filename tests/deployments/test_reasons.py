"""Typed causes from logs, pods, events and statuses: recorded logs, and what a kubelet would write."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.kube.cluster_causes import from_service
from deployments.kube.diagnose import diagnose
from deployments.kube.log_causes import from_log
from deployments.kube.log_patterns import last_error
from deployments.kube.observe import service_view
from deployments.kube.pod_causes import unschedulable
from deployments.kube.reasons import Code, Weight
from tests.deployments.pods import (
    DONE,
    LOGS,
    QUOTA_SENTENCE,
    RUNNING,
    crashed,
    event,
    first,
    log,
    pod,
    seen,
    terminated,
    waiting,
)

RECORDED_LOGS: dict[str, tuple[Code | None, str, Any]] = {
    "bad-json": (Code.BAD_VALUE, "kv_transfer_config", None),
    "bool-dtype": (Code.BAD_VALUE, "dtype", "auto"),
    "context-over-model": (Code.CONTEXT_TOO_LONG, "max_model_len", 8192),
    "heads-not-divisible": (Code.HEADS_NOT_DIVISIBLE, "tensor_parallel_size", 1),
    "hub-unreachable": (Code.HUB_UNREACHABLE, "", None),
    "kv-too-small": (Code.KV_CACHE_TOO_SMALL, "max_model_len", 46464),
    "memory-too-small": (Code.GPU_MEMORY, "kv_cache_memory_bytes", 14 * 1024**3),
    "no-config": (Code.MODEL_FILES, "source_uri", None),
    "quantization-mismatch": (Code.QUANTIZATION, "quantization", None),
    "success": (None, "", None),
    "swap-space": (Code.UNKNOWN_FLAG, "swap_space", None),
    "unrecognized-flag": (Code.UNKNOWN_FLAG, "use_v2_block_manager", None),
    "util-out-of-range": (Code.BAD_VALUE, "gpu_memory_utilization", 0.92),
}


def test_every_recorded_log_has_an_expected_cause():
    assert {path.stem for path in LOGS.glob("*.log")} == set(RECORDED_LOGS)


@pytest.mark.parametrize("name", RECORDED_LOGS)
def test_a_recorded_log_names_its_cause_field_and_value(name: str):
    code, field, value = RECORDED_LOGS[name]
    reason = from_log(log(name))
    if code is None:
        assert reason is None
        return
    assert reason is not None
    assert (reason.code, reason.field, reason.value) == (code, field, value)
    assert reason.title.endswith(".")
    assert reason.remedy
    assert reason.evidence


@pytest.mark.parametrize("name", [name for name, (code, _, _) in RECORDED_LOGS.items() if code])
def test_a_crash_loop_is_explained_by_the_log_of_its_previous_run(name: str):
    reason = first(crashed(), logs={"chat-predictor-5b-aaaaa": log(name)})
    assert (reason.code, reason.weight) == (RECORDED_LOGS[name][0], Weight.FAILED)
    assert (reason.pod, reason.numbers["restarts"]) == ("chat-predictor-5b-aaaaa", 3)


@pytest.mark.parametrize(
    ("text", "code", "field", "value"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 896.00 MiB. GPU 0 has a total capacity "
            "of 22.03 GiB of which 500 MiB is free.",
            Code.GPU_MEMORY,
            "tensor_parallel_size",
            None,
        ),
        (
            "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests. Please try "
            "lowering `max_num_seqs` or `gpu_memory_utilization`",
            Code.GPU_MEMORY,
            "max_num_seqs",
            512,
        ),
        ("ValueError: No available memory for the cache blocks.", Code.GPU_MEMORY, "gpu_memory_utilization", 0.95),
        (
            "ValueError: Free memory on device cuda:0 (7.1/22.03 GiB) on startup is less than desired GPU memory "
            "utilization (0.92, 20.27 GiB). Decrease GPU memory utilization",
            Code.GPU_BUSY,
            "gpu_memory_utilization",
            0.32,
        ),
        (
            "ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (4.91 GiB).",
            Code.KV_CACHE_TOO_SMALL,
            "max_model_len",
            39936,
        ),
        (
            "ValueError: Quantization method specified in the model config (fp8) does not match the quantization "
            "method specified in the `quantization` argument (awq).",
            Code.QUANTIZATION,
            "quantization",
            "fp8",
        ),
        (
            "ValueError: The quantization method modelopt is not supported for the current GPU. Minimum capability: "
            "89. Current capability: 80.",
            Code.QUANTIZATION,
            "flavor",
            None,
        ),
        (
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4",
            Code.BAD_VALUE,
            "dtype",
            "half",
        ),
        (
            "ValueError: max_num_batched_tokens (512) must be greater than or equal to max_num_seqs (1024).",
            Code.BAD_VALUE,
            "max_num_batched_tokens",
            1024,
        ),
        (
            "ValueError: World size (4) is larger than the number of available GPUs (2) in this node.",
            Code.BAD_VALUE,
            "tensor_parallel_size",
            2,
        ),
        (
            "ValueError: The repository contains custom code. Please pass the argument `trust_remote_code=True`.",
            Code.REMOTE_CODE,
            "trust_remote_code",
            True,
        ),
        (
            "ValueError: Model architectures ['FooForCausalLM'] are not supported for now.",
            Code.MODEL_FILES,
            "source_uri",
            None,
        ),
        (
            "ValueError: Model architecture MPTForCausalLM was supported in vLLM until v0.28.0, and is not supported "
            "anymore. Please use an older version of vLLM if you want to use this model architecture.",
            Code.MODEL_FILES,
            "source_uri",
            None,
        ),
        (
            "ValueError: The checkpoint you are trying to load has model type `odd` but Transformers does not "
            "recognize this architecture. This could be because of an issue with the checkpoint",
            Code.MODEL_FILES,
            "source_uri",
            None,
        ),
        (
            "ValueError: Unrecognized model in /mnt/models. Should have a `model_type` key in its config.json.",
            Code.MODEL_FILES,
            "source_uri",
            None,
        ),
        (
            "KeyError: 'invalid tool call parser: minimax (chose from { apertus,hermes })'",
            Code.BAD_VALUE,
            "tool_call_parser",
            None,
        ),
        (
            "KeyError: 'invalid reasoning parser: odd-1 (chose from { glm45 })'",
            Code.BAD_VALUE,
            "reasoning_parser",
            None,
        ),
        ("KeyError: 'getpwuid(): uid not found: 1000'", Code.NO_USER_NAME, "", None),
        (
            "api_server.py: error: unrecognized arguments: --enable-flash-attention",
            Code.UNKNOWN_FLAG,
            "enable_flash_attention",
            None,
        ),
        ("api_server.py: error: argument --max-num-seqs: invalid int value: 'x'", Code.BAD_VALUE, "max_num_seqs", None),
    ],
)
def test_what_engines_say_is_understood(text: str, code: Code, field: str, value: Any):
    reason = from_log(f"INFO 11-25 loading\n(EngineCore pid=1) ERROR 11-25 12:00:00 [core.py:1] {text}\nbye\n")
    if code is Code.KV_CACHE_TOO_SMALL:
        # An older sentence, without the estimate: the value is computed and must not exceed what is there.
        assert reason is not None
        assert (reason.code, reason.field) == (code, field)
        assert 30_000 < int(str(reason.value)) <= 131072 * 4.91 / 16
        return
    assert reason is not None
    assert (reason.code, reason.field, reason.value) == (code, field, value)
    assert reason.evidence.startswith(text[:20])


@pytest.mark.parametrize(
    ("words", "code", "field"),
    [
        ("RuntimeError: 401 Client Error. Access to model is restricted.", Code.MODEL_ACCESS, "credential"),
        ("huggingface_hub.errors.GatedRepoError: 403 Client Error.", Code.MODEL_ACCESS, "credential"),
        ("huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.", Code.MODEL_NOT_FOUND, "source_uri"),
        (
            "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: x)\n\nRepository Not Found "
            "for url: u.\nIf you are trying to access a private or gated repo, make sure you are authenticated.",
            Code.MODEL_NOT_FOUND,
            "source_uri",
        ),
        ("huggingface_hub.errors.EntryNotFoundError: 404 Client Error.", Code.MODEL_NOT_FOUND, "source_uri"),
        ("huggingface_hub.errors.LocalEntryNotFoundError: An error happened", Code.HUB_UNREACHABLE, ""),
        ("huggingface_hub.errors.RevisionNotFoundError: 404 Client Error.", Code.MODEL_NOT_FOUND, "source_revision"),
        ("Exception: Cannot recognize storage type for models:/chat/3", Code.MODEL_SCHEME, "source_uri"),
        ("OSError: [Errno 28] No space left on device", Code.DOWNLOAD_DISK, ""),
        (
            "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries "
            "exceeded with url: /api/models/a/b",
            Code.HUB_UNREACHABLE,
            "",
        ),
        ("ValueError: something nobody has seen before", Code.DOWNLOAD_FAILED, "source_uri"),
    ],
)
def test_a_failed_download_is_explained_by_its_last_words(words: str, code: Code, field: str):
    trace = f'Traceback (most recent call last):\n  File "x", line 14, in <module>\n{words}'
    ended = first(pod(init=terminated(1, "Error", trace), engine=waiting("PodInitializing")))
    backing_off = first(pod(init=waiting("CrashLoopBackOff"), init_last=terminated(1, "Error", trace), restarts=4))
    for reason in (ended, backing_off):
        assert (reason.code, reason.field, reason.weight) == (code, field, Weight.FAILED)
        assert words[:30] in reason.evidence


def test_a_download_killed_for_memory_is_no_gpu_matter():
    reason = first(pod(init=waiting("CrashLoopBackOff"), init_last=terminated(137, "OOMKilled")))
    assert reason.code is Code.DOWNLOAD_MEMORY


@pytest.mark.parametrize(
    ("message", "code", "field"),
    [
        (
            "0/4 nodes are available: 1 Insufficient nvidia.com/gpu, 3 node(s) didn't match Pod's node "
            "affinity/selector. no new claims to deallocate, preemption: 0/4 nodes are available: 4 Preemption is not "
            "helpful for scheduling.",
            Code.NO_FREE_GPU,
            "flavor",
        ),
        (
            "0/4 nodes are available: 4 node(s) didn't match Pod's node affinity/selector.",
            Code.NO_MATCHING_NODE,
            "flavor",
        ),
        (
            "0/2 nodes are available: 2 node(s) had untolerated taint {nvidia.com/gpu: present}.",
            Code.NO_MATCHING_NODE,
            "flavor",
        ),
        ("0/2 nodes are available: 1 Insufficient cpu, 2 Insufficient memory.", Code.NODE_FULL, ""),
        ("running PreBind plugin failed", Code.UNSCHEDULABLE, ""),
    ],
)
def test_why_the_scheduler_found_no_node(message: str, code: Code, field: str):
    reason = first(pod(scheduled=message))
    assert (reason.code, reason.field, reason.weight) == (code, field, Weight.STALLED)
    assert reason.evidence == message


def test_a_volume_claim_that_is_not_there():
    # As kube-scheduler 1.36 says it (kserve-0.20.0/bad-specs.yaml, uri-pvc-missing).
    reason = first(pod(scheduled='0/1 nodes are available: persistentvolumeclaim "models" not found. not found'))
    assert (reason.code, reason.weight, reason.field) == (Code.VOLUME, Weight.STALLED, "source_uri")
    assert "“models”" in reason.title


def test_the_schedulers_numbers_are_taken_along():
    reason = unschedulable("0/4 nodes are available: 4 Insufficient nvidia.com/gpu.", gpus=2)
    assert reason.numbers == {"nodes": 4, "gpus": 2}
    assert "2 free GPUs" in reason.title


@pytest.mark.parametrize("why", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled(why: str):
    assert first(pod(init=DONE, engine=waiting(why, "manifest unknown"))).code is Code.IMAGE_PULL
    assert first(pod(init=waiting(why))).code is Code.IMAGE_PULL


@pytest.mark.parametrize(
    ("given_pod", "events", "code", "weight"),
    [
        (pod(init=RUNNING), [], Code.DOWNLOADING, Weight.PROGRESS),
        (pod(init=DONE, engine=RUNNING), [], Code.STARTING, Weight.PROGRESS),
        (pod(), [], Code.PULLING, Weight.PROGRESS),
        (pod(init=waiting("PodInitializing"), engine=waiting("PodInitializing")), [], Code.PULLING, Weight.PROGRESS),
        (pod(), [event("FailedMount", "no such claim")], Code.VOLUME, Weight.STALLED),
        (pod(init=DONE, engine=waiting("CreateContainerConfigError")), [], Code.CONFIG, Weight.FAILED),
        (crashed(code=137, reason="OOMKilled"), [], Code.HOST_MEMORY, Weight.FAILED),
        (
            pod(init=DONE, engine=waiting("CrashLoopBackOff"), engine_last=terminated(137), restarts=1),
            [event("Killing", "Container kserve-container failed startup probe, will be restarted")],
            Code.START_TOO_SLOW,
            Weight.FAILED,
        ),
        (pod(phase="Failed", reason="UnexpectedAdmissionError"), [], Code.DEVICE_PLUGIN, Weight.FAILED),
        (pod(phase="Failed", reason="Evicted"), [], Code.EVICTED, Weight.FAILED),
        (crashed("odd words"), [], Code.ENGINE_CRASH, Weight.FAILED),
    ],
)
def test_what_a_pod_goes_through(given_pod: dict[str, Any], events: list[dict[str, Any]], code: Code, weight: Weight):
    reason = first(given_pod, events=events)
    assert (reason.code, reason.weight) == (code, weight)


def test_an_engine_that_came_back_after_a_crash_still_tells_of_it():
    words = "ValueError: No available memory for the cache blocks."
    again = pod(init=DONE, engine=RUNNING, engine_last=terminated(1, "Error", words), restarts=2)
    assert first(again).code is Code.GPU_MEMORY


def test_a_ready_pod_has_nothing_to_say():
    assert diagnose(seen(pod(init=DONE, engine=RUNNING, ready=True))) == []


def test_a_pod_that_is_leaving_is_not_asked():
    assert diagnose(seen(pod(engine=waiting("CrashLoopBackOff"), terminating=True))) == []


def test_quota_is_read_from_the_workload_where_no_pod_exists():
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": QUOTA_SENTENCE}
    reason = first(workload={"conditions": [condition]})
    assert (reason.code, reason.weight, reason.field) == (Code.QUOTA_EXCEEDED, Weight.BLOCKED, "replicas_max")
    assert {name: reason.numbers[name] for name in ("asked", "used", "limit")} == {"asked": 2, "used": 3, "limit": 4}


def test_pod_security_and_other_refusals_are_told_apart():
    def refused(message: str) -> Code:
        condition = {"type": "ReplicaFailure", "status": "True", "message": message}
        return first(workload={"conditions": [condition]}).code

    assert refused('pods "x" is forbidden: violates PodSecurity "restricted:latest": ...') is Code.POD_SECURITY
    assert refused('pods "x" is forbidden: error looking up service account a/b') is Code.PODS_REFUSED


def test_a_slow_rollout_is_told_only_where_nothing_else_is_wrong():
    slow = {"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}
    assert [reason.code for reason in diagnose(seen(pod(init=RUNNING), workload=slow))] == [
        Code.ROLLOUT_SLOW,
        Code.DOWNLOADING,
    ]
    assert diagnose(seen(crashed(), workload=slow))[0].code is Code.ENGINE_CRASH
    assert diagnose(seen(pod(init=DONE, engine=RUNNING, ready=True), workload=slow)) == []


def test_a_settled_service_is_not_blamed_for_an_old_event():
    service = service_view({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    assert from_service(service, ()) is None


def test_the_weightiest_reason_comes_first_and_equal_ones_once():
    reasons = diagnose(seen(pod("a", init=RUNNING), crashed(), pod("c", init=RUNNING)))
    assert [reason.code for reason in reasons] == [Code.ENGINE_CRASH, Code.DOWNLOADING]


def test_the_log_of_a_crash_says_more_than_its_last_words():
    assert diagnose(seen(crashed(log("kv-too-small")[-2048:])))[0].code is Code.ENGINE_CRASH
    told = seen(crashed(), logs={"chat-predictor-5b-aaaaa": log("kv-too-small")})
    assert diagnose(told)[0].code is Code.KV_CACHE_TOO_SMALL


def test_only_the_pods_of_a_revision_are_asked_for_it():
    old = pod("a", init=DONE, engine=waiting("CrashLoopBackOff"), engine_last=terminated(1), revision=1)
    new = pod("b", init=RUNNING, revision=2)
    assert [reason.code for reason in diagnose(seen(old, new), 2)] == [Code.DOWNLOADING]


def test_the_last_error_of_an_unknown_log_becomes_the_evidence():
    text = "INFO ok\n(EngineCore pid=3) ERROR 11-25 11:59:28 [core.py:1510] FooError: strange\nexit=1\n"
    assert last_error(text) == "FooError: strange"
    assert first(crashed(), logs={"chat-predictor-5b-aaaaa": text}).evidence == "FooError: strange"


@given(text=st.text(max_size=300))
def test_no_log_breaks_the_reading_and_sentences_keep_hostile_text_out(text: str):
    reason = from_log(f"error: unrecognized arguments: --{text}")
    if reason is not None:
        assert "<" not in reason.title
        assert "\n" not in reason.title
    from_log(text)
    last_error(text)


SENTENCES = [
    "max seq len ({}), ({} GiB KV cache is needed, which is larger than the available KV cache memory ({} GiB). Based "
    "on the available memory, the estimated maximum model length is {}.",
    "max seq len ({}), ({} GiB KV cache is needed, which is larger than the available KV cache memory ({} GiB).{}",
    "Free memory on device cuda:0 ({}/{} GiB) on startup is less than desired GPU memory utilization ({}, {} GiB).",
    "Available memory on node 0 ({}/{} GiB) on kv cache allocation is less than requested memory for kv ({} GiB){}",
    "User-specified max_model_len ({}) is greater than the derived max_model_len (max_position_embeddings={} {}{}",
    "attention heads ({}) must be divisible by tensor parallel size ({}){}{}",
    "max_num_batched_tokens ({}) must be greater than or equal to max_num_seqs ({}){}{}",
    "World size ({}) is larger than the number of available GPUs ({}){}{}",
    "quantization method fp8 is not supported for the current GPU. Minimum capability: {}{}{}{}",
    "CUDA out of memory. Tried to allocate {} GiB. GPU 0 has a total capacity of {} GiB{}{}",
    "out of memory occurred when warming up sampler with {} dummy requests{}{}{}",
]
NUMBER = st.sampled_from(
    ["0", "1", ",", ".", "1,", "1.", "0.0", "-1", "1.2.3", "9" * 5000, "٣", "12,345", "7.5", "nan"]
)


@given(sentence=st.sampled_from(SENTENCES), numbers=st.tuples(NUMBER, NUMBER, NUMBER, NUMBER))
def test_odd_numbers_in_known_sentences_break_nothing(sentence: str, numbers: tuple[str, ...]):
    from_log(sentence.format(*numbers))


@given(message=st.text(max_size=200))
def test_no_sentence_of_the_scheduler_breaks_the_reading(message: str):
    unschedulable(f"0/4 nodes are available: {message}")
