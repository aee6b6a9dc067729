"""LoRA adapters of an LLMInferenceService on the lite ground, as KServe 0.20 brings them into the pods."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sandbox.engine.args import MODULE, parse
from sandbox.engine.errors import EngineExit
from sandbox.lite.controllers.llm_admission import validate
from sandbox.lite.controllers.llm_lora import Adapter, AdapterError, adapters_of, common_parent
from sandbox.lite.controllers.llm_storage import Source, attach_model
from sandbox.node.volumes import mount_at

HAIKU, SQL = {"name": "haiku", "uri": "hf://o/haiku:abc"}, {"name": "sql", "uri": "pvc://weights/sql"}
CUSTOM = {"name": "storage-initializer", "securityContext": {"runAsNonRoot": True}}
POD = {"containers": [{"name": "main"}], "initContainers": [CUSTOM]}
PLACES = ["hf://o/haiku:abc", "/mnt/lora/haiku"]


def spec_of(*adapters: dict[str, Any], uri: str = "hf://o/m:1", **lora: Any) -> dict[str, Any]:
    return {"model": {"name": "chat", "uri": uri, "lora": {"adapters": list(adapters), **lora}}}


def attached(spec: dict[str, Any], pod: dict[str, Any] | None = None, container: str = "main") -> Any:
    """A pod of this service after KServe has brought model and adapters in."""
    made = copy.deepcopy(pod or POD)
    known = adapters_of(spec, "search")
    attach_model(made, Source(spec["model"]["uri"], adapters=known, lora=spec["model"]["lora"]), container)
    return made


def test_model_and_adapters_are_fetched_by_one_initializer_into_one_volume() -> None:
    pod = attached(spec_of(HAIKU))
    (initializer,) = pod["initContainers"]
    assert initializer["args"] == ["hf://o/m:1", "/mnt/models", *PLACES]
    assert initializer["securityContext"] == {"runAsNonRoot": True}
    assert [mount["mountPath"] for mount in initializer["volumeMounts"]] == ["/mnt"]
    (main,) = pod["containers"]
    assert main["volumeMounts"] == [{"name": "kserve-provision-location", "mountPath": "/mnt", "readOnly": True}]
    assert main["args"] == [
        "--enable-lora",
        "--lora-modules",
        """'{"name":"haiku","path":"/mnt/lora/haiku"}'""",
        """'{"name":"publishers/search/models/haiku","path":"/mnt/lora/haiku"}'""",
    ]


@pytest.mark.parametrize("uri", ["pvc://weights/m", "oci+native://r/m@sha256:1"])
def test_beside_a_mounted_model_only_the_adapters_are_fetched(uri: str) -> None:
    pod = attached(spec_of(HAIKU, SQL, uri=uri, maxRank=32))
    (initializer,) = pod["initContainers"]
    assert initializer["args"] == PLACES
    (main,) = pod["containers"]
    places = {mount["mountPath"]: mount["name"] for mount in main["volumeMounts"]}
    assert set(places) == {"/mnt/models", "/mnt/lora/haiku", "/mnt/lora/sql"}
    assert places["/mnt/lora/sql"] == "lora-pvc-sql"
    assert main["args"][1] == "--max-lora-rank=32"
    # Of mounts in one another the innermost is what a container finds.
    mounts = [{"name": "all", "mountPath": "/mnt"}, *main["volumeMounts"]]
    assert (mount_at({"volumeMounts": mounts}, "/mnt/models/x") or {})["mountPath"] == "/mnt/models"
    assert (mount_at({"volumeMounts": mounts}, "/mnt/other") or {})["mountPath"] == "/mnt"


@pytest.mark.parametrize(
    "engine",
    [
        {"args": ["--lora-modules", "haiku=/mnt/lora/haiku"]},
        {"env": [{"name": "VLLM_ADDITIONAL_ARGS", "value": "--enable-lora --lora-modules haiku=/mnt/lora/haiku"}]},
    ],
)
def test_an_engine_that_is_told_already_is_told_nothing_more(engine: dict[str, Any]) -> None:
    pod = attached(spec_of(HAIKU), {"containers": [{"name": "main", **engine}]})
    (main,) = pod["containers"]
    assert main.get("args") == engine.get("args")
    assert pod["initContainers"][0]["args"][2:] == PLACES


def test_the_tokenizer_of_a_scheduler_gets_no_adapters() -> None:
    pod = attached(spec_of(HAIKU), {"containers": [{"name": "tokenizer"}]}, "tokenizer")
    assert pod["initContainers"][0]["args"] == ["hf://o/m:1", "/mnt/models"]
    assert "args" not in pod["containers"][0]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("oci://r/a", "oci:// is not supported for LoRA adapters"),
        ("https://h/a", 'unsupported URI scheme "https://"'),
        ("owner/a", "invalid URI"),
    ],
)
def test_what_kserve_fetches_no_adapters_from(uri: str, words: str) -> None:
    with pytest.raises(AdapterError, match=f'failed to enumerate LoRA adapters: LoRA adapter "haiku": {words}'):
        adapters_of(spec_of({**HAIKU, "uri": uri}), "search")
    off = {**spec_of(HAIKU), "storageInitializer": {"enabled": False}}
    with pytest.raises(AdapterError, match="require the storage initializer"):
        adapters_of(off, "search")


@pytest.mark.parametrize(
    ("adapters", "lora", "words"),
    [
        ([{"uri": "hf://o/a"}], {}, "spec.model.lora.adapters[0].name: Required value: adapter name is required"),
        ([{**HAIKU, "name": ".."}], {}, "path traversal risk"),
        ([HAIKU, HAIKU], {}, "duplicate name (same as adapters[0])"),
        ([{**HAIKU, "name": "chat"}], {}, 'adapter name must differ from base model name "chat"'),
        ([], {"maxRank": 0}, "spec.model.lora.maxRank: Invalid value: 0: maxRank must be at least 1"),
    ],
)
def test_what_the_webhook_has_against_adapters(adapters: list[Any], lora: dict[str, Any], words: str) -> None:
    service = {"metadata": {"name": "svc"}, "spec": spec_of(*adapters, **lora)}
    (refusal,) = validate(service, None)
    assert words in refusal
    assert validate({"metadata": {"name": "svc"}, "spec": spec_of(HAIKU, SQL)}, None) == []


def test_paths_have_the_folder_in_common_that_kserve_finds() -> None:
    assert common_parent(["/mnt/models", "/mnt/lora/a"]) == "/mnt"
    assert common_parent(["/mnt/lora/a", "/mnt/lora/b"]) == "/mnt/lora"
    assert common_parent(["/mnt/lora/a"]) == "/mnt/lora/a"
    assert Adapter("a/b", "hf://o/a", "ns").path == "/mnt/lora/a-b"


def test_an_engine_takes_adapters_as_json_and_refuses_words_in_quotes() -> None:
    words = ["--model", "m", "--enable-lora", "--lora-modules"]
    as_json = """{"name":"haiku","path":"/mnt/lora/haiku"}"""
    assert parse(["python", "-m", MODULE], [*words, as_json]).adapters == (("haiku", "/mnt/lora/haiku"),)
    with pytest.raises(EngineExit):
        parse(["python", "-m", MODULE], [*words, f"'{as_json}'"])
