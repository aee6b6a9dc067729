"""The closed shape of a wish, and its errors in plain words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.spec import EXPANSIONS, DeploymentSpec, Role, digest, flag_name_problem
from deployments.spec_errors import flat_errors, parse_request, parse_spec
from tests.deployments.wishes import roles_json, spec_json, spec_of


def test_the_wish_of_the_design_is_taken_as_it_is_and_given_back():
    wish = {
        "source": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct", "revision": None, "credential": None},
        "strategy": "standard",
        "flavor": "h100-80gb",
        "replicas": {"min": 1, "max": 2},
        "engine": {
            "profile": "vllm-0.32.0",
            "args": {"max-model-len": 16384, "gpu-memory-utilization": 0.9},
        },
    }
    assert DeploymentSpec.from_json(wish).to_json() == wish


def test_a_round_trip_through_json_changes_nothing():
    spec = spec_of(args={"max-model-len": 8192, "enforce-eager": True, "dtype": "half"})
    assert DeploymentSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError):
        spec_of().flavor = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("args", "gpus"),
    [({}, 1), ({"tensor-parallel-size": 4}, 4), ({"tensor-parallel-size": 2, "pipeline-parallel-size": 3}, 6)],
)
def test_gpus_of_a_replica_are_tensor_times_pipeline_parallel(args: dict[str, Any], gpus: int):
    assert spec_of(args=args).gpus_per_replica == gpus


def test_gpus_of_a_spec_count_the_most_replicas():
    assert spec_of(args={"tensor-parallel-size": 2}, replicas={"min": 1, "max": 3}).gpus == 6


def places(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every object of a JSON document, by its path."""
    if not isinstance(value, dict):
        return []
    return [path, *(found for key, item in value.items() for found in places(item, (*path, key)))]


def test_an_unknown_field_is_refused_at_every_depth():
    document = spec_of().to_json()
    for path in places(document):
        if path == ("engine", "args"):
            continue
        changed = json.loads(json.dumps(document))
        target = changed
        for key in path:
            target = target[key]
        target["podSpec"] = {"hostNetwork": True}
        spec, errors = parse_spec(changed)
        assert spec is None
        assert [error.pointer for error in errors] == ["/".join(("/spec", *path, "podSpec"))]


@pytest.mark.parametrize(
    ("change", "pointer", "field", "words"),
    [
        ({"flavor": ""}, "/spec/flavor", "flavor", "Must not be empty."),
        ({"flavor": "H100"}, "/spec/flavor", "flavor", "lower-case"),
        ({"flavor": 5}, "/spec/flavor", "flavor", "Must be text."),
        ({"flavor": "x" * 80}, "/spec/flavor", "flavor", "At most 63 characters."),
        ({"source": {"uri": "x" * 600}}, "/spec/source/uri", "source_uri", "At most 512"),
        ({"source": None}, "/spec/source", "source_uri", "Must be an object."),
        (
            {"source": {"uri": "hf://a/b", "revision": "-x"}},
            "/spec/source/revision",
            "source_revision",
            "begin with",
        ),
        (
            {"source": {"uri": "oci://a/b", "folder": "models"}},
            "/spec/source/folder",
            "source_folder",
            "from the image's root",
        ),
        (
            {"source": {"uri": "oci://a/b", "folder": "/a/../b"}},
            "/spec/source/folder",
            "source_folder",
            "from the image's root",
        ),
        ({"strategy": "nonsense"}, "/spec/strategy", "strategy", "Choose one of"),
        ({"replicas": {"min": 0, "max": 1}}, "/spec/replicas/min", "replicas_min", "at least 1"),
        ({"replicas": {"min": 1, "max": 51}}, "/spec/replicas/max", "replicas_max", "at most 50"),
        (
            {"replicas": {"min": 3, "max": 2}},
            "/spec/replicas/max",
            "replicas_max",
            "must not be below the fewest (3)",
        ),
        ({"replicas": {"min": "1", "max": 1}}, "/spec/replicas/min", "replicas_min", "whole number"),
        ({"args": []}, "/spec/engine/args", "args", "one entry per flag"),
        ({"args": {"seed": None}}, "/spec/engine/args/seed", "seed", "a number, true or false, or a word"),
        ({"args": {"seed": [1]}}, "/spec/engine/args/seed", "seed", "a number, true or false, or a word"),
        ({"args": {"seed": 10**15}}, "/spec/engine/args/seed", "seed", "between"),
        ({"args": {"seed": float("inf")}}, "/spec/engine/args/seed", "seed", "finite"),
        ({"args": {"dtype": "half x"}}, "/spec/engine/args/dtype", "dtype", "only"),
        (
            {"args": {f"a{n}": 1 for n in range(65)}},
            "/spec/engine/args",
            "args",
            "At most 64 entries.",
        ),
    ],
)
def test_each_error_names_its_field_and_says_what_to_do(change: dict[str, Any], pointer: str, field: str, words: str):
    spec, errors = parse_spec(spec_json(**change))
    assert spec is None
    assert [(error.pointer, error.field) for error in errors] == [(pointer, field)]
    assert words in errors[0].message


