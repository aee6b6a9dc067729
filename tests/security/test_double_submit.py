"""Fifty identical submits at the same moment are one wish: one row, one reservation, and the others hear why."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone

from deployments.models import (
    ApiToken,
    Approval,
    Deployment,
    EndpointKey,
    Invitation,
    QuotaGrant,
    QuotaRequest,
    Reservation,
    Revision,
    Team,
    User,
)
from deployments.services import invitation_mails, model_checks, tokens
from deployments.sources import Reply
from tests.deployments import factories as make

pytestmark = [pytest.mark.django_db(transaction=True)]

AT_ONCE = 50
KEY = {"Idempotency-Key": "one-press-of-a-button"}
Answer = tuple[int, dict[str, Any], dict[str, str]]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker and no hub."""
    monkeypatch.setattr("portal.lib.hints._send", lambda task, pk: None)
    monkeypatch.setattr(model_checks, "_get", lambda path: Reply(404))


@pytest.fixture
def team(transactional_db: None) -> Team:
    """A team whose requests are approved at once within its eight GPUs."""
    search = make.make_team("search", policy=Team.Policy.AUTO)
    make.make_grant(search, make.make_flavor(), 8)
    for each in (make.make_profile, make.make_cluster, make.make_check):
        each()
    return search


@pytest.fixture
def lead(team: Team) -> User:
    return make.make_user("lead", team=team, lead=True)


@pytest.fixture
def admin(team: Team) -> User:
    return make.make_user("admin", admin=True)


def bearer(user: User, *scopes: str) -> dict[str, str]:
    wanted = scopes or ("read", "write", "approve")
    _, text = tokens.create(principal=make.principal(user), name=make.a_name(), scopes=wanted)
    return {"Authorization": f"Bearer {text}"}


def at_once(send: Callable[[Client], Any], times: int = AT_ONCE) -> list[Any]:
    """What each of many answers; all are sent at the same moment, over connections of their own."""
    barrier = threading.Barrier(times)

    def one(_: int) -> Any:
        client = Client()
        barrier.wait(60)
        try:
            return send(client)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


def posted(path: str, body: dict[str, Any], headers: dict[str, str]) -> list[Answer]:
    """Status, document and headers of each of fifty posts."""

    def send(client: Client) -> Answer:
        answer = client.post(path, body, content_type="application/json", headers=headers)
        return answer.status_code, answer.json(), dict(answer.headers)

    return at_once(send)


def post(path: str, body: dict[str, Any], headers: dict[str, str], client: Client | None = None) -> Answer:
    """Status, document and headers of one post."""
    answer = (client or Client()).post(path, body, content_type="application/json", headers=headers)
    return answer.status_code, answer.json(), dict(answer.headers)


def code_of(answer: Answer) -> str:
    """The code of a problem; empty for what was done."""
    return str(answer[1].get("code", ""))


def all_refuse(answers: list[Answer], pointer: str, code: str) -> bool:
    """True where every answer but those that did it names this field."""
    told = [document["errors"] for status, document, _ in answers if status >= 400]
    return bool(told) and all([(one["pointer"], one["code"]) for one in each] == [(pointer, code)] for each in told)


def wish() -> dict[str, Any]:
    return {"team": "search", "name": "chat", "spec": make.a_spec()}


def one_wish() -> Deployment:
    """The one deployment that came of it, with one revision, one approval and its GPU reserved once."""
    assert (Revision.objects.count(), Approval.objects.count()) == (1, 1)
    assert list(Reservation.objects.values_list("kind", "delta")) == [("take", 1)]
    return Deployment.objects.get()


def test_a_request_with_a_key_is_done_once(lead: User) -> None:
    headers = {**bearer(lead), **KEY}

    answers = posted("/api/v1/deployments/", wish(), headers)

    row = one_wish()
    for status, document, sent in answers:
        if status == 201:
            assert document["id"] == row.pk
        else:
            assert (status, document["code"]) == (409, "in_flight")
            assert sent["Retry-After"]
    first_time = [sent for status, _, sent in answers if status == 201 and "Idempotent-Replayed" not in sent]
    assert len(first_time) == 1
    # Whoever tries again, as they were told to, gets the answer of the first.
    again = Client().post("/api/v1/deployments/", wish(), content_type="application/json", headers=headers)
    assert (again.status_code, again.json()["id"], again["Idempotent-Replayed"]) == (201, row.pk, "true")
    one_wish()


