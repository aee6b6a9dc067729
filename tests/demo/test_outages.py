"""With a part of the stack away every page still answers, quickly, and says what is missing.

A stopped process is the hard case: its port takes connections and nobody ever answers.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .people import Person, wait_until
from .visitor import Visitor, text_of

PAGES = (
    "/",
    "/deployments/",
    "/deployments/new/",
    "/deployments/{pk}/",
    "/deployments/{pk}/edit/",
    "/deployments/{pk}/metrics/",
    "/deployments/{pk}/logs/",
    "/deployments/{pk}/revisions/",
    "/deployments/{pk}/manifests/",
    "/deployments/{pk}/prompt/",
    "/catalogue/",
    "/approvals/",
    "/quotas/",
    "/capacity/",
    "/metrics/",
    "/account/",
)
PARTS = (
    "/overview/gpus/",
    "/metrics/badge/",
    "/metrics/charts/?set=overview",
    "/metrics/charts/",
    "/metrics/columns/?ids={pk}",
    "/deployments/{pk}/charts/",
    "/deployments/{pk}/charts/?set=all",
)
API = (
    "/api/v1/deployments/",
    "/api/v1/deployments/{pk}/",
    "/api/v1/deployments/{pk}/revisions/",
    "/api/v1/deployments/{pk}/metrics/",
    "/api/v1/teams/",
    "/api/v1/flavors/",
    "/api/v1/quota-grants/",
    "/api/v1/reservations/",
    "/api/v1/catalog/",
    "/api/v1/events/",
    "/api/v1/profiles/",
    "/api/v1/tokens/",
    "/api/v1/whoami/",
)
# Pages of the deployment's own team that no admin edits.
ADMIN_PAGES = (*(page for page in PAGES if "edit" not in page), "/cluster/")
SECONDS = 6.0  # a part may wait once for something that hangs
PAGE_SECONDS = 3.0  # a page itself never does


pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def alice(demo: dict[str, Any]) -> Iterator[Visitor]:
    with Visitor(demo, "alice") as visitor:
        yield visitor


@pytest.fixture(scope="module")
def carol(demo: dict[str, Any]) -> Iterator[Visitor]:
    with Visitor(demo, "carol") as visitor:
        yield visitor


@pytest.fixture(scope="module")
def chat(demo: dict[str, Any]) -> int:
    """The seeded deployment of Alice's team, running and observed."""
    person = Person.named(demo, "alice")
    status, answer = person.call("GET", "/api/v1/deployments/?name=chat")
    assert status == 200
    pk = int(answer["results"][0]["id"])
    person.wait_for(pk, "Running", 120)
    return pk


@contextmanager
def stopped(demo: dict[str, Any], program: str) -> Iterator[None]:
    """Stop one process, so that it hangs; it goes on at the end."""
    pid = json.loads((Path(demo["data"]) / "processes.json").read_text())[program]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def sweep(demo: dict[str, Any], pk: int, people: dict[str, Visitor]) -> dict[str, str]:
    """Open everything as everybody; what was slow or not 200 fails. Returns the last person's words by address."""
    said: dict[str, str] = {}
    wrong: list[str] = []
    for name, visitor in people.items():
        for path in ADMIN_PAGES if name == "carol" else PAGES:
            _open(visitor, path.format(pk=pk), False, PAGE_SECONDS, said, wrong, name)
        for path in PARTS:
            _open(visitor, path.format(pk=pk), True, SECONDS, said, wrong, name)
        person = Person.named(demo, name)
        for path in API:
            status, answer = person.call("GET", path.format(pk=pk))
            if status != 200:
                wrong.append(f"{name} {path}: {status} {answer}")
    assert not wrong, "\n".join(wrong)
    return said


@pytest.fixture
def everybody(alice: Visitor, carol: Visitor) -> dict[str, Visitor]:
    return {"alice": alice, "carol": carol}


def test_without_prometheus_charts_say_so_and_since_when(
    demo: dict[str, Any], chat: int, everybody: dict[str, Visitor]
) -> None:
    with stopped(demo, "prometheus"):
        said = sweep(demo, chat, everybody)

        assert re.search(r"Prometheus unreachable since \d\d:\d\d:\d\d", said["/metrics/badge/"])
        for part in (f"/deployments/{chat}/charts/", "/metrics/charts/", f"/deployments/{chat}/charts/?set=all"):
            assert re.search(r"Prometheus cannot be reached.*? Away since \d\d:\d\d:\d\d", said[part]), said[part]
        columns = everybody["alice"].get(f"/metrics/columns/?ids={chat}", htmx=True).text
        assert "Prometheus cannot be reached" in columns
        panels = Person.named(demo, "alice").call("GET", f"/api/v1/deployments/{chat}/metrics/")[1]["panels"]
        assert {panel["display"] for panel in panels} == {"unreachable"}

    wait_until(lambda: badge_of(everybody["alice"]) == "Prometheus", 30, lambda: badge_of(everybody["alice"]))


