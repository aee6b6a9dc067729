"""The engine's HTTP side: OpenAI bodies, errors, metrics, and where the words come from."""

import asyncio

import httpx
import orjson

from sandbox.asgi import Request, end_stream, listen, send_chunk, start_stream
from sandbox.nodes import H100, L4
from tests.sandbox.engine_support import QWEN_7B, run_engine

TRAFFIC = {"x-slipway-traffic": "1"}
QUESTION = {"model": "chat", "messages": [{"role": "user", "content": "Say something."}], "max_tokens": 8}
PORT = "--port=8080"


def with_engine(ip, talk, *words, model_url="http://127.0.0.1:1", gpu=None):
    """Run `talk(post, get)` against an engine; returns its log."""
    url = f"http://{ip}:8080"

    async def until(process, http):
        async def post(body, path="/v1/chat/completions", headers=TRAFFIC):
            return await http.post(url + path, json=body, headers=headers)

        async def get(path):
            return await http.get(url + path)

        await talk(post, get)

    code, log = asyncio.run(
        run_engine([PORT, "--served-model-name=chat", *words], ip=ip, until=until, model_url=model_url, gpu=gpu or H100)
    )
    assert code == 0
    return log


def test_an_answer_has_vllms_shape_and_counts_its_tokens():
    async def talk(post, get):
        body = (await post(QUESTION | {"ignore_eos": True})).json()
        assert body["object"] == "chat.completion"
        assert body["choices"][0]["message"]["role"] == "assistant"
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["completion_tokens"] == 8
        assert len(body["choices"][0]["message"]["content"].split()) == 8
        text = (await post({"model": "chat", "prompt": "Once", "max_tokens": 3}, "/v1/completions")).json()
        assert text["object"] == "text_completion"
        assert text["choices"][0]["text"]

    with_engine("127.77.4.1", talk)


def test_a_stream_names_the_role_ends_with_a_reason_and_gives_usage_when_asked():
    async def talk(post, get):
        wish = QUESTION | {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
        answer = await post(wish)
        events = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert events[-1] == "[DONE]"
        chunks = [orjson.loads(event) for event in events[:-1]]
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert chunks[-2]["choices"][0]["finish_reason"] == "length"
        assert chunks[-1]["usage"]["completion_tokens"] == 8
        words = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks[:-1])
        assert len(words.split()) == 8

    with_engine("127.77.4.2", talk)


def test_errors_are_openais():
    async def talk(post, get):
        wrong = await post(QUESTION | {"model": "other"})
        assert wrong.status_code == 404
        assert wrong.json()["error"] == {
            "message": "The model `other` does not exist.", "type": "NotFoundError", "param": "model", "code": 404,
        }  # fmt: skip
        long = await post(QUESTION | {"max_tokens": 40000})
        assert long.status_code == 400
        assert "This model's maximum context length is 16384 tokens." in long.json()["error"]["message"]
        assert (await post({"model": "chat"})).status_code == 400
        for wrong in ({"temperature": "hot"}, {"n": "x"}, {"n": 2}, {"max_tokens": 0}, {"max_tokens": True},
                      {"stream_options": "usage"}, {"messages": ["hi"]}):  # fmt: skip
            answer = await post(QUESTION | wrong)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400), wrong
        assert (await post(["not an object"])).status_code == 400
        assert (await post(QUESTION, "/v1/embeddings")).status_code == 404
        assert (await get("/v1/chat/completions")).status_code == 405

    with_engine("127.77.4.3", talk, "--max-model-len=16384")


def test_health_version_and_models_answer():
    async def talk(post, get):
        assert (await get("/health")).status_code == 200
        assert (await get("/version")).json() == {"version": "0.32.0"}
        card = (await get("/v1/models")).json()["data"][0]
        assert (card["id"], card["root"], card["max_model_len"]) == ("chat", "/mnt/models", 32768)

    with_engine("127.77.4.4", talk)