def test_a_request_without_a_key_is_done_once(lead: User) -> None:
    answers = posted("/api/v1/deployments/", wish(), bearer(lead))

    one_wish()
    assert Counter(status for status, _, _ in answers) == {201: 1, 422: AT_ONCE - 1}
    for status, document, _ in answers:
        if status == 422:
            assert [(error["pointer"], error["code"]) for error in document["errors"]] == [("/name", "name_taken")]
            assert "already" in document["errors"][0]["detail"]


def test_a_button_pressed_many_times_asks_once(lead: User) -> None:
    form = {"team": "search", "name": "chat", "source_uri": make.QWEN, "flavor": "h100-80gb", "max_model_len": "8192"}
    form |= {
        "strategy": "standard",
        "profile": "vllm-0.32.0",
        "replicas_min": "1",
        "replicas_max": "1",
        "tensor_parallel_size": "1",
    }
    browser = Client()
    browser.force_login(lead)

    def send(client: Client) -> tuple[int, str]:
        client.cookies = browser.cookies.copy()
        answer = client.post("/deployments/new/", form)
        return answer.status_code, answer.headers.get("Location", "")

    answers = at_once(send)

    assert set(answers) == {(302, f"/deployments/{one_wish().pk}/")}


@pytest.mark.parametrize("with_key", [True, False])
def test_an_approval_is_given_once(team: Team, lead: User, admin: User, with_key: bool) -> None:
    Team.objects.update(policy=Team.Policy.ASK)
    made = Client().post("/api/v1/deployments/", wish(), content_type="application/json", headers=bearer(lead))
    row = Deployment.objects.get(pk=made.json()["id"])
    assert not Reservation.objects.exists()

    headers = bearer(admin) | (KEY if with_key else {})
    answers = posted(f"/api/v1/deployments/{row.pk}/approve/", {"digest": row.latest.digest}, headers)

    one_wish()
    # Whoever comes with the key after it was done hears the same again.
    again = [document for _, document, told in answers if told.get("Idempotent-Replayed")]
    [done] = [document for status, document, told in answers if status == 200 and "Idempotent-Replayed" not in told]
    losers = [document["code"] for status, document, _ in answers if status == 409]
    assert len(again) + len(losers) == AT_ONCE - 1
    assert all((each["digest"], each["kind"]) == (done["digest"], done["kind"]) for each in again)
    assert set(losers) <= ({"in_flight"} if with_key else {"conflict"})
    assert with_key or not again


def test_a_card_of_the_inbox_decides_once(team: Team, lead: User, admin: User) -> None:
    Team.objects.update(policy=Team.Policy.ASK)
    Client().post("/api/v1/deployments/", wish(), content_type="application/json", headers=bearer(lead))
    revision = Revision.objects.get()
    browser = Client()
    browser.force_login(admin)

    def send(client: Client) -> tuple[int, str]:
        client.cookies = browser.cookies.copy()
        body = {"verdict": "approve", "digest": revision.digest}
        answer = client.post(f"/approvals/{revision.pk}/", body, headers={"HX-Request": "true"})
        return answer.status_code, answer.content.decode()

    answers = at_once(send)

    one_wish()
    assert Counter(status for status, _ in answers) == {200: 1, 409: AT_ONCE - 1}
    assert all("decided already" in text for status, text in answers if status == 422)


@pytest.mark.parametrize("with_key", [True, False])
def test_quota_is_asked_for_once(lead: User, with_key: bool) -> None:
    body = {"team": "search", "flavor": "h100-80gb", "gpus": 2, "why": "More traffic in spring."}

    answers = posted("/api/v1/quota-requests/", body, bearer(lead) | (KEY if with_key else {}))

    row = QuotaRequest.objects.get()
    assert {document["id"] for status, document, _ in answers if status == 201} == {row.pk}
    losers = {(status, document["code"]) for status, document, _ in answers if status != 201}
    assert losers <= ({(409, "in_flight")} if with_key else {(409, "asked_already")})
    assert with_key or Counter(status for status, _, _ in answers) == {201: 1, 409: AT_ONCE - 1}