def test_without_redis_pages_say_that_wishes_wait(
    demo: dict[str, Any], chat: int, everybody: dict[str, Visitor]
) -> None:
    with stopped(demo, "redis"):
        wait_until(lambda: "Queue unreachable" in badge_of(everybody["alice"]), 10)
        said = sweep(demo, chat, everybody)
        assert re.search(r"Queue unreachable since \d\d:\d\d:\d\d", said["/metrics/badge/"])

    wait_until(lambda: badge_of(everybody["alice"]) == "Prometheus", 30, lambda: badge_of(everybody["alice"]))


def test_without_the_cluster_pages_show_the_last_that_was_seen(
    demo: dict[str, Any], chat: int, everybody: dict[str, Visitor]
) -> None:
    alice = everybody["alice"]
    with stopped(demo, "apiserver"):
        wait_until(lambda: "cluster: not reached since" in text_of(alice.get("/").text), 30)
        said = sweep(demo, chat, everybody)

        parts = {part.format(pk=chat) for part in PARTS}
        for page in said.keys() - parts:
            assert re.search(r"cluster: not reached since \d\d:\d\d:\d\d", said[page]), (page, said[page][:600])
        for page in ("/", "/capacity/"):
            assert re.search(r"What stands here of the cluster was seen \d+ s ago", said[page])
        assert "The cluster cannot be reached since" in said["/cluster/"]
        log = alice.get(f"/live/logs/{chat}/")
        assert (log.status_code, log.json()["message"]) == (503, "The cluster cannot be reached just now.")
        status, body = Person.named(demo, "alice").call("GET", f"/api/v1/deployments/{chat}/logs/")
        assert status == 503, body
        # What runs goes on answering.
        assert "event: done" in prompt(alice, chat)

    wait_until(lambda: "cluster: live" in text_of(alice.get("/").text), 40)


def test_a_prompt_says_within_seconds_that_the_gateway_hangs(
    demo: dict[str, Any], chat: int, everybody: dict[str, Visitor]
) -> None:
    alice = everybody["alice"]
    with stopped(demo, "gateway"):
        begun = time.monotonic()
        assert "The gateway cannot be reached just now." in prompt(alice, chat)
        assert time.monotonic() - begun < 12
        sweep(demo, chat, everybody)

    wait_until(lambda: "event: done" in prompt(alice, chat), 30, lambda: prompt(alice, chat))


def test_a_prompt_says_within_seconds_that_the_model_hangs(
    demo: dict[str, Any], chat: int, everybody: dict[str, Visitor]
) -> None:
    alice = everybody["alice"]
    with stopped(demo, "model"):
        begun = time.monotonic()
        said = prompt(alice, chat)
        assert "language model, which writes the answers of its engines, is not available" in said
        assert time.monotonic() - begun < 12

    wait_until(lambda: "event: done" in prompt(alice, chat), 30, lambda: prompt(alice, chat))


def badge_of(visitor: Visitor) -> str:
    return text_of(visitor.get("/metrics/badge/", htmx=True).text)


def prompt(visitor: Visitor, pk: int) -> str:
    """What the prompt page would be told: the events of one answer."""
    wish = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
    answer = visitor.send("POST", f"/live/prompt/{pk}/", json=wish)
    assert answer.status_code == 200, answer.text
    return answer.text


def _open(
    visitor: Visitor, path: str, htmx: bool, seconds: float, said: dict[str, str], wrong: list[str], name: str
) -> None:
    begun = time.monotonic()
    try:
        answer = visitor.get(path, htmx=htmx)
    except Exception as error:  # a hang is told with the others
        wrong.append(f"{name} {path}: {type(error).__name__} after {time.monotonic() - begun:.1f} s")
        return
    took = time.monotonic() - begun
    if answer.status_code != 200 or took > seconds:
        wrong.append(f"{name} {path}: {answer.status_code} after {took:.1f} s")
    said[path] = text_of(answer.text)
