"""Addresses of models, and what a hub's answers say about them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.sources import Reply, Scheme, SourceCode, SourceError, check_uri, parse
from deployments.sources.huggingface import check, config_path, metadata_path, model_facts
from deployments.sources.pinned import as_anybody, as_loaded, file_of

SHA = "c" * 40
MODEL = "Qwen/Qwen2.5-7B-Instruct"
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 152064,
}
METADATA = {
    "id": MODEL,
    "sha": SHA,
    "gated": False,
    "cardData": {"license": "apache-2.0"},
    "safetensors": {"total": 7_615_616_512},
    "siblings": [
        {"rfilename": "config.json", "size": 663},
        {"rfilename": "model-00001-of-00002.safetensors", "size": 10_000_000_000},
        {"rfilename": "model-00002-of-00002.safetensors", "size": 5_231_271_856},
        {"rfilename": "original/model.safetensors", "size": 99_000_000_000},
        {"rfilename": "consolidated.safetensors", "size": 99_000_000_000},
    ],
}


def hub(metadata: Reply, config: Reply | None = None) -> Any:
    def get(path: str) -> Reply:
        return metadata if path.startswith("/api/models/") else config or Reply(404)

    return get


def test_a_hub_address_is_taken_apart():
    source = parse("hf://Qwen/Qwen2.5-7B-Instruct")
    assert (source.scheme, source.id, source.revision) == (Scheme.HF, "Qwen/Qwen2.5-7B-Instruct", None)
    assert parse("hf://Qwen/Qwen2.5-7B-Instruct:main").revision == "main"


@pytest.mark.parametrize(
    "uri",
    [
        "hf://Qwen",
        "hf://Qwen/",
        "hf://a/b/c",
        "hf:///b",
        "hf://a/b?x=1",
        "hf://a/../b",
        "hf://a/.b",
        "hf://-a/b",
        "hf://a/b:",
        "hf://a/b:-x",
        "hf://a/{{b}}",
        "hf://a/$(b)",
        "hf://a/b c",
        "hf://a/b\n",
        "ftp://host/x",
        "file:///etc/passwd",
        "s3://",
        "",
        "Qwen",
    ],
)
def test_what_is_not_strictly_an_address_is_refused_at_its_field(uri: str):
    with pytest.raises(SourceError) as failure:
        parse(uri)
    assert failure.value.finding.is_error
    assert failure.value.finding.field == "source_uri"


@pytest.mark.parametrize("uri", ["Qwen/Qwen2.5-7B", "https://huggingface.co/Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B/"])
def test_a_model_written_otherwise_is_proposed_in_the_right_form(uri: str):
    (finding,) = check_uri(uri)
    assert finding.value == "hf://Qwen/Qwen2.5-7B"


@pytest.mark.parametrize(
    ("uri", "scheme", "container", "path"),
    [
        ("s3://bucket/models/m", Scheme.S3, "bucket", "models/m"),
        ("gs://my_bucket/m/", Scheme.GS, "my_bucket", "m"),
        ("pvc://claim/m", Scheme.PVC, "claim", "m"),
        ("pvc://claim", Scheme.PVC, "claim", ""),
        ("https://host.example/a/m.tar.gz", Scheme.HTTPS, "host.example", "a/m.tar.gz"),
        ("https://huggingface.co/a/b/resolve/main/m.gguf", Scheme.HTTPS, "huggingface.co", "a/b/resolve/main/m.gguf"),
        ("models:/chat/3", Scheme.MLFLOW, "chat", "3"),
        ("models:/chat@production", Scheme.MLFLOW, "chat@production", ""),
        ("models:/m-0a1b", Scheme.MLFLOW, "m-0a1b", ""),
        ("model-registry://chat/v3", Scheme.MODEL_REGISTRY, "chat", "v3"),
    ],
)
def test_each_kind_of_address_is_taken_apart(uri: str, scheme: Scheme, container: str, path: str):
    source = parse(uri)
    assert (source.scheme, source.container, source.path) == (scheme, container, path)
    assert check_uri(uri) == []


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://bucket", "Name the folder of the model too"),
        ("s3://Bucket/m", "not the name of a bucket"),
        ("s3://bucket/../other/m", "parts that are not taken"),
        ("s3://bucket/a//b", "parts that are not taken"),
        ("gs://bucket/m?x=1", "parts that are not taken"),
        ("pvc://Claim/m", "not the name of a volume claim"),
        ("pvc://claim/..", "parts that are not taken"),
        ("https://host.example/m.safetensors", "one file"),
        ("https://[::1]/m.gguf", "by its name: an address in brackets"),
        ("https:///m.gguf", "the server's name"),
        ("https://host.example/m.tar.gz?X-Amz-Signature=abc", "must not have a query"),
        ("https://host.example/m.tar.gz#x", "must not have a query"),
        ("https://who:what@host.example/m.tar", "user name or password"),
        ("https://who.github.io/m.tar", "Git repository"),
        ("https://acct.blob.core.windows.net/c/m.tar", "Azure"),
        ("models:/chat", "models:/name/version"),
        ("models:/chat/3/4", "models:/name/version"),
        ("model-registry://chat", "model-registry://name/version"),
    ],
)
def test_what_cannot_work_is_refused_at_its_field_with_an_example(uri: str, said: str):
    (finding,) = check_uri(uri)
    assert (finding.field, finding.is_error) == ("source_uri", True)
    assert said in finding.message


@given(text=st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str):
    kinds = ("hf://", "s3://", "gs://b/", "pvc://", "https://h/", "models:/", "model-registry://")
    for uri in (text, *(f"{kind}{text}" for kind in kinds)):
        check_uri(uri)


@pytest.mark.parametrize(
    ("uri", "loaded", "file"),
    [
        ("s3://bucket/models/m", "s3://bucket/models/m/", ""),
        ("s3://bucket/models/m/", "s3://bucket/models/m/", ""),
        ("s3://bucket/models/m.gguf", "s3://bucket/models/m.gguf", "m.gguf"),
        ("s3://bucket/models/m.tar.gz", "s3://bucket/models/m.tar.gz", ""),
        ("gs://bucket/models/m/", "gs://bucket/models/m", ""),
        ("https://host.example/m.gguf", "https://host.example/m.gguf", "m.gguf"),
        ("pvc://claim", "pvc://claim", ""),
        ("pvc://claim/m.gguf", "pvc://claim/m.gguf", ""),
    ],
)
def test_a_place_is_written_as_the_loader_reads_it(uri: str, loaded: str, file: str):
    assert (as_loaded(uri), file_of(loaded)) == (loaded, file)
    if uri.startswith("s3://"):
        assert as_anybody(loaded) == loaded.replace("bucket/", "bucket//")


def test_facts_come_from_metadata_and_configuration():
    facts = model_facts(MODEL, METADATA, CONFIG)
    assert facts.weights_bytes == 15_231_271_856
    assert (facts.layers, facts.heads, facts.kv_heads, facts.head_dim) == (28, 28, 4, 128)
    assert (facts.max_position, facts.sliding_window, facts.license) == (32768, None, "apache-2.0")
    assert facts.has_shape


def test_a_multimodal_model_is_read_from_its_text_part():
    config = {"text_config": CONFIG, "architectures": ["X"], "torch_dtype": "float16"}
    facts = model_facts(MODEL, METADATA, config)
    assert (facts.layers, facts.dtype, facts.architecture) == (28, "bfloat16", "X")


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (None, 32768),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 32768),
        ({"rope_type": "linear", "factor": 2.0}, 65536),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}, 32768),
        ({"rope_type": "yarn", "factor": "4"}, 32768),
    ],
)
def test_the_context_follows_the_scaling_that_is_not_applied_yet(scaling: Any, expected: int):
    assert model_facts(MODEL, METADATA, {**CONFIG, "rope_scaling": scaling}).max_position == expected


def test_sliding_layers_are_counted():
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    config = {**CONFIG, "use_sliding_window": True, "sliding_window": 1024, "layer_types": kinds}
    assert model_facts(MODEL, METADATA, config).sliding_layers == 5
    gemma = {**CONFIG, "use_sliding_window": None, "sliding_window": 1024, "model_type": "gemma3_text"}
    assert model_facts(MODEL, METADATA, {**gemma, "num_hidden_layers": 62}).sliding_layers == 52


def test_a_found_model_names_its_commit():
    result = check(MODEL, None, hub(Reply(200, METADATA), Reply(200, CONFIG)))
    assert result.code is SourceCode.FOUND
    assert result.model is not None
    assert result.model.sha == SHA


def test_a_repository_of_gguf_files_is_named_by_one_of_them():
    files = [{"rfilename": f"qwen-{kind}.gguf", "size": 4_000_000_000} for kind in ("q4_k_m", "q8_0")]
    result = check(MODEL, None, hub(Reply(200, {**METADATA, "siblings": files}), Reply(404)))
    assert result.code is SourceCode.UNUSABLE
    nearest = f"https://huggingface.co/{MODEL}/resolve/{SHA}/qwen-q4_k_m.gguf"
    assert result.remedy.endswith(nearest)
    assert parse(nearest).scheme is Scheme.HTTPS


def test_checkpoints_of_pytorch_are_served_and_known_as_such():
    files = [{"rfilename": "pytorch_model.bin", "size": 500}, {"rfilename": "config.json", "size": 9}]
    result = check(MODEL, None, hub(Reply(200, {**METADATA, "siblings": files}), Reply(200, CONFIG)))
    assert result.code is SourceCode.FOUND
    assert result.model is not None
    assert (result.model.format, result.model.weights_bytes) == ("pytorch", 500)


GATED = {**METADATA, "gated": "manual"}


@pytest.mark.parametrize(
    ("metadata", "config", "with_token", "code"),
    [
        (Reply(404), None, False, SourceCode.NOT_FOUND),
        (Reply(401), None, False, SourceCode.GATED),
        (Reply(401), None, True, SourceCode.BAD_TOKEN),
        (Reply(403), None, True, SourceCode.GATED),
        (Reply(200, GATED), Reply(401), False, SourceCode.GATED),
        (Reply(200, GATED), Reply(403), True, SourceCode.GATED),
        (Reply(0, error="timed out"), None, False, SourceCode.UNREACHABLE),
        (Reply(500), None, False, SourceCode.UNREACHABLE),
        (Reply(429), None, False, SourceCode.UNREACHABLE),
        (Reply(200, "<html>"), None, False, SourceCode.UNREACHABLE),
        (Reply(200, {"sha": "x"}), None, False, SourceCode.UNREACHABLE),
        (Reply(200, METADATA), Reply(404), False, SourceCode.UNUSABLE),
        (Reply(200, METADATA), Reply(503), False, SourceCode.UNREACHABLE),
        (Reply(200, {**METADATA, "siblings": []}), Reply(200, CONFIG), False, SourceCode.UNUSABLE),
    ],
)
def test_each_answer_of_the_hub_has_a_typed_result(
    metadata: Reply, config: Reply | None, with_token: bool, code: SourceCode
):
    result = check(MODEL, None, hub(metadata, config), with_token=with_token)
    assert result.code is code
    assert result.message
    assert result.remedy


def test_a_gated_model_still_tells_its_size():
    result = check(MODEL, None, hub(Reply(200, GATED), Reply(401)))
    assert result.model is not None
    assert result.model.gated
    assert result.model.weights_bytes == 15_231_271_856


def test_a_revision_cannot_leave_its_place_in_the_path():
    assert metadata_path(MODEL, "refs/pr/1") == f"/api/models/{MODEL}/revision/refs%2Fpr%2F1?blobs=true"
    assert config_path(MODEL, SHA) == f"/{MODEL}/resolve/{SHA}/config.json"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*CONFIG, *METADATA]), inner),
    max_leaves=12,
)


@given(metadata=st.dictionaries(st.sampled_from([*METADATA]), JSON), config=JSON)
def test_no_answer_of_a_hub_breaks_the_reading(metadata: dict[str, Any], config: Any):
    model_facts(MODEL, metadata, config)
    check(MODEL, None, hub(Reply(200, metadata), Reply(200, config)))


@pytest.mark.parametrize(
    ("page", "model", "revision"),
    [
        ("https://huggingface.co/Qwen/Qwen2.5-7B/tree/v1.0", "hf://Qwen/Qwen2.5-7B", "v1.0"),
        ("https://huggingface.co/Qwen/Qwen2.5-7B/tree/" + "a" * 40 + "/sub", "hf://Qwen/Qwen2.5-7B", "a" * 40),
        ("https://huggingface.co/Qwen/Qwen2.5-7B/tree/refs%2Fpr%2F1?x=1", "hf://Qwen/Qwen2.5-7B", "refs/pr/1"),
        ("http://www.huggingface.co/Qwen/Qwen2.5-7B/commits/dev", "hf://Qwen/Qwen2.5-7B", "dev"),
        ("https://huggingface.co/Qwen/Qwen2.5-7B/blob/dev/config.json", "hf://Qwen/Qwen2.5-7B", "dev"),
        # The usual branch is what is taken anyway; what is no revision is left out.
        ("https://huggingface.co/Qwen/Qwen2.5-7B/tree/main", "hf://Qwen/Qwen2.5-7B", None),
        ("https://huggingface.co/Qwen/Qwen2.5-7B/tree/..", "hf://Qwen/Qwen2.5-7B", None),
        ("https://hf.co/Qwen/Qwen2.5-7B?library=vllm", "hf://Qwen/Qwen2.5-7B", None),
        ("https://huggingface.co/Qwen/Qwen2.5-7B/discussions/3#top", "hf://Qwen/Qwen2.5-7B", None),
        (
            "https://huggingface.co/a/b/blob/main/m.gguf?download=true",
            "https://huggingface.co/a/b/resolve/main/m.gguf",
            None,
        ),
    ],
)
def test_a_page_of_the_hub_is_taken_apart_by_one_press(page: str, model: str, revision: str | None):
    (finding,) = check_uri(page)
    assert (finding.code, finding.is_error, finding.value) == ("source_scheme", True, model)
    assert finding.also == ((("/spec/source/revision", revision),) if revision else ())
    assert not [item for item in check_uri(str(finding.value)) if item.is_error]


def test_a_bucket_or_claim_that_is_none_says_what_one_is_called():
    for uri, words in (("s3://b/x", "3 to 63 lower-case"), ("gs://Bucket/x", "3 to 63"), ("pvc://A_b", "at most 63")):
        (finding,) = check_uri(uri)
        assert words in finding.message


def test_a_source_of_no_known_kind_is_told_all_of_them():
    with pytest.raises(SourceError) as refused:
        parse("ftp://host/x")
    assert refused.value.finding.remedy == (
        "Known: hf://, s3://, gs://, pvc://, oci://, https://, models:/, model-registry://."
    )