@pytest.mark.parametrize(
    "spelling",
    [
        "--max-model-len",
        "max_model_len",
        "max.model.len",
        "max-model-len=5",
        "MAX-MODEL-LEN",
        "-tp",
        "max-model-len --trust-remote-code",
        "max-model-len\n--trust-remote-code",
        "",
        "x" * 70,
        "ä",
    ],
)
def test_a_flag_has_one_spelling_and_all_others_are_refused(spelling: str):
    spec, errors = parse_spec(spec_json(args={spelling: 1}))
    assert spec is None
    assert errors[0].pointer.startswith("/spec/engine/args/")


def test_a_flag_in_a_near_spelling_is_told_the_right_one():
    _, errors = parse_spec(spec_json(args={"--max_model_len": 1}))
    assert "“max-model-len”" in errors[0].message


def test_several_errors_are_all_told():
    _, errors = parse_spec(spec_json(flavor="", args={"a": None, "b": "{{x}}"}))
    assert {error.field for error in errors} == {"flavor", "a", "b"}


def test_an_error_never_repeats_what_was_typed():
    secret = "hf_secretsecret with spaces"
    _, errors = parse_spec(spec_json(source={"uri": "hf://a/b", "credential": secret}))
    assert errors
    assert all(secret not in error.message for error in errors)


def test_a_misspelt_field_is_told_its_name():
    _, errors = parse_spec(spec_json(flavour="h100"))
    assert "Did you mean “flavor”?" in errors[0].message


def test_a_request_carries_team_name_and_spec():
    request, errors = parse_request({"team": "search", "name": "chat", "spec": spec_json()})
    assert not errors
    assert request is not None
    assert request.spec == spec_of()
    _, errors = parse_request({"team": "search", "spec": spec_json(flavor="")})
    assert [(error.pointer, error.field) for error in errors] == [("/name", "name"), ("/spec/flavor", "flavor")]


@pytest.mark.parametrize("data", [None, 5, "x", [], [{}]])
def test_anything_but_an_object_is_an_error_and_no_crash(data: Any):
    spec, errors = parse_spec(data)
    assert spec is None
    assert errors


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=10,
)


@given(data=JSON)
def test_no_json_breaks_the_parser(data: Any):
    parse_spec(data)
    parse_spec({"source": data, "flavor": data, "replicas": data, "engine": {"args": data}})


@given(text=st.text(max_size=60), marker=st.sampled_from(EXPANSIONS))
def test_what_templates_and_shells_expand_is_refused_in_every_text(text: str, marker: str):
    value = text + marker
    for change in (
        {"flavor": value},
        {"source": {"uri": f"hf://a/{value}"}},
        {"source": {"uri": "hf://a/b", "revision": value}},
        {"source": {"uri": "hf://a/b", "credential": value}},
        {"args": {"dtype": value}},
        {"args": {value: 1}},
    ):
        assert parse_spec(spec_json(**change))[0] is None


def test_the_digest_covers_spec_resolution_and_objects():
    spec, resolution, objects = spec_of(), {"commit": "a"}, [{"kind": "X"}]
    same = digest(DeploymentSpec.from_json(spec.to_json()), {"commit": "a"}, [{"kind": "X"}])
    assert digest(spec, resolution, objects) == same
    others = {
        digest(spec_of(flavor="l4"), resolution, objects),
        digest(spec, {"commit": "b"}, objects),
        digest(spec, resolution, [{"kind": "Y"}]),
        digest(spec, resolution, []),
    }
    assert len(others | {same}) == 5


def test_flat_errors_take_the_place_of_the_model_in_the_request():
    with pytest.raises(ValidationError) as failure:
        DeploymentSpec.from_json({})
    assert {error.pointer for error in flat_errors(failure.value)} == {"/spec/source", "/spec/flavor"}
    assert {error.pointer for error in flat_errors(failure.value, prefix="")} == {"/source", "/flavor"}


def test_what_is_not_used_stays_out_of_the_json_that_is_signed():
    assert set(spec_of().to_json()) == {"source", "strategy", "flavor", "replicas", "engine"}
    assert set(spec_of(scaling={}).to_json()["scaling"]) == {"concurrency", "percent"}


