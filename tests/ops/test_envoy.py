"""Keys on a cluster: a real Envoy asks `live` who calls, and the meter reads what passes and charges keys with it.

Envoy is configured as Envoy Gateway does from k8s/portal; the model's server is small.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from deployments.manifests import Resolution, Wish
from deployments.manifests.guards import http_route
from deployments.models import Deployment, EndpointKey, Team, User
from deployments.services import endpoint_keys as keys
from deployments.services import tokens, usage
from deployments.services.endpoint_keys import Limits
from deployments.services.rates import OwnCounters
from deployments.spec import DeploymentSpec
from portal.meter.exchange import Exchange
from tests.deployments import factories as make
from tests.ops import envoy
from tests.ops.engine import DONE, LAST, PIECES, WHOLE
from tests.ops.envoy_world import CHAT, World
from tests.ops.test_kubernetes import OBJECTS

pytestmark = pytest.mark.django_db(transaction=True)

PROMPT = 441 // 4  # bytes of a request for a stream, and so the tokens that its prompt is taken for
OPEN = "/search-x7k2p/open/v1/chat/completions"  # a route that somebody opened to all


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World()
    with envoy.running(tmp_path_factory.mktemp("envoy"), envoy.bootstrap(world.ports)) as url:
        world.url = url
        yield world
    world.close()


@pytest.fixture
def world(started: World, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    settings.ALLOWED_HOSTS, settings.METER = ["*"], True
    counting = OwnCounters()
    monkeypatch.setattr(usage, "counters", lambda: counting)
    started.engine.asked.clear()
    yield started
    started.counted()  # nothing of this test is written into the next


@pytest.fixture
def alice(transactional_db: None) -> User:
    return make.make_user("alice", team=make.make_team("search"), lead=True)


@pytest.fixture
def chat(alice: User) -> Deployment:
    return make.make_deployment(Team.objects.get(), alice, approved=True)


def key_of(chat: Deployment, alice: User, name: str = "ci", **limits: int) -> tuple[EndpointKey, str]:
    return keys.create(
        principal=make.principal(alice), team=chat.team, name=name, every_deployment=True, limits=Limits(**limits)
    )


def test_envoy_gateways_translation_is_of_these_very_objects() -> None:
    kinds = {"SecurityPolicy", "EnvoyExtensionPolicy", "ReferenceGrant", "HTTPRoute", "Service"}
    ours = [_route(), *(obj for obj in OBJECTS if obj["kind"] in kinds)]
    recorded = [obj for obj in envoy.TRANSLATED["from"] if obj["kind"] in kinds]

    assert sorted(recorded, key=_name) == sorted(ours, key=_name), "tests/data/envoy-gateway-1.7.0 must be made anew"


def test_nobody_passes_without_a_key(world: World, chat: Deployment) -> None:
    answers = [world.ask(), world.ask("slk_unknown")]

    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json()["error"]["code"] == "missing_token"
    assert world.engine.asked == []


def test_tokens_of_whole_answers_and_streams_are_charged_to_the_key_that_asked(
    world: World, chat: Deployment, alice: User
) -> None:
    (first, one), (second, other) = key_of(chat, alice), key_of(chat, alice, "other")

    whole = world.ask(one)
    stream = world.ask(other, stream=True, model="slices")
    asking = world.ask(other, stream=True, model="slices", stream_options={"include_usage": True})

    assert (whole.status_code, whole.content) == (200, WHOLE)
    # Whoever did not ask for usage does not see that the engine was asked for it.
    assert stream.content == b"".join([*PIECES, DONE])
    assert asking.content == b"".join([*PIECES, LAST, DONE])
    assert [asked.wish.get("stream_options") for asked in world.engine.asked] == [
        None,
        {"include_usage": True},
        {"include_usage": True},
    ]
    world.counts((first.pk, 1, 11, 7), (second.pk, 2, 22, 14))


def test_an_engine_sees_neither_key_nor_who_is_charged(world: World, chat: Deployment, alice: User) -> None:
    _, text = key_of(chat, alice)

    world.ask(text, stream=True)

    (asked,) = world.engine.asked
    assert asked.path == "/v1/chat/completions"
    assert {"authorization", "x-slipway-key"} & asked.headers.keys() == set()
    assert text not in str(asked.headers)


def test_a_key_over_its_tokens_waits(world: World, chat: Deployment, alice: User) -> None:
    key, text = key_of(chat, alice, tokens_per_minute=15)

    first = world.ask(text, stream=True)
    world.counts((key.pk, 1, 11, 7))
    over = world.ask(text, stream=True)

    assert (first.status_code, over.status_code) == (200, 429)
    assert over.json()["error"]["type"] == "tokens"
    assert 1 <= int(over.headers["retry-after"]) <= 60
    assert len(world.engine.asked) == 1


def test_who_is_charged_is_not_the_callers_to_say(world: World, chat: Deployment, alice: User) -> None:
    (victim, _), (mine, text) = key_of(chat, alice, "victim"), key_of(chat, alice, "mine")
    _, token = tokens.create(principal=make.principal(alice), name="t", scopes=["invoke"], days=1)
    forged = [(name, f"{victim.pk}.{chat.pk}") for name in ("x-slipway-key", "X-Slipway-Key")]

    for bearer in (text, token):
        headers = httpx.Headers([("authorization", f"Bearer {bearer}"), *forged])
        assert world.client.post(world.url + CHAT, json={"model": "chat"}, headers=headers).content == WHOLE

    # A program's token has no key that could be charged.
    world.counts((mine.pk, 1, 11, 7))


def test_on_a_route_that_is_open_to_all_nobody_is_charged(world: World, chat: Deployment, alice: User) -> None:
    victim, _ = key_of(chat, alice)

    for value in (f"{victim.pk}.{chat.pk}", f"{victim.pk}.{chat.pk}:1abcde:x", "none", ""):
        assert world.ask(path=OPEN, headers={"x-slipway-key": value}).content == WHOLE

    world.counts()


def test_pages_neither_ask_nor_pass_by_the_meter(world: World, chat: Deployment) -> None:
    pages = {"host": "slipway.example.com", "x-slipway-key": "kept"}

    assert world.ask(path="/search-x7k2p/chat/v1/chat/completions", headers=pages).content == WHOLE

    (asked,) = world.engine.asked
    assert (asked.path, asked.headers["x-slipway-key"]) == (CHAT, "kept")


def test_packed_answers_are_asked_for_plain_and_else_estimated(world: World, chat: Deployment, alice: User) -> None:
    key, text = key_of(chat, alice)

    plain = world.ask(text, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    world.counts((key.pk, 1, 11, 7))

    packed = world.ask(text, model="packs")
    assert (packed.headers["content-encoding"], packed.content) == ("gzip", WHOLE)
    sent = len(world.engine.asked[-1].body)
    world.counts((key.pk, 2, 11 + sent // 4, 7 + len(gzip.compress(WHOLE)) // 4))


def test_of_an_answer_that_breaks_off_what_came_is_charged(world: World, chat: Deployment, alice: User) -> None:
    key, text = key_of(chat, alice)

    with world.streamed(text, model="dies") as parts:
        next(parts)
        world.release()
        with pytest.raises(httpx.RemoteProtocolError):
            list(parts)

    world.counts((key.pk, 1, PROMPT, 3))


def test_of_a_caller_who_leaves_what_came_is_charged(world: World, chat: Deployment, alice: User) -> None:
    key, text = key_of(chat, alice)

    with world.streamed(text, model="waits") as parts:
        assert next(parts) == PIECES[0]  # passed on while the engine still computes

    world.counts((key.pk, 1, PROMPT, 1))
    world.release()


def test_refusals_of_the_engine_cost_nothing_and_other_paths_pass(world: World, chat: Deployment, alice: User) -> None:
    key, text = key_of(chat, alice)

    assert world.ask(text, model="refuses", stream=True).status_code == 400
    headers = {"authorization": f"Bearer {text}"}
    assert world.client.get(world.url + "/search-x7k2p/chat/v1/models", headers=headers).status_code == 200
    assert world.ask(text, path="/search-x7k2p/chat/v1/embeddings").status_code == 200

    world.counts((key.pk, 3, 11, 7))


@pytest.mark.parametrize("size", [100_000, 3_000_000, 5_000_000])
def test_a_long_prompt_arrives_whole(world: World, chat: Deployment, alice: User, size: int) -> None:
    key, text = key_of(chat, alice)
    words = "word " * (size // 5)

    answer = world.ask(text, stream=True, prompt=words)

    assert answer.content == b"".join([*PIECES, DONE])
    (asked,) = world.engine.asked
    assert asked.wish["prompt"] == words
    # One that is too large to be held is passed on as it came.
    assert asked.wish.get("stream_options") == ({"include_usage": True} if size < 4_000_000 else None)
    world.counts((key.pk, 1, *((11, 7) if size < 4_000_000 else (len(asked.body) // 4, len(PIECES)))))


def test_while_no_meter_answers_calls_pass_uncounted(world: World, chat: Deployment, alice: User) -> None:
    key, text = key_of(chat, alice)
    world.meter_stops()
    try:
        answer = world.ask(text, stream=True)
        assert answer.content == b"".join([*PIECES, DONE])
        assert world.ask("slk_unknown").status_code == 401
        assert "authorization" not in world.engine.asked[0].headers
        world.counts((key.pk, 1, 0, 0))
    finally:
        world.meter_starts()

    deadline = time.monotonic() + 10
    while world.counted()[0][2] == 0:
        assert time.monotonic() < deadline
        world.ask(text)


def test_a_stream_goes_on_without_its_meter_charged_with_what_had_come(
    world: World, chat: Deployment, alice: User
) -> None:
    key, text = key_of(chat, alice)

    with world.streamed(text, model="waits") as parts:
        came = next(parts)
        world.meter_stops()
        world.release()
        came += b"".join(parts)
    world.meter_starts()

    assert came == b"".join([*PIECES, LAST, DONE])  # nobody is left who would keep the event back
    world.counts((key.pk, 1, PROMPT, 1))


def test_a_request_that_loses_its_meter_midway_is_refused_and_never_half_answered(
    world: World, chat: Deployment, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = key_of(chat, alice)
    held, hold = threading.Event(), Exchange._request_body

    def noted(exchange: Exchange, piece: Any) -> Any:
        held.set()
        return hold(exchange, piece)

    monkeypatch.setattr(Exchange, "_request_body", noted)
    sent = orjson.dumps({"model": "chat", "stream": True, "prompt": "x" * 1000})

    def halves() -> Iterator[bytes]:
        yield sent[:500]
        assert held.wait(10)
        world.meter_stops()
        yield sent[500:]

    answer = world.client.post(world.url + CHAT, content=halves(), headers={"authorization": f"Bearer {text}"})
    world.meter_starts()

    assert answer.status_code == 400


def _name(obj: Any) -> tuple[str, ...]:
    return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _route() -> Any:
    wish = Wish(
        install_id="slipway",
        deployment_id="1",
        name="chat",
        namespace="search-x7k2p",
        team="search",
        revision=1,
        spec=DeploymentSpec.from_json({"source": {"uri": "hf://a/b"}, "flavor": "h100-80gb"}),
        resolution=Resolution(commit="0" * 40, image="vllm@sha256:0", product="NVIDIA-L4"),
    )
    return http_route(wish, {"group": "", "kind": "Service", "name": "chat-predictor", "port": 80})
