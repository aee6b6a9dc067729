"""A model with a LoRA adapter: fetched beside it, and answering under its own name."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.scenarios.stage import Says, Stage

pytestmark = pytest.mark.django_db

HAIKU = {"name": "haiku", "uri": "hf://slipway-examples/SmolLM2-135M-Instruct-haiku-lora"}


@pytest.mark.timeout(150)
def test_an_adapter_answers_under_its_own_name(stage: Stage):
    stage.comes_to(stage.ask(adapters=[HAIKU]), Says("Running"), within=60)

    [pod] = stage.pods()
    body = {"model": "haiku", "messages": [{"role": "user", "content": "Sea"}], "max_tokens": 4}
    request = urllib.request.Request(
        f"http://{pod['status']['podIP']}:8080/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert json.load(answer)["model"] == "haiku"
