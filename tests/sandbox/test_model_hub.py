"""The hub answers as huggingface.co does, with true configurations and sizes."""

import orjson
import pytest

from sandbox.engine.shape import read
from sandbox.hub.app import Hub
from sandbox.hub.catalog import load

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
QWEN = "Qwen/Qwen2.5-7B-Instruct"


@pytest.fixture(scope="module")
def ask():
    hub = Hub()

    def get(path, token=None, head=False, **query):
        return hub.answer(path.strip("/").split("/"), query, token, head=head)

    return get


def json_of(answer):
    return orjson.loads(answer.body)


def test_model_information_has_sha_siblings_and_parameters(ask):
    body = json_of(ask(f"/api/models/{QWEN}", blobs="true"))

    sizes = {entry["rfilename"]: entry["size"] for entry in body["siblings"]}
    assert body["sha"] == "a09a35458c702b33eeacc393d103063234e8bc28"
    assert body["safetensors"] == {"parameters": {"BF16": 7615616512}, "total": 7615616512}
    assert sizes["model-00001-of-00004.safetensors"] == 3945441440
    assert body["gated"] is False


def test_sizes_are_given_only_with_blobs_as_on_the_hub(ask):
    assert "size" not in json_of(ask(f"/api/models/{QWEN}"))["siblings"][0]


def test_a_commit_is_a_revision_and_others_are_unknown(ask):
    assert ask(f"/api/models/{QWEN}/revision/a09a35458c702b33eeacc393d103063234e8bc28").status == 200
    answer = ask(f"/api/models/{QWEN}/revision/nope")
    assert (answer.status, dict(answer.headers)["x-error-code"]) == (404, "RevisionNotFound")


def test_config_json_is_the_models_own(ask):
    config = json_of(ask(f"/{QWEN}/resolve/main/config.json"))

    assert (config["hidden_size"], config["num_hidden_layers"], config["num_key_value_heads"]) == (3584, 28, 4)


def test_head_of_a_weight_file_tells_its_size(ask):
    answer = ask(f"/{QWEN}/resolve/main/model-00004-of-00004.safetensors", head=True)

    headers = dict(answer.headers)
    assert answer.status == 200
    assert headers["x-linked-size"] == "3556377672"
    assert headers["x-repo-commit"] == "a09a35458c702b33eeacc393d103063234e8bc28"


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        (None, 401, "GatedRepo"),
        ("hf_unaccepted_1", 403, "GatedRepo"),
        ("hf_invalid", 401, None),
        ("hf_good", 200, None),
    ],
)
def test_gated_files_need_a_token_whose_owner_accepted(ask, token, status, code):
    answer = ask(f"/{LLAMA}/resolve/main/config.json", token=token)

    assert answer.status == status
    assert dict(answer.headers).get("x-error-code") == code


def test_gated_models_are_described_to_everybody(ask):
    assert json_of(ask(f"/api/models/{LLAMA}"))["gated"] == "manual"


def test_an_unknown_repository_is_not_found(ask):
    answer = ask("/api/models/nobody/nothing")
    assert (answer.status, dict(answer.headers)["x-error-code"]) == (404, "RepoNotFound")
    assert ask(f"/{QWEN}/resolve/main/missing.bin").status == 404


def test_weights_themselves_are_not_there_and_it_says_so(ask):
    assert ask(f"/{QWEN}/resolve/main/model-00004-of-00004.safetensors").status == 501


def test_whoami_knows_valid_tokens(ask):
    assert ask("/api/whoami-v2", token="hf_good").status == 200
    assert ask("/api/whoami-v2").status == 401


def test_tree_and_search_list_what_there_is(ask):
    tree = json_of(ask(f"/api/models/{QWEN}/tree/main"))
    assert {"config.json", "tokenizer.json"} <= {entry["path"] for entry in tree}
    found = json_of(ask("/api/models", search="llama"))
    assert {entry["id"] for entry in found} >= {LLAMA}
    assert "safetensors" not in found[0]
    more = json_of(ask("/api/models", search="llama", filter="safetensors", expand="safetensors"))
    assert all(sum(entry["safetensors"]["parameters"].values()) == entry["safetensors"]["total"] for entry in more)
    assert json_of(ask("/api/models", search="llama", filter="gguf")) == []


@pytest.mark.parametrize("model", sorted(load()))
def test_weight_files_hold_what_the_configuration_says(model):
    """16-bit checkpoints: two bytes for each parameter, and under one part in a thousand for headers."""
    found = load()[model]
    shape = read(found.config, {file.name: file.size for file in found.files})

    if shape.quantization is None:
        assert shape.weight_bytes == pytest.approx(2 * sum(found.parameters.values()), rel=1e-3)
        assert shape.weight_bytes > 2 * sum(found.parameters.values())
    else:
        assert shape.weight_bytes < 2 * shape.parameters / 2.5
