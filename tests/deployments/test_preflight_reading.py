"""Rules about what an engine reads at all: GGUF files, methods that went to plugins, and methods that are gone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.documents import DocumentError, facts_from
from deployments.engine.flags import release, versions
from deployments.engine.plugins import Plugin, plugins_from
from deployments.engine.profiles import EngineProfile, seeded_profiles
from deployments.engine.quantization import known_methods, methods_of
from deployments.findings import Finding
from deployments.preflight import Facts, check
from tests.deployments.preflighting import codes, said, the
from tests.deployments.wishes import LLAMA, facts_of, spec_of

NEWEST, OLDER = "vllm-0.32.0", "vllm-0.20.0"
IMAGE = "vllm/vllm-openai@sha256:" + "0" * 64
GGUF = {"format": "gguf", "quantization": "gguf", "dtype": "float16", "file": "chat.gguf", "weights_bytes": 5 << 30}
BESIDE = {**GGUF, "described": True, "tokenizer": "beside"}
FILE = {"source": {"uri": "s3://bucket/chat.gguf"}}
FOLDER = {"source": {"uri": "s3://bucket/chat"}}
MISSING = {"gguf_engine", "quantization_missing", "quantization_unread"}


def profile(slug: str = NEWEST, *plugins: Plugin) -> EngineProfile:
    return EngineProfile(slug, slug.removeprefix("vllm-"), IMAGE, slug, plugins=plugins)


def facts(*profiles: EngineProfile, model: dict[str, Any] | None = None) -> Facts:
    known = None if model is None else dataclasses.replace(LLAMA, architecture="LlamaForCausalLM", **model)
    return facts_of(model=known, profiles={each.slug: each for each in profiles or (profile(),)})


# The list


def test_the_newest_version_has_what_its_wheel_lists():
    assert methods_of("0.32.0") == {
        *("auto_awq", "auto_gptq", "awq", "awq_marlin", "compressed-tensors", "deepseek_v4_fp8", "experts_int8"),
        *("fbgemm_fp8", "fp8", "fp8_per_block", "fp8_per_channel", "fp8_per_tensor", "fp_quant", "gpt_oss_mxfp4"),
        *("gptq", "gptq_marlin", "humming", "inc", "int8_per_channel_weight_only", "modelopt", "modelopt_fp4"),
        *("modelopt_mixed", "modelopt_mxfp8", "moe_wna16", "mxfp4", "mxfp8", "nvfp4_per_token", "online", "quark"),
        "torchao",
    }


@pytest.mark.parametrize("version", versions())
def test_plugins_bring_back_what_a_version_gave_up_and_add_nothing_to_others(version: str):
    own, whole = methods_of(version), methods_of(version, Plugin)
    assert {"gguf", "bitsandbytes"} <= whole <= known_methods()
    given_up = {"gguf": (0, 24), "bitsandbytes": (0, 28)}
    assert whole - own == {name for name, since in given_up.items() if release(version) >= since}


def test_an_unknown_plugin_is_named_with_those_that_are_known():
    assert plugins_from(["gguf", "bitsandbytes", "gguf"]) == (Plugin.BITSANDBYTES, Plugin.GGUF)
    with pytest.raises(ValueError, match=r"“vllm-gguf” is not a plugin .* gguf, bitsandbytes"):
        plugins_from(["vllm-gguf"])


def test_the_engine_that_comes_with_slipway_claims_no_plugin():
    assert [each.plugins for each in seeded_profiles().values()] == [()]


# GGUF files


@pytest.mark.parametrize("model", [GGUF, BESIDE, None])
def test_a_gguf_file_without_the_plugin_is_refused_with_who_can_help(model: dict[str, Any] | None):
    finding = the("gguf_engine", said(facts(model=model), **FILE))
    assert (finding.is_error, finding.field, finding.value) == (True, "source_uri", None)
    assert "vllm-gguf-plugin, which the image of “vllm-0.32.0” does not have" in finding.message
    assert "ask an admin" in finding.remedy
    assert "safetensors" in finding.remedy


@pytest.mark.parametrize("uri", ["pvc://claim/chat.gguf", "https://files.example.com/chat.gguf", "gs://bucket/c.gguf"])
def test_of_sources_that_nobody_looked_into_the_name_says_it(uri: str):
    assert "gguf_engine" in codes(said(facts(), source={"uri": uri}))
    assert "gguf_engine" not in codes(said(facts(profile(OLDER)), source={"uri": uri}, engine={"profile": OLDER}))


def test_another_engine_that_reads_it_is_one_press_away_and_works():
    known = facts(profile(), profile(OLDER), model=GGUF)
    finding = the("gguf_engine", said(known, **FILE))
    assert (finding.field, finding.value) == ("profile", OLDER)
    assert MISSING.isdisjoint(codes(said(known, **FILE, engine={"profile": OLDER, "args": {}})))


def test_another_engine_is_not_offered_where_something_else_of_the_wish_is_refused_there():
    known = facts(profile(), profile(OLDER), model=GGUF)
    wish = {**FILE, "engine": {"args": {"max-model-len": 8192, "max-num-queued-reqs": 4}}}
    found = check(spec_of(**wish), "chat", "search", known)
    assert (the("gguf_engine", found).field, the("gguf_engine", found).value) == ("source_uri", None)


def test_the_plugin_reads_a_file_with_its_configuration_and_tokenizer_beside_it():
    has = profile(NEWEST, Plugin.GGUF)
    assert "gguf_engine" not in codes(said(facts(has, model=BESIDE), **FOLDER))
    for model in (GGUF, {**BESIDE, "described": False}, {**BESIDE, "tokenizer": ""}, None):
        finding = the("gguf_engine", said(facts(has, model=model), **FILE))
        assert finding.field == "source_uri"
        assert "config.json and tokenizer.json beside" in finding.message
        assert finding.remedy.startswith("Name a folder")
    assert the("gguf_engine", said(facts(has, profile(OLDER), model=GGUF), **FILE)).value == OLDER


def test_the_plugin_of_something_else_does_not_help():
    assert "gguf_engine" in codes(said(facts(profile(NEWEST, Plugin.BITSANDBYTES), model=BESIDE), **FOLDER))


# Methods


@pytest.mark.parametrize("plugins", [(), (Plugin.BITSANDBYTES,)])
def test_bitsandbytes_is_there_with_its_plugin_alone(plugins: tuple[Plugin, ...]):
    one = facts(profile(NEWEST, *plugins), model={})
    asked = said(one, args={"quantization": "bitsandbytes"})
    stored = said(facts(profile(NEWEST, *plugins), model={"quantization": "bitsandbytes", "weights_bytes": 6 << 30}))
    assert ("quantization_missing" in codes(asked)) is not plugins
    assert ("quantization_unread" in codes(stored)) is not plugins
    assert "flag_choice" not in codes(asked)


def test_what_to_do_without_bitsandbytes():
    asked = the("quantization_missing", said(facts(model={}), args={"quantization": "bitsandbytes"}))
    assert (asked.field, asked.value) == ("quantization", "fp8")
    assert "only with vllm-bnb-plugin" in asked.message
    stored = the("quantization_unread", said(facts(model={"quantization": "bitsandbytes", "weights_bytes": 6 << 30})))
    assert (stored.field, stored.value) == ("source_uri", None)
    both = facts(profile(), profile(OLDER), model={})
    other = the("quantization_missing", said(both, args={"quantization": "bitsandbytes"}))
    assert (other.field, other.value) == ("profile", OLDER)


def _all_that_a_version_lacks() -> list[tuple[str, str]]:
    return [(version, name) for version in versions() for name in sorted(known_methods() - methods_of(version))]


@pytest.mark.parametrize(("version", "name"), _all_that_a_version_lacks())
def test_each_method_that_a_version_lacks_is_refused_once_and_by_name(version: str, name: str):
    found = _refused(version, args={"quantization": name})
    assert len([finding for finding in found if finding.code == "quantization_missing"]) == 1
    assert name in the("quantization_missing", found).message
    assert not {"flag_choice", "quantization_unread"} & codes(found)


@pytest.mark.parametrize("own", ["petit_nvfp4", "hqq", "bitnet"])
def test_weights_in_a_method_that_no_engine_here_has_are_refused(own: str):
    finding = the("quantization_unread", said(facts(model={"quantization": own, "weights_bytes": 6 << 30})))
    assert (finding.field, own in finding.message) == ("source_uri", True)


@pytest.mark.parametrize("own", ["auto-round", "compressed_tensors", "fp8", "modelopt_fp4", "gptq"])
def test_weights_that_are_read_under_another_name_are_not(own: str):
    assert "quantization_unread" not in codes(
        said(facts(model={"quantization": own, "weights_bytes": 6 << 30}), flavor="h100")
    )


def test_a_word_that_is_no_method_gets_the_list():
    found = _refused("0.32.0", args={"quantization": "fp9"})
    assert "fp8" in the("flag_choice", found).message
    assert "quantization_missing" not in codes(found)


def _refused(version: str, args: dict[str, Any]) -> list[Finding]:
    slug = f"vllm-{version}"
    return check(
        spec_of(engine={"profile": slug, "args": {"max-model-len": 2048, **args}}),
        "chat",
        "search",
        facts(profile(slug), model={}),
    )


# Documents


def test_facts_of_a_file_say_what_an_image_has():
    row = {"slug": NEWEST, "version": "0.32.0", "image": IMAGE}
    known = facts_from({"profiles": [{**row, "plugins": ["gguf"]}]}, {})
    assert known.profiles[NEWEST].plugins == (Plugin.GGUF,)
    assert facts_from({"profiles": [row]}, {}).profiles[NEWEST].plugins == ()
    for wrong in (["llama.cpp"], "gguf", [{}]):
        with pytest.raises(DocumentError, match="plugin"):
            facts_from({"profiles": [{**row, "plugins": wrong}]}, {})
