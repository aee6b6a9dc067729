"""Endpoints are asked as a caller would ask, through the gateway, and only when something may answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from deployments.models import Deployment, Status, Wanted
from deployments.services import invoke, probes, states, telling
from portal.lib.outbound import Answer, OutboundError
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def row(alice, team, h100) -> Deployment:
    row = make.make_deployment(team, alice, approved=True)
    Deployment.objects.filter(pk=row.pk).update(state=Deployment.State.RUNNING)
    Status.objects.create(deployment=row, observed={"pods": [{"name": "p", "namespace": "ns", "ready": True}]})
    row.refresh_from_db()
    return row


class Gateway:
    """Answers in place of the gateway and writes down what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.models: tuple[int, Any] = (200, {"data": [{"id": "chat"}]})
        self.chat: tuple[int, bytes] = (200, b'{"choices":[{"message":{"content":"OK."}}]}')
        self.error: OutboundError | None = None

    def get_json(self, url: str, *, headers: dict[str, str], **_: Any) -> tuple[int, Any]:
        self.asked.append(("GET", url, headers, None))
        if self.error:
            raise self.error
        return self.models

    def request(self, method: str, url: str, *, headers: dict[str, str], json: Any, **_: Any) -> Answer:
        self.asked.append((method, url, headers, json))
        return Answer(self.chat[0], {}, self.chat[1], url)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    gateway = Gateway()
    monkeypatch.setattr(probes.outbound, "get_json", gateway.get_json)
    monkeypatch.setattr(probes.outbound, "request", gateway.request)
    return gateway


def test_an_answer_is_stored_with_its_latency(row, gateway):
    probes.probe(row.pk)

    row.refresh_from_db()
    assert row.probe["ok"] is True
    assert row.probe["answer"] == "OK."
    assert row.probe["latency_ms"] >= 0
    assert row.probed_at is not None
    [models, chat] = gateway.asked
    assert models[1].endswith(f"/{row.team.namespace}/chat/v1/models")
    assert chat[3]["max_tokens"] <= 8


def test_the_probe_is_admitted_like_any_caller(row, gateway):
    probes.probe(row.pk)
    header = gateway.asked[0][2]["authorization"]
    admitted = invoke.admit(header, row.team.namespace, row.name)
    assert isinstance(admitted, invoke.Admission)
    assert isinstance(invoke.admit(header, row.team.namespace, "another"), invoke.Refusal)


@pytest.mark.parametrize(
    ("models", "chat", "words"),
    [
        ((503, {"error": {"message": "no pod"}}), (200, b"{}"), "503: no pod"),
        ((200, {"data": []}), (200, b"{}"), "empty"),
        ((200, {"data": [{"id": "x"}]}), (500, b'{"error":"boom"}'), "500: boom"),
        ((200, {"data": [{"id": "x"}]}), (200, b'{"error":{"message":"x"}}'), "no text"),
        ((200, {"data": [{"id": "x"}]}), (200, b"<html>"), "JSON"),
        ((200, "text"), (200, b"{}"), "empty"),
    ],
)
def test_anything_else_is_a_failure_in_words(row, gateway, models, chat, words):
    gateway.models, gateway.chat = models, chat
    probes.probe(row.pk)
    row.refresh_from_db()
    assert row.probe["ok"] is False
    assert words in row.probe["detail"]
    assert row.probe["failures"] == 1


def test_failures_are_counted_until_an_answer(row, gateway):
    gateway.error = OutboundError("unreachable", "The gateway cannot be reached.")
    for _ in range(3):
        Deployment.objects.update(probed_at=None)
        probes.probe(row.pk)
    assert Deployment.objects.get().probe["failures"] == 3
    gateway.error = None
    Deployment.objects.update(probed_at=None)
    probes.probe(row.pk)
    assert Deployment.objects.get().probe["failures"] == 0


def test_open_pages_hear_of_an_answer_though_the_state_stays(row, gateway, monkeypatch):
    states.refresh(row.pk)
    heard: list[str] = []
    monkeypatch.setattr(telling, "notify", heard.extend)

    def told(error: OutboundError | None) -> list[str]:
        gateway.error = error
        Deployment.objects.update(probed_at=None)
        heard.clear()
        probes.probe(row.pk)
        return heard[-1:]

    assert told(None) == [f"deployment:{row.pk}"]
    assert told(None) == []  # a further answer is no news
    assert told(OutboundError("unreachable", "No route.")) == [f"deployment:{row.pk}"]


def test_a_doubled_message_asks_once(row, gateway):
    probes.probe(row.pk)
    probes.probe(row.pk)
    assert len(gateway.asked) == 2  # the models and one prompt


def test_what_is_stopped_is_not_asked(row, gateway):
    Deployment.objects.update(wanted=Wanted.STOPPED)
    probes.probe(row.pk)
    assert gateway.asked == []
    assert probes.due() == []


def test_due_are_those_not_asked_lately(row):
    assert probes.due() == [row.pk]
    Deployment.objects.update(probe={"ok": True}, probed_at=Now())
    assert probes.due() == []
    Deployment.objects.update(probed_at=Now() - timedelta(seconds=30))
    assert probes.due() == []
    Deployment.objects.update(probe={"ok": False})
    assert probes.due() == [row.pk]


def test_the_first_failures_are_asked_again_within_seconds(row):
    Deployment.objects.update(probed_at=Now() - timedelta(seconds=4), probe={"ok": False, "failures": 1})
    assert probes.due() == [row.pk]

    Deployment.objects.update(probed_at=Now() - timedelta(seconds=4), probe={"ok": False, "failures": 9})
    assert probes.due() == []


def test_without_a_ready_pod_nobody_is_asked(row):
    Status.objects.update(observed={"pods": [{"name": "p", "namespace": "ns", "ready": False}]})
    assert probes.due() == []


def test_finding_the_due_takes_one_query(row):
    with CaptureQueriesContext(connection) as queries:
        probes.due()
    assert len(queries) == 1
