"""Searching the hub in the request form: what each hit says, and what is said when there is no answer."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.urls import reverse

from deployments.forms.roles import BATCH
from deployments.models import Flavor, Team, User
from deployments.services import hub_search, source_checks
from deployments.sources import Reply
from deployments.sources.hub_search import MOST, Hit, hits_of, search_path
from sandbox.hub.app import Hub
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in

WISH = {"hub": "qwen", "flavor": "h100-80gb", "team": "search"}
HTMX = {"hx-request": "true"}


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sandbox's hub without a socket in between: the paths that it was asked for."""
    hub, asked = Hub(), []

    def get(path: str) -> Reply:
        asked.append(path)
        parts = urlsplit(path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        answer = hub.answer([part for part in parts.path.split("/") if part], query, None)
        return Reply(answer.status, json.loads(answer.body))

    monkeypatch.setattr(source_checks, "hub_get", lambda token="": get)
    return asked


def test_the_list_is_read_as_the_hub_writes_it(lists: list[str]) -> None:
    found = {hit.id: hit for hit in hub_search.search("hf://meta-llama").hits}

    # Of adapters the hub lists weights too.
    assert found["meta-llama/Llama-3.1-8B-Instruct"] == Hit(
        "meta-llama/Llama-3.1-8B-Instruct", True, "llama3.1", "text-generation", 2 * 8_030_261_248
    )
    asked = parse_qs(urlsplit(lists[0]).query)
    assert (asked["search"], asked["filter"], asked["limit"]) == (["meta-llama"], ["safetensors"], [str(MOST)])
    assert "safetensors" in asked["expand"]
    assert hub_search.search("no such model").hits == ()


@pytest.mark.parametrize(
    "answer", [None, {"error": "no"}, "text", [1, None, {"id": 5}, {"id": "no-owner"}, {"id": "../x/y"}]]
)
def test_nonsense_of_a_hub_is_no_hit(answer: Any) -> None:
    assert not hits_of(Reply(200, answer))
    odd = {"id": "a/b", "tags": {"license": 1}, "safetensors": {"parameters": {"BF16": -1}}, "gated": None}
    assert hits_of(Reply(200, [odd])) == [Hit("a/b")]


def test_words_cannot_change_what_is_asked() -> None:
    asked = parse_qs(urlsplit(search_path("a&limit=999#x")).query)
    assert (asked["search"], asked["limit"]) == (["a&limit=999#x"], [str(MOST)])


@pytest.mark.usefixtures("lists", "hub")
def test_each_hit_stands_beside_the_flavor_and_the_quota(alice: User) -> None:
    text = flat(signed_in(alice).get(reverse("deployment-hub"), WISH, headers=HTMX).content.decode())

    rows = {row.split("</strong>")[0].rpartition(">")[2]: row for row in text.split("<li>")[1:]}
    assert "fits 1 × H100-80GB with 32,768 tokens" in rows["Qwen/Qwen2.5-7B-Instruct"]  # Looked up before.
    assert "weights need 1 × H100-80GB or more" in rows["Qwen/Qwen2.5-14B-Instruct"]
    assert "weights need 2 × H100-80GB or more" in rows["Qwen/Qwen2.5-72B-Instruct"]
    assert "quota covers it (4 left)" in rows["Qwen/Qwen2.5-7B-Instruct"]
    assert "quota has 4 left" in rows["Qwen/Qwen2.5-72B-Instruct"]  # Weights alone promise nothing.
    assert "licence apache-2.0, 14.2 GiB" in rows["Qwen/Qwen2.5-7B-Instruct"]
    # Of what is not promised nothing is set.
    assert 'value="source_uri=hf://Qwen/Qwen2.5-72B-Instruct&amp;source_revision="' in text


@pytest.mark.usefixtures("lists")
def test_what_is_too_large_or_not_covered_is_said(team: Team, alice: User) -> None:
    make.make_flavor("l4-24gb")
    Flavor.objects.update(gpus_per_node=2)
    text = flat(signed_in(alice).get(reverse("deployment-hub"), {**WISH, "flavor": "l4-24gb"}).content.decode())

    assert "too large for one node of L4-24GB" in text
    assert "quota has 0 left" in text
    assert f'href="{reverse("deployment-create")}?uri=hf%3A//Qwen/Qwen2.5-7B-Instruct&amp;team=search"' in text
    # Searching again keeps what the hits are held against.
    assert '<input type="hidden" name="flavor" value="l4-24gb"><input type="hidden" name="team" value="search">' in text


@pytest.mark.usefixtures("lists")
def test_the_quota_of_other_teams_is_not_told(team: Team, h100: Flavor, bob: User) -> None:
    text = signed_in(bob).get(reverse("deployment-hub"), WISH, headers=HTMX).content.decode()
    assert "weights need" in text
    assert "quota" not in text


def test_a_hub_that_cannot_be_asked_is_said(monkeypatch: pytest.MonkeyPatch, team: Team, alice: User) -> None:
    monkeypatch.setattr(source_checks, "hub_get", lambda token="": lambda path: Reply(0, error="no route to host"))
    client = signed_in(alice)
    text = client.get(reverse("deployment-hub"), WISH, headers=HTMX).content.decode()
    assert "could not be searched (no route to host)" in text
    assert 'value="qwen"' in client.get(reverse("deployment-hub"), WISH).content.decode()


@pytest.mark.parametrize("words", ["", "q", "   "])
def test_too_few_words_ask_nobody(lists: list[str], team: Team, alice: User, words: str) -> None:
    assert signed_in(alice).get(reverse("deployment-hub"), {**WISH, "hub": words}).status_code == 200
    assert lists == []


def test_odd_words_do_no_harm(lists: list[str], team: Team, alice: User) -> None:
    client = signed_in(alice)
    for words in ("x" * 5000, "<script>", "%00", "\u202e\u202e"):
        answer = client.get(reverse("deployment-hub"), {"hub": words, "flavor": "%00", "team": "<b>"}, headers=HTMX)
        assert answer.status_code == 200
        assert b"<script>" not in answer.content
    assert "At most 100 characters" in client.get(reverse("deployment-hub"), {"hub": "x" * 101}).content.decode()


@pytest.mark.usefixtures("lists", "hub")
def test_a_search_takes_few_statements(alice: User, h100: Flavor, django_assert_max_num_queries: Any) -> None:
    hits = hub_search.search("qwen").hits
    with django_assert_max_num_queries(2):
        assert len(hub_search.judged(hits, h100, 4)) == MOST


@pytest.mark.usefixtures("hub")
def test_a_hit_is_put_into_the_form_and_what_was_typed_stays(alice: User) -> None:
    typed = {"source_uri": "hf://a/b", "source_revision": "main", "name": "chat", "flavor": "h100-80gb", "note": "Why."}
    pressed = {**typed, "team": "search", "way": f"source_uri={make.QWEN}&source_revision="}

    values = signed_in(alice).post(reverse("deployment-create"), pressed).context["values"]

    assert (values["source_uri"], values["source_revision"]) == (make.QWEN, "")
    assert (values["name"], values["note"]) == ("chat", "Why.")


def way_of(answer: Any, model: str) -> str:
    """What the button of a hit sets."""
    found = [str(row.way) for row in answer.context["hits"] if row.judged.hit.id == model]
    assert len(found) == 1
    return found[0]


@pytest.mark.usefixtures("lists", "hub")
@pytest.mark.parametrize(
    "typed",
    [
        {"strategy": "standard"},
        # Settings that were right for another model, one of them as a line of its own.
        {
            "strategy": "standard",
            "max_model_len": "131072",
            "gpu_memory_utilization": "0.2",
            "nodes": "2",
            "pipeline_parallel_size": "2",
            "quantization": "awq",
            "args": "--kv-cache-dtype=fp8",
            "replicas_max": "40",
        },
        {
            "strategy": "disaggregated",
            "max_model_len": "131072",
            "prefill_args": BATCH,
            "prefill_tensor_parallel_size": "4",
            "decode_args": BATCH,
            "decode_tensor_parallel_size": "3",
        },
    ],
    ids=["as it begins", "after another model", "roles"],
)
def test_what_a_hit_promises_holds_when_it_is_put_into_the_form(alice: User, typed: dict[str, str]) -> None:
    client = signed_in(alice)
    answer = client.get(reverse("deployment-hub"), {**WISH, **typed}, headers=HTMX)
    [hit] = [row.judged for row in answer.context["hits"] if row.judged.hit.id == "Qwen/Qwen2.5-7B-Instruct"]
    assert (hit.gpus, hit.context, hit.closely) == (1, 32_768, True)

    pressed = {"team": "search", "flavor": "h100-80gb", **typed, "way": way_of(answer, hit.hit.id)}
    page = client.post(reverse("deployment-create"), pressed)

    fits = page.context["advice"].fits
    assert fits
    assert {(one.word, one.gpus, one.fit.max_model_len) for one in fits} == {("fits", 1, 32_768)}
    assert not any(finding.is_error for finding in page.context["form"].findings if finding.field != "name")
    if typed.get("replicas_max"):
        assert hit.covered
        assert page.context["advice"].needed <= 4


@pytest.mark.usefixtures("lists", "hub")
def test_a_link_to_a_hit_begins_a_form_in_which_it_fits(alice: User) -> None:
    client = signed_in(alice)
    [row] = [
        row
        for row in client.get(reverse("deployment-hub"), WISH).context["hits"]
        if row.judged.hit.id == "Qwen/Qwen2.5-7B-Instruct"
    ]

    page = client.get(row.href)

    values = page.context["values"]
    assert (values["flavor"], values["max_model_len"], values["gpu_memory_utilization"]) == ("h100-80gb", "32768", "")
    assert [(one.word, one.gpus) for one in page.context["advice"].fits] == [("fits", 1)]


@pytest.mark.usefixtures("lists", "hub")
def test_the_search_stands_in_the_address_of_the_form(alice: User) -> None:
    client, new = signed_in(alice), reverse("deployment-create")

    def address(words: str, page: str) -> str | None:
        headers = {**HTMX, "hx-current-url": f"http://testserver{page}"}
        return client.get(reverse("deployment-hub"), {**WISH, "hub": words}, headers=headers).get("HX-Replace-Url")

    assert address("qwen 7b", new) == f"{new}?hub=qwen+7b"
    assert address("llama", f"{new}?team=search&hub=qwen") == f"{new}?team=search&hub=llama"
    assert address("", f"{new}?hub=qwen") == new
    # Any other page keeps its address, and so does one that is none.
    assert [address("qwen", page) for page in ("/", "/no/such/page/", "//[x")] == [None, None, None]

    page = client.get(new, {"hub": "qwen"}).content.decode()
    assert 'value="qwen"' in page
    assert 'hx-trigger="input delay:500ms, submit, load"' in page
    # A form that was only sent searches for nothing again.
    assert ", load" not in client.post(f"{new}?hub=qwen", {"team": "search", "way": "nodes="}).content.decode()
