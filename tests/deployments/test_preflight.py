"""Each rule of preflight: what it says, at which field, with which proposal, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engine.profiles import EngineProfile
from deployments.findings import Finding, Severity
from deployments.preflight import (
    RULES,
    ClusterFacts,
    CredentialFacts,
    Facts,
    FlavorFacts,
    QuotaFacts,
    check,
    check_raw,
    estimate,
)
from deployments.sources import SourceCheck, SourceCode
from deployments.spec import DeploymentSpec
from tests.deployments.wishes import FLAVORS, H100, L4, LLAMA, facts_of, roles_json, spec_json, spec_of

GATED = dataclasses.replace(LLAMA, gated=True)
PROFILE = EngineProfile("vllm-0.32.0", "0.32.0", "vllm/vllm-openai@sha256:" + "0" * 64)


def findings(name: str = "chat", facts: Facts | None = None, **spec: Any) -> list[Finding]:
    return check(spec_of(**spec), name, "search", facts or facts_of())


def the(code: str, found: list[Finding]) -> Finding:
    matching = [finding for finding in found if finding.code == code]
    assert len(matching) == 1, [finding.code for finding in found]
    return matching[0]


def without(found: list[Finding], *codes: str) -> list[str]:
    return [finding.code for finding in found if finding.code not in codes]


def test_a_plain_request_has_nothing_to_complain_about():
    assert findings() == []


def test_every_rule_runs_on_the_same_case_and_none_is_registered_twice():
    assert len(RULES) >= 40
    assert len(set(RULES)) == len(RULES)


@pytest.mark.parametrize(
    ("name", "code", "value"),
    [
        ("", "name_required", None),
        ("Chat", "name_form", "chat"),
        ("my chat!", "name_form", "my-chat"),
        ("chat-", "name_form", "chat"),
        ("7b", "name_form", "b"),
        ("chat\n", "name_form", "chat"),
        ("日本", "name_form", None),
        ("a" * 41, "name_length", None),
        ("vllm", "name_reserved", None),
        ("kubernetes", "name_reserved", None),
        ("chat-predictor", "name_reserved", None),
    ],
)
def test_a_name_must_be_one_the_cluster_takes(name: str, code: str, value: str | None):
    finding = the(code, findings(name))
    assert (finding.field, finding.value, finding.is_error) == ("name", value, True)


@pytest.mark.parametrize("name", ["a", "chat", "chat-7b", "a" * 40])
def test_a_good_name_is_taken(name: str):
    assert findings(name) == []


def test_a_taken_name_is_told():
    assert the("name_taken", findings(facts=facts_of(name_taken=True))).field == "name"


def test_name_and_namespace_must_fit_one_label():
    namespace = "s" * 30
    fits = findings("a" * 32, facts_of(namespace=namespace))
    finding = the("name_too_long_here", findings("a" * 33, facts_of(namespace=namespace)))
    assert fits == []
    assert "at most 32" in finding.remedy


def test_an_entry_that_nobody_resolved_is_refused():
    assert the("source_unresolved", findings(source={"uri": "models:/chat/3"})).field == "source_uri"
    away = SourceCheck(SourceCode.UNREACHABLE, "MLflow could not be asked.", "Later.")
    assert the(
        "source_unresolved", findings(facts=facts_of(source_check=away), source={"uri": "models:/chat/3"})
    ).is_error


@pytest.mark.parametrize(
    ("code", "field", "severity"),
    [
        (SourceCode.NOT_FOUND, "source_uri", Severity.ERROR),
        (SourceCode.UNUSABLE, "source_uri", Severity.ERROR),
        (SourceCode.GATED, "credential", Severity.ERROR),
        (SourceCode.BAD_TOKEN, "credential", Severity.ERROR),
        (SourceCode.UNREACHABLE, "source_uri", Severity.WARNING),
    ],
)
def test_what_the_hub_said_stands_at_its_field(code: SourceCode, field: str, severity: Severity):
    facts = facts_of(source_check=SourceCheck(code, "Said.", "Do.", LLAMA))
    finding = the(f"source_{code.value}", findings(facts=facts))
    assert (finding.field, finding.severity, finding.message) == (field, severity, "Said.")


def test_a_gated_model_needs_a_credential():
    finding = the("source_gated", findings(facts=facts_of(model=GATED)))
    assert (finding.field, finding.is_error) == ("credential", True)
    source = {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "credential": "hf"}
    assert findings(facts=facts_of(model=GATED, credentials={"hf": CredentialFacts(asked=True)}), source=source) == []


def test_a_gated_model_is_told_once():
    checked = SourceCheck(SourceCode.GATED, "Gated.", "Do.", GATED)
    the("source_gated", findings(facts=facts_of(model=GATED, source_check=checked)))


def test_a_credential_of_another_team_is_unknown():
    source = {"uri": "hf://a/b", "credential": "theirs"}
    assert the("credential_unknown", findings(source=source)).field == "credential"


def test_an_unknown_flavor_is_answered_with_those_offered():
    finding = the("flavor_unknown", findings(flavor="h200"))
    assert "a100, h100, l4, t4" in finding.remedy
    disabled = facts_of(flavors={**FLAVORS, "h100": dataclasses.replace(H100, enabled=False)})
    assert the("flavor_unknown", findings(facts=disabled)).field == "flavor"


def test_without_quota_the_flavor_is_not_for_this_team():
    for quotas in ({}, {"h100": QuotaFacts(0)}):
        finding = the("quota_none", findings(facts=facts_of(quotas=quotas)))
        assert (finding.field, finding.is_error) == ("flavor", False)
        assert "approved, it waits until the team's quota is raised" in finding.remedy


def test_more_than_the_quota_leaves_is_told_with_numbers_and_a_proposal():
    facts = facts_of(quotas={"h100": QuotaFacts(limit=8, reserved=3)})
    finding = the("quota_exceeded", findings(facts=facts, replicas={"min": 6, "max": 6}))
    assert "needs 6 GPUs" in finding.message
    assert "5 left of 8" in finding.message
    assert (finding.field, finding.value, finding.is_error) == ("replicas_max", 5, False)
    assert finding.also == (("/spec/replicas/min", 5),)
    assert "it waits until the team has GPUs free" in finding.remedy
    more = the("quota_exceeded", findings(facts=facts, replicas={"min": 9, "max": 9}))
    assert "it waits until the team's quota is raised" in more.remedy


def test_an_edit_counts_what_the_deployment_already_holds():
    facts = facts_of(quotas={"h100": QuotaFacts(limit=4, reserved=4, held=2)})
    assert findings(facts=facts, replicas={"min": 2, "max": 2}) == []


def test_one_replica_must_fit_a_node():
    finding = the("gpus_per_node", findings(args={"max-model-len": 8192, "tensor-parallel-size": 8}))
    assert (finding.field, finding.value) == ("tensor_parallel_size", 4)


def test_a_full_cluster_is_a_warning_only():
    full = facts_of(flavors={**FLAVORS, "h100": dataclasses.replace(H100, free=0)})
    assert the("no_room_now", findings(facts=full)).severity is Severity.WARNING
    pieces = dataclasses.replace(L4, free=6, largest_free_block=3)
    args = {"max-model-len": 8192, "tensor-parallel-size": 4}
    found = findings(facts=facts_of(flavors={"l4": pieces}), flavor="l4", args=args)
    assert the("no_block_now", found).severity is Severity.WARNING


def test_an_unseen_cluster_says_nothing_of_free_gpus():
    unseen = facts_of(
        flavors={"h100": dataclasses.replace(H100, free=None)}, cluster=ClusterFacts(seen=False, sandbox=True)
    )
    assert without(findings(facts=unseen)) == ["cluster_unseen"]


def test_a_missing_part_of_the_cluster_is_named():
    facts = facts_of(cluster=ClusterFacts(sandbox=True, missing=("KServe",)))
    assert "KServe" in the("cluster_missing", findings(facts=facts)).message


@pytest.mark.parametrize(
    ("wish", "pointer", "least"),
    [
        (roles_json(prefill={"replicas": {"min": 1, "max": 2}}), "/spec/prefill/replicas/max", 1),
        (
            roles_json(prefill={"replicas": {"min": 1, "max": 2}}, decode={"replicas": {"min": 3, "max": 9}}),
            "/spec/decode/replicas/max",
            3,
        ),
        (spec_json(replicas={"min": 2, "max": 3}), "/spec/replicas/max", 2),
    ],
)
def test_a_range_says_what_it_means_while_nobody_knows_what_the_cluster_scales_by(
    wish: dict[str, Any], pointer: str, least: int
):
    spec = DeploymentSpec.from_json(wish)
    unseen = facts_of(cluster=ClusterFacts(seen=False, sandbox=True))
    finding = the("replicas_fixed", check(spec, "chat", "search", unseen))
    assert (finding.severity, finding.pointer, finding.value) == (Severity.INFO, pointer, least)
    assert f"would run {least} replica" in finding.message
    # A cluster that was seen scales: nothing to say.
    assert "replicas_fixed" not in {each.code for each in check(spec, "chat", "search", facts_of())}


def test_a_fixed_number_needs_no_autoscaler():
    unseen = facts_of(cluster=ClusterFacts(seen=False, sandbox=True))
    for wish in (roles_json(), spec_json(replicas={"min": 2, "max": 2})):
        found = check(DeploymentSpec.from_json(wish), "chat", "search", unseen)
        assert "replicas_fixed" not in {each.code for each in found}


@pytest.mark.parametrize(
    ("profile", "code"),
    [
        (None, "profile_unknown"),
        (dataclasses.replace(PROFILE, version="9.9.9"), "profile_flags"),
        (dataclasses.replace(PROFILE, image="vllm/vllm-openai:latest"), "profile_not_pinned"),
    ],
)
def test_an_engine_must_be_known_and_pinned(profile: EngineProfile | None, code: str):
    facts = facts_of(profiles={"vllm-0.32.0": profile} if profile else {})
    assert the(code, findings(facts=facts)).field == "profile"


def test_the_sandbox_digest_is_refused_on_a_real_cluster():
    real = facts_of(cluster=ClusterFacts(sandbox=False))
    assert the("profile_sandbox_only", findings(facts=real)).is_error
    assert findings(facts=dataclasses.replace(real, profiles={"vllm-0.32.0": PROFILE})) == []


@pytest.mark.parametrize(
    ("args", "code", "severity"),
    [
        ({"swap-space": 4}, "flag_removed", Severity.ERROR),
        ({"max-lenght": 4}, "flag_unknown", Severity.ERROR),
        ({"middleware": "x"}, "flag_forbidden", Severity.ERROR),
        ({"port": 1}, "flag_managed", Severity.ERROR),
        ({"trust-remote-code": True}, "flag_guarded", Severity.WARNING),
        ({"max-num-seqs": 0}, "flag_range", Severity.ERROR),
        ({"enforce-eager": "yes"}, "flag_type", Severity.ERROR),
        ({"dtype": "int8"}, "flag_choice", Severity.ERROR),
    ],
)
def test_flags_are_checked_against_the_version(args: dict[str, Any], code: str, severity: Severity):
    finding = the(code, findings(args={"max-model-len": 8192, **args}))
    assert finding.severity is severity
    assert finding.field == next(iter(args)).replace("-", "_")


@pytest.mark.parametrize(
    ("spec", "facts", "flag", "value"),
    [
        # One H100 holds all of the 131,072 tokens that the model was made for; an L4 has 3.9 GiB at 128 KiB a token.
        ({"args": {"max-model-len": -5}}, {}, "max-model-len", 131_072),
        ({"args": {"max-model-len": 10**9}}, {}, "max-model-len", 131_072),
        ({"args": {"max-model-len": 0}, "flavor": "l4"}, {}, "max-model-len", 31_744),
        ({"args": {"max-model-len": -5, "tensor-parallel-size": 99}}, {}, "max-model-len", 131_072),
        ({"args": {"max-model-len": -5}}, {"model": None}, "max-model-len", 8192),
        ({"args": {"tensor-parallel-size": 99}}, {}, "tensor-parallel-size", 4),
        ({"args": {"tensor-parallel-size": 17}, "flavor": "l4"}, {}, "tensor-parallel-size", 8),
        (
            {"args": {"tensor-parallel-size": 17, "pipeline-parallel-size": 2}, "flavor": "l4"},
            {},
            "tensor-parallel-size",
            4,
        ),
        ({"args": {"tensor-parallel-size": 17}}, {"model": None}, "tensor-parallel-size", 4),
        ({"args": {"tensor-parallel-size": 0}}, {}, "tensor-parallel-size", 1),
        ({"args": {"tensor-parallel-size": 2, "pipeline-parallel-size": 40}}, {}, "pipeline-parallel-size", 2),
    ],
)
def test_a_number_out_of_range_gets_one_that_this_model_can_use(
    spec: dict[str, Any], facts: dict[str, Any], flag: str, value: int
):
    found = [item for item in findings(facts=facts_of(**facts), **spec) if item.code == "flag_range"]
    finding = next(item for item in found if item.pointer == f"/spec/engine/args/{flag}")
    assert (finding.value, finding.remedy) == (value, f"Use {value:,}.")
    after = {**spec, "args": {**spec["args"], flag: value}}
    again = findings(facts=facts_of(**facts), **after)
    assert not [item for item in again if item.pointer == finding.pointer and item.is_error]


def test_heads_must_be_shared_evenly():
    finding = the("heads_not_divisible", findings(args={"max-model-len": 8192, "tensor-parallel-size": 3}))
    assert (finding.field, finding.value) == ("tensor_parallel_size", 2)
    assert "1, 2, 4" in finding.remedy


def test_more_gpus_than_kv_heads_are_told_to_keep_copies():
    model = dataclasses.replace(LLAMA, kv_heads=2)
    args = {"max-model-len": 8192, "tensor-parallel-size": 4}
    assert the("kv_heads_replicated", findings(facts=facts_of(model=model), args=args)).severity is Severity.INFO


def test_a_model_has_no_more_stages_than_layers():
    model = dataclasses.replace(LLAMA, layers=2)
    args = {"max-model-len": 8192, "pipeline-parallel-size": 4}
    assert the("stages_over_layers", findings(facts=facts_of(model=model), args=args)).value == 2


def test_a_context_beyond_the_model_is_refused_with_its_limit():
    finding = the("context_over_model", findings(args={"max-model-len": 200_000}))
    assert (finding.field, finding.value) == ("max_model_len", 131072)


def test_what_does_not_fit_is_told_with_numbers_and_a_context_that_does():
    finding = the("memory", findings(flavor="l4", args={"max-model-len": 65536}))
    assert (finding.field, finding.is_error) == ("max_model_len", True)
    assert "weights take 15 GiB" in finding.message
    assert "65,536 tokens needs 8 GiB" in finding.message
    assert isinstance(finding.value, int)
    proposed = findings(flavor="l4", args={"max-model-len": finding.value})
    assert not [item for item in proposed if item.is_error]


def test_where_no_context_fits_another_way_is_proposed():
    finding = the("memory", findings(flavor="t4", args={"max-model-len": 8192, "dtype": "half"}))
    assert (finding.field, finding.value) == ("tensor_parallel_size", 2)


def test_a_narrow_fit_is_a_warning():
    finding = the("memory_tight", findings(flavor="l4", args={"max-model-len": 30000}))
    assert finding.severity is Severity.WARNING


def test_bfloat16_is_refused_on_an_old_gpu_where_it_is_asked_for_by_name():
    args = {"max-model-len": 2048, "tensor-parallel-size": 4}
    finding = the("dtype_bfloat16", findings(flavor="t4", args={**args, "dtype": "bfloat16"}))
    assert (finding.field, finding.value, finding.is_error) == ("dtype", "half", True)
    assert "dtype_bfloat16" not in without(findings(flavor="t4", args={**args, "dtype": "half"}))


def test_left_to_itself_the_engine_takes_half_on_an_old_gpu():
    """As vLLM does with dtype at auto; only what was asked for by name is refused."""
    args = {"max-model-len": 2048, "tensor-parallel-size": 4}
    for more in ({}, {"dtype": "auto"}):
        found = findings(flavor="t4", args={**args, **more})
        finding = the("dtype_falls_back", found)
        assert (finding.field, finding.value, finding.severity) == ("dtype", "half", Severity.WARNING)
        assert not [item for item in found if item.is_error]
    assert "dtype_falls_back" not in without(findings(flavor="t4", args={**args, "dtype": "half"}))
    assert "dtype_falls_back" not in without(findings(flavor="l4", args=args))


def test_a_family_that_overflows_in_half_takes_twice_the_memory_on_an_old_gpu():
    gemma = facts_of(model=dataclasses.replace(LLAMA, architecture="Gemma3ForCausalLM"))
    args = {"max-model-len": 2048, "tensor-parallel-size": 2}
    found = findings(facts=gemma, flavor="t4", args=args)
    assert "float32" in the("dtype_falls_back", found).message
    assert the("dtype_falls_back", found).value is None
    memory = the("memory", found)
    assert "weights take 15.2 GiB" in memory.message, "those in 16 bits, twice"
    for asked in ("half", "bfloat16"):
        refused = [item for item in findings(facts=gemma, flavor="t4", args={**args, "dtype": asked}) if item.is_error]
        assert [(item.field, item.value) for item in refused if item.code != "memory"] == [("dtype", "float32")]


def test_fp8_weights_on_a_gpu_without_fp8_are_a_warning():
    model = dataclasses.replace(LLAMA, quantization="fp8")
    found = findings(facts=facts_of(model=model), flavor="a100")
    assert the("fp8_emulated", found).severity is Severity.WARNING
    assert findings(facts=facts_of(model=model), flavor="h100") == []


def test_weights_whose_kernels_the_gpu_lacks_are_refused():
    model = dataclasses.replace(LLAMA, quantization="mxfp4", dtype="float16")
    args = {"max-model-len": 2048, "tensor-parallel-size": 4}
    assert the("quantization_gpu", findings(facts=facts_of(model=model), flavor="t4", args=args)).is_error


def test_an_fp8_cache_on_an_older_gpu_is_a_warning():
    args = {"max-model-len": 8192, "kv-cache-dtype": "fp8"}
    assert the("fp8_cache", findings(flavor="a100", args=args)).value == "auto"
    assert findings(flavor="h100", args=args) == []


def test_a_step_must_hold_the_running_requests():
    args = {"max-model-len": 8192, "max-num-batched-tokens": 512, "max-num-seqs": 1024}
    finding = the("batch_below_requests", findings(args=args))
    assert (finding.field, finding.value) == ("max_num_batched_tokens", 1024)


def test_without_chunked_prefill_a_step_must_hold_a_prompt():
    args = {"max-model-len": 16384, "max-num-batched-tokens": 8192, "enable-chunked-prefill": False}
    assert the("batch_below_context", findings(args=args)).value == 16384


def test_tool_choice_needs_a_parser():
    args = {"max-model-len": 8192, "enable-auto-tool-choice": True}
    assert the("tool_parser_missing", findings(args=args)).field == "enable_auto_tool_choice"
    assert "tool_parser_missing" not in without(findings(args={**args, "tool-call-parser": "hermes"}))


def test_sizes_of_graphs_do_nothing_where_none_are_captured():
    args = {"max-model-len": 8192, "max-cudagraph-capture-size": 64}
    finding = the("graphs_not_captured", findings(args={**args, "enforce-eager": True}))
    assert (finding.pointer, finding.is_error) == ("/spec/engine/args/max-cudagraph-capture-size", False)
    for eager in ({}, {"enforce-eager": False}):
        assert "graphs_not_captured" not in without(findings(args={**args, **eager}))


def test_expert_parallelism_of_a_dense_model_is_refused_as_the_engine_does():
    args = {"max-model-len": 8192, "enable-expert-parallel": True}
    finding = the("no_experts", findings(args=args))
    assert (finding.field, finding.value, finding.is_error) == ("enable_expert_parallel", False, True)


def test_an_unknown_model_says_what_was_not_checked():
    assert without(findings(facts=facts_of(model=None))) == ["not_checked"]


def test_of_an_address_that_is_none_no_numbers_are_asked_for():
    found = without(findings(facts=facts_of(model=None), source={"uri": "qwen"}))
    assert "not_checked" not in found
    assert "source_scheme" in found


def test_errors_come_first_and_nothing_is_told_twice():
    found = findings("Chat", flavor="l4", args={"max-model-len": 65536, "trust-remote-code": True})
    order = [list(Severity).index(finding.severity) for finding in found]
    assert order == sorted(order)
    assert len(set(found)) == len(found)


def test_raw_json_becomes_findings_too():
    spec, found = check_raw({"name": "chat", "team": "search", "spec": {"flavor": "{{x}}"}}, facts_of())
    assert spec is None
    assert {finding.field for finding in found} == {"source_uri", "flavor"}
    spec, found = check_raw({"name": "chat", "team": "search", "spec": spec_json()}, facts_of())
    assert spec is not None
    assert found == []


def test_the_estimate_is_given_beside_the_findings():
    result = estimate(spec_of(), facts_of())
    assert result is not None
    assert result.weights_gib == pytest.approx(14.96, abs=0.01)
    assert estimate(spec_of(flavor="none"), facts_of()) is None


NUMBERS = st.integers(-10, 10**7) | st.floats(-1, 2, allow_nan=False) | st.booleans()
ARGS = st.dictionaries(
    st.sampled_from(
        [
            "max-model-len",
            "tensor-parallel-size",
            "pipeline-parallel-size",
            "max-num-seqs",
            "max-num-batched-tokens",
            "gpu-memory-utilization",
            "block-size",
            "kv-cache-memory-bytes",
            "cpu-offload-gb",
        ]
    ),
    NUMBERS,
    max_size=5,
)


@given(args=ARGS, name=st.text(max_size=50), flavor=st.sampled_from([*FLAVORS, "none"]))
def test_no_numbers_break_a_rule_and_proposals_are_plain_values(args: dict[str, Any], name: str, flavor: str):
    for finding in findings(name, flavor=flavor, args=args):
        assert finding.message
        assert finding.value is None or isinstance(finding.value, int | float | bool | str)


@given(
    limit=st.integers(0, 20),
    reserved=st.integers(0, 20),
    size=st.sampled_from([1, 2, 4]),
    replicas=st.integers(1, 12),
)
def test_a_request_without_a_word_about_quota_never_exceeds_what_is_left(
    limit: int, reserved: int, size: int, replicas: int
):
    quota = QuotaFacts(limit, reserved)
    args = {"max-model-len": 8192, "tensor-parallel-size": size}
    known = facts_of(quotas={"h100": quota}, cluster=ClusterFacts(sandbox=True, grows=True))
    found = findings(facts=known, args=args, replicas={"min": replicas, "max": replicas})
    within = size * replicas <= max(0, limit - reserved) and limit > 0
    assert bool([item for item in found if item.code in {"quota_none", "quota_exceeded"}]) != within
    assert not [item for item in found if item.is_error]


def test_a_flavor_without_a_catalogue_entry_is_still_estimated():
    flavor = FlavorFacts("x", "Unheard-Of", 81920, 9.0, 8)
    facts = facts_of(flavors={"x": flavor}, quotas={"x": QuotaFacts(8)})
    assert estimate(spec_of(flavor="x"), facts) is not None