def test_requests_are_counted_by_handler_and_status_and_probes_are_not():
    async def talk(post, get):
        await post(QUESTION)
        await post(QUESTION | {"model": "other"})
        await get("/health")
        text = (await get("/metrics")).text
        assert 'http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 1.0' in text
        assert 'http_requests_total{handler="/v1/chat/completions",method="POST",status="4xx"} 1.0' in text
        assert "/health" not in text
        assert 'vllm:cache_config_info{_block_size_resolved="True",block_size="16"' in text
        assert "http_request_duration_highr_seconds_count 2.0" in text

    log = with_engine("127.77.4.5", talk)
    assert any('"POST /v1/chat/completions HTTP/1.1" 404 Not Found' in line for line in log)


def test_an_api_key_is_asked_for():
    async def talk(post, get):
        assert (await post(QUESTION)).status_code == 401
        assert (await post(QUESTION, headers=TRAFFIC | {"authorization": "Bearer secret"})).status_code == 200
        assert (await get("/health")).status_code == 200

    with_engine("127.77.4.6", talk, "--api-key=secret")


def test_a_full_queue_refuses():
    async def talk(post, get):
        long = QUESTION | {"max_tokens": 20, "ignore_eos": True}
        answers = await asyncio.gather(*(post(long) for _ in range(8)))
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses[0] == 200
        assert statuses[-1] == 503
        text = (await get("/metrics")).text
        assert 'vllm:admission_rejections_total{model_name="chat",reason="max_num_queued_reqs"} 0.0' not in text

    with_engine("127.77.4.7", talk, "--max-num-seqs=1", "--max-num-queued-reqs=2")


def test_without_the_language_model_a_person_gets_an_error_and_no_words():
    async def talk(post, get):
        answer = await post(QUESTION, headers={})
        assert answer.status_code == 503
        assert "language model" in answer.json()["error"]["message"]
        assert 'vllm:num_requests_running{engine="0",model_name="chat"} 0.0' in (await get("/metrics")).text

    with_engine("127.77.4.8", talk)


def test_a_person_gets_the_language_models_words_at_the_gpus_pace():
    """The stand-in speaks at once; an L4 takes its time."""
    said = ["The", " sky", " is", " blue", "."]
    asked = []

    async def speaker(scope, receive, send):
        request = Request(scope, receive)
        asked.append(orjson.loads(await request.body()))
        await start_stream(send, "text/event-stream")
        for word in said:
            chunk = {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
            await send_chunk(send, b"data: " + orjson.dumps(chunk) + b"\n\n")
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        await send_chunk(send, b"data: " + orjson.dumps(last) + b"\n\ndata: [DONE]\n\n")
        await end_stream(send)

    async def main():
        listener = await listen(speaker, "127.77.4.9", 0)

        async def until(process, http):
            begun = asyncio.get_running_loop().time()
            answer = await http.post("http://127.77.4.9:8080/v1/chat/completions", json=QUESTION)
            took = asyncio.get_running_loop().time() - begun
            body = answer.json()
            assert body["choices"][0]["message"]["content"] == "".join(said)
            assert body["choices"][0]["finish_reason"] == "stop"
            assert body["usage"]["completion_tokens"] == 5
            assert 0.25 < took < 3

        url = f"http://127.77.4.9:{listener.address[1]}"
        await run_engine([PORT, "--served-model-name=chat"], ip="127.77.4.9", until=until, model_url=url, gpu=L4)
        listener.close()

    asyncio.run(main())
    assert asked[0]["messages"] == QUESTION["messages"]
    assert asked[0]["stream"] is True


def test_a_caller_that_leaves_stops_its_request():
    async def main():
        async def until(process, http):
            url = "http://127.77.4.10:8080"
            body = QUESTION | {"max_tokens": 4000, "ignore_eos": True, "stream": True}
            async with (
                httpx.AsyncClient(trust_env=False) as own,
                own.stream("POST", f"{url}/v1/chat/completions", json=body, headers=TRAFFIC) as answer,
            ):
                await anext(answer.aiter_lines())
            for _ in range(100):
                text = (await http.get(f"{url}/metrics")).text
                if 'vllm:num_requests_running{engine="0",model_name="chat"} 0.0' in text:
                    return
                await asyncio.sleep(0.02)
            raise AssertionError("the request still runs")

        await run_engine([PORT, "--served-model-name=chat"], ip="127.77.4.10", until=until, model=QWEN_7B)

    asyncio.run(main())