def pressed(user: User, path: str, body: dict[str, Any]) -> list[tuple[int, str, str]]:
    """Status, address and page of each of fifty presses of one button."""
    browser = Client()
    browser.force_login(user)

    def send(client: Client) -> tuple[int, str, str]:
        client.cookies = browser.cookies.copy()
        answer = client.post(path, body)
        return answer.status_code, answer.headers.get("Location", ""), answer.content.decode()

    return at_once(send)


@pytest.mark.parametrize("nonce", ["n" * 32, ""], ids=["nonce", "no nonce"])
def test_a_grant_pressed_many_times_is_one_and_every_answer_leads_to_it(team: Team, admin: User, nonce: str) -> None:
    body = {"team": "search", "flavor": "h100-80gb", "gpus": "1", "until": "", "comment": "double", "once": nonce}

    answers = pressed(admin, "/quotas/grant/", body)

    assert QuotaGrant.objects.filter(comment="double").count() == 1
    assert {(status, where) for status, where, _ in answers} == {(302, "/quotas/")}


def test_a_key_pressed_many_times_is_one_and_every_answer_shows_it(lead: User) -> None:
    body = {"team": "search", "name": "twice", "days": "30", "reach": "every", "whose": "own", "once": "n" * 32}

    answers = pressed(lead, "/keys/new/", body)

    key = EndpointKey.objects.get()
    assert {status for status, _, _ in answers} == {201}
    texts = {page.partition('id="new-key">')[2].partition("<")[0] for _, _, page in answers}
    assert [tokens.digest_of(text) for text in texts] == [key.digest]


@pytest.mark.parametrize("whose", [True, False], ids=["own", "of the team"])
def test_keys_of_one_name_are_one_without_a_key_of_the_request(lead: User, whose: bool) -> None:
    body = {"team": "search", "name": "frontend", "every_deployment": True, "personal": whose}
    headers = bearer(lead, "write", "invoke")

    answers = posted("/api/v1/endpoint-keys/", body, headers)

    key = EndpointKey.objects.get()
    assert Counter(status for status, _, _ in answers) == {201: 1, 422: AT_ONCE - 1}
    assert all_refuse(answers, "/name", "name_taken")
    assert [document["id"] for status, document, _ in answers if status == 201] == [key.pk]
    # Another owner, another name; and the same one once the first has ended.
    other = body | {"personal": not whose}
    assert post("/api/v1/endpoint-keys/", other, headers)[0] == 201
    EndpointKey.objects.update(revoked_at=timezone.now())
    assert post("/api/v1/endpoint-keys/", body, headers)[0] == 201


def test_a_key_may_be_named_as_one_that_was_rotated(lead: User) -> None:
    headers = bearer(lead, "write", "invoke")
    body = {"team": "search", "name": "frontend", "every_deployment": True}
    _, made, _ = post("/api/v1/endpoint-keys/", body, headers)

    status, successor, _ = post(f"/api/v1/endpoint-keys/{made['id']}/rotate/", {}, headers)

    assert (status, successor["name"]) == (201, "frontend")
    assert all_refuse([post("/api/v1/endpoint-keys/", body, headers)], "/name", "name_taken")


def test_tokens_of_one_name_are_one(lead: User, admin: User) -> None:
    body = {"name": "ci", "scopes": ["read"], "days": 9}

    answers = posted("/api/v1/tokens/", body, bearer(lead))

    assert ApiToken.objects.filter(name="ci").count() == 1
    assert Counter(status for status, _, _ in answers) == {201: 1, 422: AT_ONCE - 1}
    assert all_refuse(answers, "/name", "name_taken")
    assert post("/api/v1/tokens/", body, bearer(admin))[0] == 201
    ApiToken.objects.filter(name="ci").update(revoked_at=timezone.now())
    assert post("/api/v1/tokens/", body, bearer(lead))[0] == 201


