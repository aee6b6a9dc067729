"""What a list of files is: which format, whether vLLM can serve it, and what to name instead."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.sources import Reply, SourceCode
from deployments.sources.formats import WeightFormat, format_of, weights_bytes
from deployments.sources.gguf import GgufError, facts_of, read
from deployments.sources.listing import Place, judge

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
    "vocab_size": 49152,
}


def gguf(*pairs: tuple[str, Any], version: int = 3, count: int | None = None) -> bytes:
    """The beginning of a GGUF file with these pairs: numbers, texts, and lists of texts."""
    body = b""
    for key, value in pairs:
        body += _text(key)
        if isinstance(value, str):
            body += struct.pack("<I", 8) + _text(value)
        elif isinstance(value, list):
            body += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
        else:
            body += struct.pack("<II", 4, value)
    return b"GGUF" + struct.pack("<IQQ", version, 1, len(pairs) if count is None else count) + body


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


LLAMA = gguf(
    ("general.architecture", "llama"),
    ("llama.block_count", 30),
    ("llama.embedding_length", 576),
    ("llama.attention.head_count", 9),
    ("llama.attention.head_count_kv", 3),
    ("llama.context_length", 8192),
    ("tokenizer.ggml.tokens", ["a", "b"]),
    ("llama.vocab_size", 49152),
)


def place(files: dict[str, bytes], uri: str = "s3://bucket/chat/") -> tuple[Place, dict[str, int]]:
    """A folder with these files."""

    def read_(name: str, first: int | None) -> Reply:
        content = files[name][:first]
        try:
            return Reply(200, json.loads(content), body=content)
        except ValueError:
            return Reply(200, None, body=content)

    return Place(uri, read_), {name: len(content) for name, content in files.items()}


def judged(**files: bytes) -> Any:
    return judge(*place({name.replace("__", "/").replace("_dot_", "."): content for name, content in files.items()}))


def model(**more: bytes) -> Any:
    return judged(config_dot_json=json.dumps(CONFIG).encode(), **more)


def test_a_folder_with_safetensors_is_a_model():
    found = model(model_dot_safetensors=b"x" * 100, consolidated_dot_safetensors=b"x" * 70, tokenizer_dot_json=b"{}")
    assert (found.code, found.loads) == (SourceCode.FOUND, "s3://bucket/chat/")
    assert (found.model.layers, found.model.weights_bytes, found.model.format) == (30, 100, "safetensors")


def test_checkpoints_of_pytorch_are_known_as_such():
    found = model(pytorch_model_dot_bin=b"x" * 50, training_args_dot_bin=b"x" * 9)
    assert (found.code, found.model.format, found.model.weights_bytes) == (SourceCode.FOUND, "pytorch", 50)
    assert "pickles" in found.message


def test_one_gguf_file_tells_its_shape():
    found = judged(chat_dot_gguf=LLAMA)
    assert (found.code, found.model.file, found.model.tokenizer) == (SourceCode.FOUND, "chat.gguf", "")
    assert (found.model.layers, found.model.heads, found.model.kv_heads, found.model.head_dim) == (30, 9, 3, 64)
    assert (found.model.max_position, found.model.vocab, found.model.quantization) == (8192, 49152, "gguf")
    assert judged(chat_dot_gguf=LLAMA, tokenizer_dot_json=b"{}").model.tokenizer == "beside"


def test_of_several_gguf_files_one_has_to_be_named():
    found = judged(a_dot_gguf=LLAMA, b_dot_gguf=LLAMA)
    assert found.code is SourceCode.UNUSABLE
    assert found.remedy.endswith("s3://bucket/chat/a.gguf")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"README.md": b"x"}, "safetensors"),
        ({"model.safetensors": b"x"}, "config.json"),
        ({"model/config.json": b"{}", "model/model.safetensors": b"x"}, "s3://bucket/chat/model"),
    ],
)
def test_what_is_no_model_says_what_is_missing(files: dict[str, bytes], says: str):
    found = judge(*place(files))
    assert found.code is SourceCode.UNUSABLE
    assert says in found.remedy


@pytest.mark.parametrize("nonsense", [b"[]", b"<html>", b"", b"1" * 5000])
def test_a_configuration_that_is_none_is_refused(nonsense: bytes):
    found = judge(*place({"config.json": nonsense, "model.safetensors": b"x"}))
    assert found.code is SourceCode.UNUSABLE


def test_a_configuration_full_of_nonsense_leaves_the_shape_unknown():
    config = {"num_hidden_layers": "many", "hidden_size": [1], "architectures": 7, "rope_scaling": "x"}
    found = judge(*place({"config.json": json.dumps(config).encode(), "model.safetensors": b"x"}))
    assert found.code is SourceCode.FOUND
    assert (found.model.layers, found.model.hidden, found.model.has_shape) == (None, None, False)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"PK\x03\x04" + b"0" * 40, "no GGUF"),
        (b"GG", "no GGUF"),
        (gguf(("general.architecture", "llama"), version=99), "version 99"),
        (gguf(("general.architecture", "whisper")), "architecture whisper"),
        (gguf(("general.architecture", "<b>")), "without a known name"),
    ],
)
def test_a_gguf_file_that_vllm_does_not_load_says_why(head: bytes, says: str):
    with pytest.raises(GgufError, match=says):
        facts_of("m", head)


def test_a_gguf_file_cut_off_tells_what_it_holds():
    pairs = read(LLAMA[:120])
    assert pairs["llama.block_count"] == 30
    assert "llama.context_length" not in pairs


@given(tail=st.binary(max_size=200), count=st.integers(0, 2**64 - 1))
def test_no_bytes_break_the_reader(tail: bytes, count: int):
    read(gguf(count=count) + tail)


def test_the_format_is_the_one_that_vllm_prefers():
    assert format_of({"a.gguf": 1, "model.safetensors": 2}) is WeightFormat.SAFETENSORS
    assert format_of({"inner/model.safetensors": 2}) is None
    assert weights_bytes({"model.safetensors": 2, "x/y.safetensors": 9}, WeightFormat.SAFETENSORS) == 2