def test_a_disaggregated_wish_has_roles_in_place_of_replicas():
    wish = roles_json(
        prefill={"replicas": {"min": 2, "max": 8}, "args": {"tensor-parallel-size": 2}},
        decode={"replicas": {"min": 4, "max": 20}, "args": {}},
    )
    spec = DeploymentSpec.from_json(wish)
    assert {key: spec.to_json()[key] for key in ("prefill", "decode")} == {
        key: wish[key] for key in ("prefill", "decode")
    }
    assert "replicas" not in spec.to_json()
    assert DeploymentSpec.from_json(spec.to_json()) == spec
    assert (spec.gpus, spec.gpus_per_replica, spec.replicas.min, spec.replicas.max) == (36, 2, 6, 28)


def test_flags_of_a_role_are_laid_over_those_of_the_engine():
    wish = roles_json(
        args={"max-num-seqs": 256, "tensor-parallel-size": 1},
        prefill={"args": {"tensor-parallel-size": 2}},
        decode={"args": {"max-num-seqs": 64}},
    )
    roles = DeploymentSpec.from_json(wish).by_role()
    assert roles[Role.PREFILL].engine.args == {"max-num-seqs": 256, "tensor-parallel-size": 2}
    assert roles[Role.DECODE].engine.args == {"max-num-seqs": 64, "tensor-parallel-size": 1}
    assert {role: spec.gpus_per_replica for role, spec in roles.items()} == {Role.PREFILL: 2, Role.DECODE: 1}
    assert spec_of().by_role() == {Role.BOTH: spec_of()}


@pytest.mark.parametrize(
    ("change", "pointer", "field", "words"),
    [
        ({"prefill": None}, "/spec/prefill", "prefill_replicas_max", "needs “prefill”"),
        ({"decode": None}, "/spec/decode", "decode_replicas_max", "needs “decode”"),
        ({"replicas": {"min": 1, "max": 1}}, "/spec/replicas", "replicas_max", "of their own"),
        ({"decode": {"args": {"seed": None}}}, "/spec/decode/args/seed", "decode_seed", "a number"),
        ({"decode": {"args": {"--seed": 1}}}, "/spec/decode/args/--seed", "decode___seed", "“seed”"),
        (
            {"prefill": {"replicas": {"min": 3, "max": 2}}},
            "/spec/prefill/replicas/max",
            "prefill_replicas_max",
            "not be below",
        ),
        ({"decode": {"replicas": {"max": 51}}}, "/spec/decode/replicas/max", "decode_replicas_max", "at most 50"),
        ({"decode": {"replica": 1}}, "/spec/decode/replica", "decode_replicas_max", "“replicas”"),
    ],
)
def test_errors_of_roles_stand_at_their_fields(change: dict[str, Any], pointer: str, field: str, words: str):
    spec, errors = parse_spec({**roles_json(), **change})
    assert spec is None
    assert [(error.pointer, error.field) for error in errors] == [(pointer, field)]
    assert words in errors[0].message


def test_roles_belong_to_their_strategy_alone():
    spec, errors = parse_spec({**spec_json(), "prefill": {}, "decode": {}})
    assert spec is None
    assert [error.pointer for error in errors] == ["/spec/prefill", "/spec/decode"]
    assert "Only the strategy “disaggregated”" in errors[0].message


def test_roles_are_found_in_a_whole_request_too():
    _, errors = parse_request({"team": "search", "name": "chat", "spec": roles_json(decode=None)})
    assert [error.pointer for error in errors] == ["/spec/decode"]


@pytest.mark.parametrize("revision", ["../main", "a/../b", "a..b", "main/", "a//b", "a/.b", "a./b", "v1."])
def test_a_revision_has_no_way_up(revision: str):
    for place in ("source", "adapter"):
        spec = spec_json()
        if place == "source":
            spec["source"]["revision"] = revision
        else:
            spec["adapters"] = [{"name": "a", "uri": "hf://o/a", "revision": revision}]
        parsed, problems = parse_spec(spec)
        assert parsed is None
        assert [problem.pointer.rpartition("/")[2] for problem in problems] == ["revision"]


@pytest.mark.parametrize("revision", ["main", "v1.0.2", "refs/pr/1", "feature/a.b", "a" * 40])
def test_names_of_git_are_revisions(revision: str):
    assert parse_spec({**spec_json(), "source": {**spec_json()["source"], "revision": revision}})[1] == []


@pytest.mark.parametrize("name", ["O", "-O", "O3", "-O=3"])
def test_the_short_form_of_optimization_levels_is_no_flag_to_write_in_small_letters(name: str):
    said = flag_name_problem(name)
    assert said == "This is vLLM's short form of optimization-level, which cannot be set here: leave it out."
    assert flag_name_problem("--max_model_len=8") == "Write this flag as “max-model-len”, with its value apart."
