"""KV cache in main memory: what has none to move there, as vLLM 0.32.0's OffloadingConnector asks at its start."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deployments.preflighting import codes, said, the, with_model

OFFLOADED = {"kv-offloading-size": 8}
WHISPER = {"architecture": "WhisperForConditionalGeneration", "encoder_decoder": True}
HYBRID = {"architecture": "Qwen3NextForCausalLM", "linear_layers": 24}
OFF = {"enable-prefix-caching": False}


@pytest.mark.parametrize(
    ("model", "args", "code"),
    [
        (WHISPER, {}, "offload_encoder"),
        # EncoderOnlyAttention makes no group of caches, and the connector finds none eligible.
        ({"architecture": "BertModel"}, {}, "offload_no_cache"),
        ({"architecture": "XLMRobertaForSequenceClassification"}, {}, "offload_no_cache"),
        ({"architecture": "LlamaBidirectionalModel"}, {}, "offload_no_cache"),
        ({"architecture": "LlamaForCausalLM", "both_ways": True}, {"runner": "pooling"}, "offload_no_cache"),
        # Embeddings of a decoder that looks back alone have a cache.
        ({"architecture": "LlamaForCausalLM"}, {"runner": "pooling"}, None),
        ({}, {}, None),
        # Of a state there are groups too; where other layers have a KV cache, prefix caching makes blocks of one size.
        ({"architecture": "Mamba2ForCausalLM", "linear_layers": 32}, OFF, None),
        (HYBRID, {}, None),
        (HYBRID, OFF, "offload_unaligned"),
    ],
)
def test_main_memory_takes_what_a_connector_can_move(model: dict[str, Any], args: dict[str, Any], code: str | None):
    facts = with_model(**model)
    found = said(facts, args=OFFLOADED | args)
    assert {item for item in codes(found) if item.startswith("offload_")} == ({code} if code else set())
    assert not {item for item in codes(said(facts, args=args)) if item.startswith("offload_")}


def test_the_remedy_of_blocks_that_do_not_match_is_prefix_caching():
    finding = the("offload_unaligned", said(with_model(**HYBRID), args=OFFLOADED | OFF))
    assert (finding.field, finding.value, finding.is_error) == ("enable_prefix_caching", True, True)
    again = said(with_model(**HYBRID), args=OFFLOADED | {"enable-prefix-caching": finding.value})
    assert "offload_unaligned" not in codes(again)
