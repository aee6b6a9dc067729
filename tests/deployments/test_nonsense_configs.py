"""Configurations of models that are nonsense: what cannot be read is not known, and nothing raises but what says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.urls import reverse
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deployments.engine.options import Choice, options, places
from deployments.engine.proposals import propose
from deployments.engine.sizing import Sizer, UnknownShapeError, fit, missing_numbers
from deployments.models import CatalogEntry, Deployment, ModelCheck, User
from deployments.preflight import check, estimate
from deployments.services import model_checks, source_checks
from deployments.sources import Reply
from deployments.sources.huggingface import model_facts
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make
from tests.deployments.test_views_request import typed
from tests.deployments.viewing import signed_in
from tests.deployments.wishes import FLAVORS, facts_of, roles_json, spec_json

ODD = "hf://org/odd"
NAMES = (
    *("architectures", "torch_dtype", "dtype", "quantization_config", "quant_method", "weight_block_size"),
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size"),
    *("intermediate_size", "vocab_size", "max_position_embeddings", "num_experts", "moe_intermediate_size"),
    *("tie_word_embeddings", "kv_lora_rank", "qk_rope_head_dim", "sliding_window", "use_sliding_window"),
    *("layer_types", "sliding_window_pattern", "full_attention_interval", "rope_scaling", "rope_type", "factor"),
    *("original_max_position_embeddings", "model_type", "text_config"),
)
WORDS = ("sliding_attention", "mamba", "yarn", "linear", "gemma3", "fp8", "awq", "float32", "LlamaForCausalLM")
NUMBERS = st.sampled_from((0, 1, 2, 7, 28, 128, 4096, -1, 2**31, 2**63, 10**14, 10**30, 10**4000))
FLOATS = st.sampled_from((0.5, 2.0, 1e308, float("inf"), float("-inf"), float("nan")))
TEXTS = st.sampled_from((*WORDS, "", "a\x00b", "\ud800", "28", "x" * 300))
PLAIN = NUMBERS | FLOATS | TEXTS | st.none() | st.booleans()
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
CONFIGS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=len(NAMES))
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "siblings": st.lists(st.fixed_dictionaries({"rfilename": TEXTS, "size": PLAIN}), max_size=3) | VALUES,
        "safetensors": st.fixed_dictionaries({"total": PLAIN}) | VALUES,
        "cardData": st.fixed_dictionaries({"license": PLAIN}) | VALUES,
        "gated": VALUES,
    },
)
ARGS = st.sampled_from(
    (
        {"max-model-len": 8192},
        {"max-model-len": 8192, "tensor-parallel-size": 4},
        {"kv-cache-dtype": "fp8", "pipeline-parallel-size": 2},
        {"enable-expert-parallel": True, "tensor-parallel-size": 2, "block-size": 32},
    )
)


# More layers named than there are, none of which attends.
KINDS = ["mamba"] * 3 + ["sliding_attention"] * 3
STATE_AND_WINDOWS = {"num_hidden_layers": 2, "layer_types": KINDS, "sliding_window": 7}


def deep(depth: int) -> Any:
    made: Any = 1
    for _ in range(depth):
        made = [made]
    return made


@settings(max_examples=100)
@given(config=CONFIGS, metadata=METADATA, args=ARGS)
@example(STATE_AND_WINDOWS, {}, {})
@example({"max_position_embeddings": 2, "rope_scaling": {"type": "linear", "factor": 1e308}}, {}, {})
def test_what_is_known_of_a_model_is_always_something_that_can_be_used(config: Any, metadata: Any, args: Any):
    model = model_facts("org/odd", metadata, config)
    text = json.dumps(model.as_json(), allow_nan=False)
    assert "\\u0000" not in text
    assert "\\ud800" not in text

    choices = [Choice(slug, item.gpu, item.gpus_per_node) for slug, item in FLAVORS.items()]
    for choice in choices:
        try:
            fit(model, choice.gpu, args)
            options(Sizer(model), choice.gpu, args, others=choices)
            places(Sizer(model), args, choices)
        except UnknownShapeError as unknown:
            missing = unknown.missing
        else:
            missing = ()
        assert missing == missing_numbers(model)
    propose(model, choices)
    for wish in (spec_json(args=args), roles_json(args=args)):
        spec = DeploymentSpec.from_json(wish)
        known = facts_of(model=model)
        estimate(spec, known)
        for finding in check(spec, "chat", "search", known):
            assert finding.code
            assert finding.message.isprintable()


def test_what_is_nested_as_deep_as_is_read_is_no_word():
    config = {
        "architectures": [deep(900)],
        "torch_dtype": deep(900),
        "quantization_config": {"quant_method": deep(900)},
    }
    model = model_facts("org/odd", {"cardData": {"license": deep(900)}, "siblings": [deep(900)]}, config)
    assert (model.architecture, model.dtype, model.quantization, model.license) == ("", "bfloat16", None, "")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[1, 2]",
        b"<html>",
        b"",
        b'{"num_hidden_layers": ' + b"9" * 5000 + b"}",
        b"\xff\xfe\x00",
    ],
    ids=["lists", "mappings", "list", "page", "nothing", "number", "bytes"],
)
def test_a_configuration_that_is_no_object_is_said_at_the_field_and_nothing_is_stored(
    hub: list[str], alice: User, monkeypatch: pytest.MonkeyPatch, body: bytes
):
    answer = offered(monkeypatch, body, alice)

    said = answer.context["fields"]["source_uri"]["messages"]
    assert answer.status_code == 422
    assert said[0]["severity"] == "error"
    assert "config.json" in said[0]["message"]
    assert not Deployment.objects.exists()


@pytest.mark.parametrize(
    "config",
    [
        b'{"num_hidden_layers": NaN, "rope_scaling": {"type": "yarn", "factor": Infinity}}',
        b'{"num_hidden_layers": "28", "num_attention_heads": [28], "torch_dtype": "a\\u0000b", "architectures": [[]]}',
        b'{"num_hidden_layers": 1e400, "hidden_size": -5, "vocab_size": true, "model_type": "\\ud800"}',
        b'{"num_hidden_layers": 99999999999999999999999999}',
    ],
)
def test_a_configuration_without_sense_is_asked_for_and_its_numbers_are_asked_back(
    hub: list[str], alice: User, monkeypatch: pytest.MonkeyPatch, config: bytes
):
    answer = offered(monkeypatch, config, alice)

    row = Deployment.objects.get()
    assert answer.status_code == 302
    assert row.latest is not None
    (told,) = [finding for finding in row.latest.findings if finding["code"] == "not_checked"]
    assert "its layers" in told["message"]
    assert ModelCheck.objects.get(uri=ODD).facts["layers"] is None


def test_sizes_without_sense_do_not_reach_the_catalogue(hub: list[str], monkeypatch: pytest.MonkeyPatch):
    carol = make.make_user("carol", admin=True)
    served(monkeypatch, b'{"max_position_embeddings": 999999999999}', safetensors={"total": 10**15 - 1})

    signed_in(carol).post(reverse("catalogue-add"), {"uri": ODD})

    entry = CatalogEntry.objects.get()
    assert (entry.context, float(entry.parameters_billion)) == (None, 99999.99)


def offered(monkeypatch: pytest.MonkeyPatch, config: bytes, alice: User) -> Any:
    """Ask in the form for a model whose hub gives this as its configuration."""
    served(monkeypatch, config)
    return signed_in(alice).post(reverse("deployment-create"), typed(source_uri=ODD))


def served(monkeypatch: pytest.MonkeyPatch, config: bytes, **metadata: Any) -> None:
    files = [{"rfilename": "model.safetensors", "size": 15_231_271_856}, {"rfilename": "config.json", "size": 5}]
    known = {"sha": make.COMMIT, "siblings": files, **metadata}

    def get(path: str) -> Reply:
        body = json.dumps(known).encode() if path.startswith("/api/") else config
        return Reply(200, source_checks._json(body), {}, body=body)

    monkeypatch.setattr(model_checks, "_get", get)
