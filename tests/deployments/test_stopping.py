"""Stopping several deployments at once: asked by name, done one by one, and told of each."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from deployments.models import Deployment, Event, Flavor, Team, User
from deployments.services import ledger, stopping
from deployments.services.errors import InvalidError
from tests.deployments import factories as make
from tests.deployments.apis import Api
from tests.deployments.viewing import flat, signed_in

pytestmark = pytest.mark.django_db

STOP = "/deployments/stop/"


@pytest.fixture
def running(team: Team, ann: User, h100: Flavor) -> list[Deployment]:
    """Two that run and hold a GPU each."""
    rows = [make.make_deployment(team, ann, name=name, gpus=1, approved=True) for name in ("chat", "code")]
    for row in rows:
        ledger.reserve(deployment=row, revision=row.latest, gpus=1)  # type: ignore[arg-type]
    return rows


@pytest.fixture
def others(h100: Flavor, bob: User) -> Deployment:
    """Of a team that only Bob belongs to."""
    labs = Team.objects.get(memberships__user=bob)
    return make.make_deployment(labs, bob, name="theirs", gpus=1, approved=True)


def wanted(*rows: Deployment) -> list[str]:
    return [Deployment.objects.get(pk=row.pk).wanted for row in rows]


def test_each_is_stopped_on_its_own_and_told_of(running: list[Deployment], others: Deployment, ann: User) -> None:
    chat, code = running
    waits = make.make_deployment(chat.team, ann, name="waits", gpus=1)
    stopping.stop_all(principal=make.principal(ann), pks=[code.pk])

    results = stopping.stop_all(
        principal=make.principal(ann), pks=[chat.pk, code.pk, waits.pk, others.pk, chat.pk], reason="Over night"
    )

    assert [(one.name, one.outcome) for one in results] == [
        ("chat", "stopping"),
        ("code", "unchanged"),
        ("waits", "conflict"),
        ("", "not_found"),
    ]
    assert results[2].message == "Nothing of it runs yet. Delete it to withdraw the request."
    assert wanted(chat, code, waits, others) == ["stopped", "stopped", "running", "running"]
    assert Event.objects.filter(kind="stopped", message="Stop asked for: Over night").count() == 1


@pytest.mark.parametrize("wish", [{"pks": []}, {"pks": range(1, 52)}, {"reason": "x" * 301}])
def test_what_cannot_be_meant_stops_nothing(running: list[Deployment], ann: User, wish: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        stopping.stop_all(**{"principal": make.principal(ann), "pks": [row.pk for row in running], **wish})
    assert wanted(*running) == ["running", "running"]


def test_the_page_names_what_stops_before_it_stops(running: list[Deployment], others: Deployment, ann: User) -> None:
    client, chosen = signed_in(ann), [row.pk for row in (*running, others)]

    asked = flat(client.get(STOP, {"d": chosen}).content.decode())

    assert "Stop 2 deployments?" in asked
    assert "<strong>chat</strong>" in asked
    assert "<strong>code</strong>" in asked
    assert "theirs" not in asked
    assert "1 of your selection is left out" in asked
    assert asked.count("1 GPU back") == 2
    assert wanted(*running) == ["running", "running"]

    done = flat(client.post(STOP, {"d": chosen, "reason": "Over night"}).content.decode())

    assert "2 deployments are stopping" in done
    assert "A deployment that you cannot see" in done
    assert wanted(*running, others) == ["stopped", "stopped", "running"]


def test_strangers_stop_nothing_and_learn_nothing(running: list[Deployment], bob: User) -> None:
    chosen = {"d": [row.pk for row in running]}
    asked = flat(signed_in(bob).get(STOP, chosen).content.decode())
    done = flat(signed_in(bob).post(STOP, chosen).content.decode())
    for text in (asked, done):
        assert "chat" not in text
    assert "Nothing to stop" in asked
    assert "Nothing was stopped" in done
    assert wanted(*running) == ["running", "running"]


def test_a_reason_that_is_too_long_is_said_at_its_field_and_kept(running: list[Deployment], ann: User) -> None:
    answer = signed_in(ann).post(STOP, {"d": [running[0].pk], "reason": "x" * 301})
    assert answer.status_code == 422
    text = flat(answer.content.decode())
    assert 'aria-invalid="true" aria-describedby="e-reason"' in text
    assert f'value="{"x" * 301}"' in text


@pytest.mark.parametrize("query", ["", "?d=x&d=-1&d=٣", "?d=999999999999"])
def test_nothing_selected_teaches(ann: User, query: str) -> None:
    answer = signed_in(ann).get(STOP + query)
    assert answer.status_code == 200
    assert "Nothing to stop" in answer.content.decode()


def test_rows_that_run_can_be_selected(running: list[Deployment], ann: User) -> None:
    waits = make.make_deployment(running[0].team, ann, name="waits", gpus=1)
    text = flat(signed_in(ann).get(reverse("deployment-list")).content.decode())
    for row in running:
        assert f'value="{row.pk}" data-select aria-label="Select {row.name}"' in text
    assert f'value="{waits.pk}" data-select' not in text
    assert 'id="bulk"' in text


def test_the_api_stops_several_and_says_what_became_of_each(
    running: list[Deployment], others: Deployment, ann: User
) -> None:
    chat, code = running
    answer = Api(ann)("post", "deployments/stop/", {"ids": [chat.pk, others.pk], "reason": "Over night"})
    assert answer.status_code == 200
    assert answer.json() == [
        {"id": chat.pk, "name": "chat", "outcome": "stopping", "message": ""},
        {"id": others.pk, "name": "", "outcome": "not_found", "message": "There is no such deployment."},
    ]
    assert wanted(*running, others) == ["stopped", "running", "running"]
    assert Api(ann, "read")("post", "deployments/stop/", {"ids": [code.pk]}).status_code == 403
    for body in ({}, {"ids": []}, {"ids": ["x"]}, {"ids": [code.pk], "force": True}, {"ids": list(range(1, 60))}):
        assert Api(ann)("post", "deployments/stop/", body).status_code in {400, 422}
    assert wanted(code) == ["running"]
