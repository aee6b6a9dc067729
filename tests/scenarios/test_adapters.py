"""A model with a LoRA adapter: fetched beside it, and answering under its own name."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from deployments.models import Deployment, Principal
from deployments.services import credentials, probes
from deployments.services.errors import RefusedError
from tests.deployments import factories as make
from tests.deployments.sealing_keys import add, use_keys
from tests.scenarios.stage import SMALL, Says, Stage, engine
from tests.scenarios.test_credentials import reads, stored
from tests.scenarios.test_disaggregated import admitting, roles

pytestmark = pytest.mark.django_db

HAIKU = {"name": "haiku", "uri": "hf://slipway-examples/SmolLM2-135M-Instruct-haiku-lora"}
# Of which the hub tells nobody without a token that may read it; and one whose terms must be accepted.
HOUSE = {"name": "house", "uri": "hf://slipway-examples/SmolLM2-135M-Instruct-house-style-lora"}
CONTRACTS = {"name": "contracts", "uri": "hf://slipway-examples/SmolLM2-135M-Instruct-contracts-lora"}


@pytest.mark.timeout(150)
def test_an_adapter_answers_under_its_own_name(stage: Stage):
    stage.comes_to(stage.ask(adapters=[HAIKU]), Says("Running"), within=60)

    [pod] = stage.pods()
    assert asked(pod, "haiku") == "haiku"


@pytest.mark.timeout(300)
def test_private_adapters_are_fetched_with_the_token_of_the_team(stage: Stage, settings: Any):
    use_keys(settings)
    lead = make.principal(make.make_user("lead", team=stage.team, lead=True))
    wanted = {"source": {"uri": SMALL, "credential": "hub"}, "adapters": [HOUSE, CONTRACTS, HAIKU]}
    stage.open_namespace()
    with pytest.raises(RefusedError, match="private or gated"):
        stage.ask(adapters=[HOUSE])
    # A token whose account was given nothing.
    made = add(lead, stage.team, token="hf_unaccepted_by_its_account", test_uri=uris(SMALL, HOUSE, CONTRACTS))
    row = stored(stage, made)
    assert (row.test_code, [each["code"] for each in row.test_facts["adapters"]]) == ("found", ["not_found", "gated"])
    with pytest.raises(RefusedError, match="may see"):
        stage.ask(**wanted)

    enter_again(lead, made.pk, "hf_of_an_account_that_accepted", uris(SMALL, HOUSE, CONTRACTS))
    old = stored(stage, made).current
    chat = stage.comes_to(stage.ask(**wanted), Says("Running"), within=120)
    assert old.name not in json.dumps([chat.applied.objects_json, chat.applied.resolution])
    assert {each["name"]: "access" in each for each in chat.applied.resolution["adapters"]} == {
        "house": True,
        "contracts": True,
        "haiku": False,
    }
    [pod] = stage.pods()
    assert reads(pod) == {old.name}
    assert [asked(pod, name) for name in ("house", "contracts", "haiku")] == ["house", "contracts", "haiku"]

    # Entered again, it reaches the pods without an approval.
    enter_again(lead, made.pk, "hf_another_of_that_account", uris(SMALL, HOUSE, CONTRACTS))
    new = stored(stage, made).current

    def rolled() -> bool:
        pods = stage.pods()
        return len(pods) == 1 and reads(pods[0]) == {new.name} and ready(pods[0])

    chat = stage.comes_to_pass(chat, rolled, within=120, note="rotated")
    assert chat.latest.number == 1
    [pod] = stage.pods()
    assert asked(pod, "house") == "house"


@pytest.mark.timeout(300)
def test_adapters_of_prefill_and_decode(stage: Stage, settings: Any):
    row = stage.comes_to(stage.ask(**roles(adapters=[HAIKU])), Says("Running"), within=120)
    engines = [pod for pod in stage.pods() if pod["metadata"]["labels"].get("llm-d.ai/role")]
    assert sorted(pod["metadata"]["labels"]["llm-d.ai/role"] for pod in engines) == ["decode", "prefill"]
    for pod in engines:
        [initializer] = [item for item in pod["spec"]["initContainers"] if item["name"] == "storage-initializer"]
        assert initializer["args"] == [*fetched(row, "/mnt/models"), *adapter_of(row, "haiku")]
    # Through decode's sidecar, which has the prompt computed by prefill, under the adapter's name there too.
    decode = next(pod for pod in engines if pod["metadata"]["labels"]["llm-d.ai/role"] == "decode")
    assert asked(decode, "haiku", port=8000) == "haiku"
    settings.GATEWAY_URL = stage.ground.environment["GATEWAY_URL"]
    with admitting(stage.ground):
        assert probes.ask(row)["ok"]


@pytest.mark.timeout(300)
def test_an_adapter_of_a_replica_on_two_nodes(stage: Stage):
    split = engine(max_model_len=2048, pipeline_parallel_size=2)
    row = stage.comes_to(stage.ask(nodes=2, engine=split, adapters=[HAIKU]), Says("Running"), within=120)
    pods = {pod["metadata"]["name"]: pod for pod in stage.pods()}
    assert set(pods) == {"chat-kserve-mn-0", "chat-kserve-mn-0-1"}
    for pod in pods.values():
        [initializer] = [item for item in pod["spec"]["initContainers"] if item["name"] == "storage-initializer"]
        assert initializer["args"] == [*fetched(row, "/mnt/models"), *adapter_of(row, "haiku")]
    assert asked(pods["chat-kserve-mn-0"], "haiku", port=8000) == "haiku"


def fetched(row: Deployment, place: str) -> list[str]:
    """What an initializer is told of the model."""
    return [row.applied.resolution["storage_uri"], place]


def adapter_of(row: Deployment, name: str) -> list[str]:
    """What it is told of an adapter."""
    [known] = [each for each in row.applied.resolution["adapters"] if each["name"] == name]
    return [known["uri"], f"/mnt/lora/{name}"]


def uris(model: str, *adapters: dict[str, str]) -> str:
    """What a token is tested with."""
    return " ".join([model, *(each["uri"] for each in adapters)])


def enter_again(lead: Principal, credential: int, token: str, test_uri: str) -> None:
    """Another value for a credential."""
    credentials.rotate(principal=lead, credential_id=credential, fields={"token": token}, test_uri=test_uri)


def ready(pod: dict[str, Any]) -> bool:
    """True when its engine answers."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def asked(pod: dict[str, Any], model: str, port: int = 8080) -> str:
    """The model that an engine says it answered with."""
    body = {"model": model, "messages": [{"role": "user", "content": "Sea"}], "max_tokens": 4}
    request = urllib.request.Request(
        f"http://{pod['status']['podIP']}:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(json.load(answer)["model"])