def test_an_address_is_invited_and_mailed_once(lead: User, settings: Any, mailoutbox: list[Any]) -> None:
    """A worker's part is played once the answers are there."""
    settings.SENDS_MAIL = True
    body = {"team": "search", "role": "member", "email": "new@example.org"}
    headers = bearer(lead)

    answers = posted("/api/v1/invitations/", body, headers)

    row = Invitation.objects.get()
    assert Counter(status for status, _, _ in answers) == {201: 1, 409: AT_ONCE - 1}
    assert {code_of(answer) for answer in answers} <= {"", "said_already", "in_flight"}
    # Sent otherwise, or a minute later: it still waits for its answer.
    status, document, _ = post("/api/v1/invitations/", body | {"email": "New@example.org", "role": "lead"}, headers)
    assert (status, document["code"]) == (409, "invited_already")
    assert [error["pointer"] for error in document["errors"]] == ["/email"]
    assert f"(number {row.pk})" in document["detail"]
    assert mailoutbox == []
    assert [invitation_mails.send(pk) for pk in invitation_mails.due(10)] == [True]
    assert [mail.to for mail in mailoutbox] == [["new@example.org"]]
    Invitation.objects.update(revoked_at=timezone.now())
    assert post("/api/v1/invitations/", body | {"role": "lead"}, headers)[0] == 201


def test_one_address_is_invited_once_by_several_leads(team: Team, lead: User, admin: User) -> None:
    other = bearer(make.make_user("other", team=team, lead=True))
    callers = [bearer(lead), other, bearer(admin)]
    body = {"team": "search", "role": "member", "email": "new@example.org"}
    turn = itertools.count()

    answers = at_once(lambda client: post("/api/v1/invitations/", body, callers[next(turn) % 3], client))

    assert Invitation.objects.count() == 1
    assert Counter(status for status, _, _ in answers) == {201: 1, 409: AT_ONCE - 1}
    assert {code_of(answer) for answer in answers} <= {"", "said_already", "in_flight", "invited_already"}


def test_a_link_for_whoever_has_it_is_made_once_a_minute(lead: User) -> None:
    answers = posted("/api/v1/invitations/", {"team": "search", "role": "member"}, bearer(lead))

    assert Invitation.objects.count() == 1
    assert Counter(status for status, _, _ in answers) == {201: 1, 409: AT_ONCE - 1}


def test_a_form_that_was_changed_before_it_was_sent_again_is_another_wish(team: Team, admin: User) -> None:
    browser = Client()
    browser.force_login(admin)
    body = {"team": "search", "flavor": "h100-80gb", "until": "", "comment": "wish", "once": "n" * 32}

    for gpus in ("1", "2", "1"):
        assert browser.post("/quotas/grant/", body | {"gpus": gpus}).status_code == 302

    assert list(QuotaGrant.objects.filter(comment="wish").order_by("pk").values_list("gpus", flat=True)) == [1, 2]


def test_a_form_that_was_refused_may_be_sent_again(team: Team, admin: User) -> None:
    browser = Client()
    browser.force_login(admin)
    body = {"team": "search", "flavor": "l4-24gb", "gpus": "1", "until": "", "comment": "wish", "once": "n" * 32}
    assert browser.post("/quotas/grant/", body).status_code == 422
    make.make_flavor("l4-24gb")

    assert browser.post("/quotas/grant/", body).status_code == 302

    assert QuotaGrant.objects.filter(comment="wish").count() == 1


def test_the_same_grant_by_the_api_within_a_minute_is_one(team: Team, admin: User) -> None:
    body = {"team": "search", "flavor": "h100-80gb", "gpus": 1, "comment": "double"}

    answers = posted("/api/v1/quota-grants/", body, bearer(admin))

    grant = QuotaGrant.objects.get(comment="double")
    assert Counter(status for status, _, _ in answers) == {201: 1, 409: AT_ONCE - 1}
    told = [document for status, document, _ in answers if status == 409]
    assert {document["code"] for document in told} <= {"said_already", "in_flight"}
    late = Client().post("/api/v1/quota-grants/", body, content_type="application/json", headers=bearer(admin))
    assert late.json()["code"] == "said_already"
    assert f"/quota-grants/{grant.pk}/" in late.json()["detail"]
    meant = Client().post("/api/v1/quota-grants/", body, content_type="application/json", headers=bearer(admin) | KEY)
    assert meant.status_code == 201
