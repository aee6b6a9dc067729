"""Idempotency-Key: a POST that is sent again is answered, not done again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.db import connection
from django.test import Client
from django.urls import resolve
from django.utils import timezone

from deployments.api.base import ApiViewSet
from deployments.models import ApiToken, Approval, Deployment, Event, Flavor, IdempotencyKey, QuotaGrant, Team, User
from deployments.services import idempotency, tokens
from tests.deployments import factories as make

Post = Callable[..., Any]


def poster(person: User) -> Post:
    client = Client()
    client.force_login(person)

    def post(path: str, body: Any = None, key: str | None = "k-1", **headers: str) -> Any:
        if key is not None:
            headers["Idempotency-Key"] = key
        return client.post(f"/api/v1/{path}", body or {}, content_type="application/json", headers=headers)

    return post


def test_the_same_request_is_answered_the_same_and_done_once(
    team: Team, ann: User, hub: list[str], spec: dict[str, Any]
) -> None:
    post = poster(ann)
    body = {"team": "search", "name": "chat", "spec": spec}
    first, again = post("deployments/", body), post("deployments/", dict(reversed(body.items())))

    assert first.status_code == again.status_code == 201
    assert again.json() == first.json()
    assert again["ETag"] == first["ETag"]
    assert "Idempotent-Replayed" not in first
    assert again["Idempotent-Replayed"] == "true"
    assert Deployment.objects.count() == Event.objects.filter(kind="requested").count() == 1


def test_without_a_key_nothing_is_kept(ann: User, hub: list[str], spec: dict[str, Any]) -> None:
    post = poster(ann)
    body = {"team": "search", "name": "chat", "spec": spec}

    assert post("deployments/", body, key=None).status_code == 201
    assert post("deployments/", body, key=None).status_code == 422
    assert not IdempotencyKey.objects.exists()


def test_no_body_is_stored(carol: User, ann: User, hub: list[str], spec: dict[str, Any]) -> None:
    poster(ann)("deployments/", {"team": "search", "name": "chat", "spec": spec, "note": "canary-7"})
    row = IdempotencyKey.objects.values().get()

    assert "canary-7" not in str(row)
    assert row["location"] == f"/api/v1/deployments/{Deployment.objects.get().pk}/"


@pytest.mark.parametrize("change", ["body", "if_match"])
def test_the_same_key_with_another_request_is_refused(team: Team, ann: User, h100: Flavor, change: str) -> None:
    chat = make.make_deployment(team, ann, approved=True)
    post = poster(ann)
    assert post(f"deployments/{chat.pk}/stop/", {"reason": "a"}).status_code == 202
    answer = post(
        f"deployments/{chat.pk}/stop/",
        {"reason": "b" if change == "body" else "a"},
        **({"If-Match": '"x"'} if change == "if_match" else {}),
    )

    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency_key_reused"


def test_keys_of_two_people_and_of_two_addresses_do_not_meet(team: Team, alice: User, ann: User, h100: Flavor) -> None:
    chat = make.make_deployment(team, ann, approved=True)
    assert poster(ann)(f"deployments/{chat.pk}/stop/").status_code == 202
    assert "Idempotent-Replayed" not in poster(alice)(f"deployments/{chat.pk}/stop/")
    assert poster(ann)("tokens/", {"name": "x", "scopes": ["read"], "days": 5}).status_code == 201


def test_a_request_under_way_is_a_conflict_with_retry_after(team: Team, ann: User, h100: Flavor) -> None:
    chat = make.make_deployment(team, ann, approved=True)
    post = poster(ann)
    assert post(f"deployments/{chat.pk}/stop/").status_code == 202
    IdempotencyKey.objects.update(status=None)
    answer = post(f"deployments/{chat.pk}/stop/")

    assert (answer.status_code, answer.json()["code"], answer["Retry-After"]) == (409, "in_flight", "1")


def test_a_request_that_broke_off_is_never_done_again(team: Team, ann: User, h100: Flavor) -> None:
    chat = make.make_deployment(team, ann, approved=True)
    post = poster(ann)
    post(f"deployments/{chat.pk}/stop/")
    IdempotencyKey.objects.update(status=None, created_at=timezone.now() - timedelta(minutes=3))

    assert post(f"deployments/{chat.pk}/stop/").json()["code"] == "outcome_unknown"


def test_a_bug_keeps_the_key(team: Team, ann: User, h100: Flavor, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = make.make_deployment(team, ann, approved=True)
    monkeypatch.setattr("deployments.services.lifecycle.stop", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        poster(ann)(f"deployments/{chat.pk}/stop/")

    assert IdempotencyKey.objects.get().status is None


def test_what_was_refused_may_be_tried_again_with_the_same_key(team: Team, ann: User, h100: Flavor) -> None:
    chat = make.make_deployment(team, ann)
    post = poster(ann)
    assert post(f"deployments/{chat.pk}/stop/").status_code == 409
    make.approve(chat.latest)

    assert post(f"deployments/{chat.pk}/stop/").status_code == 202


def test_a_token_is_shown_once(ann: User) -> None:
    post = poster(ann)
    body = {"name": "x", "scopes": ["read"], "days": 5}
    first, again = post("tokens/", body), post("tokens/", body)

    assert first.status_code == 201
    assert (again.status_code, again.json()["code"]) == (409, "shown_once")
    assert first.json()["token"] not in again.content.decode()
    assert ApiToken.objects.count() == 1


def test_a_decision_is_answered_again(team: Team, ann: User, carol: User, h100: Flavor) -> None:
    chat = make.make_deployment(team, ann)
    post = poster(carol)
    body = {"digest": chat.latest.digest, "comment": "fine"}
    first, again = post(f"deployments/{chat.pk}/approve/", body), post(f"deployments/{chat.pk}/approve/", body)

    assert first.status_code == again.status_code == 200
    assert again.json() == first.json()
    assert Approval.objects.count() == 1


def test_a_grant_is_answered_again(team: Team, carol: User, h100: Flavor) -> None:
    post = poster(carol)
    body = {"team": "search", "flavor": "h100-80gb", "gpus": 2, "comment": "more"}
    first, again = post("quota-grants/", body), post("quota-grants/", body)

    assert first.status_code == again.status_code == 201
    assert again.json() == first.json()
    assert QuotaGrant.objects.filter(gpus=2).count() == 1


def test_people_and_rules_are_answered_again(team: Team, carol: User, bob: User) -> None:
    post = poster(carol)
    wishes: list[tuple[str, dict[str, Any]]] = [
        ("teams/", {"slug": "new", "name": "New"}),
        ("teams/search/members/", {"username": "bob", "role": "member"}),
        ("group-rules/", {"group": "staff", "team": "search", "role": "member"}),
    ]
    for path, body in wishes:
        first, again = post(path, body), post(path, body)
        assert first.status_code == again.status_code == 201, (path, first.content, again.content)
        assert again.json() == first.json()


def test_an_invitation_is_shown_once(team: Team, alice: User) -> None:
    post = poster(alice)
    body = {"team": "search", "role": "member"}
    assert post("invitations/", body).status_code == 201
    assert post("invitations/", body).json()["code"] == "shown_once"


def test_every_post_of_the_api_takes_a_key() -> None:
    document = yaml.safe_load((Path(__file__).parents[2] / "docs" / "schema.yml").read_text(encoding="utf-8"))
    posts = {path: item["post"] for path, item in document["paths"].items() if "post" in item}

    assert len(posts) > 10
    for path, operation in posts.items():
        assert "Idempotency-Key" in {parameter["name"] for parameter in operation["parameters"]}, path
    views = {match.func.cls for match in (resolve(path.replace("{id}", "1").replace("{slug}", "a")) for path in posts)}
    assert all(issubclass(view, ApiViewSet) for view in views)


def test_a_preflight_is_simply_done_again(ann: User, hub: list[str], spec: dict[str, Any]) -> None:
    post = poster(ann)
    body = {"team": "search", "name": "chat", "spec": spec}

    assert post("preflight/", body).json() == post("preflight/", body).json()
    assert not IdempotencyKey.objects.exists()


def test_a_token_that_only_writes_is_answered_as_the_first_time(
    team: Team, ann: User, hub: list[str], spec: dict[str, Any]
) -> None:
    _, text = tokens.create(principal=make.principal(ann), name="x", scopes=["write"])
    body = {"team": "search", "name": "chat", "spec": spec}
    headers = {"Authorization": f"Bearer {text}", "Idempotency-Key": "k"}
    first, again = (
        Client().post("/api/v1/deployments/", body, content_type="application/json", headers=headers) for _ in "ab"
    )

    assert first.json() == again.json()
    assert again.status_code == 201


def test_who_left_the_team_is_not_answered(team: Team, ann: User, hub: list[str], spec: dict[str, Any]) -> None:
    post = poster(ann)
    body = {"team": "search", "name": "chat", "spec": spec}
    assert post("deployments/", body).status_code == 201
    ann.memberships.all().delete()

    assert post("deployments/", body).status_code == 404


@pytest.mark.parametrize("key", ["", " ", "a" * 201, "a b", "é"])
def test_a_key_that_is_none_is_refused(ann: User, key: str) -> None:
    answer = poster(ann)("tokens/", {"name": "x", "scopes": ["read"], "days": 5}, key=key)

    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency_key"


def test_keys_live_a_day(ann: User) -> None:
    post = poster(ann)
    body = {"name": "x", "scopes": ["read"], "days": 5}
    post("tokens/", body)
    post("tokens/", body | {"name": "y"}, key="k-2")
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
    ApiToken.objects.update(revoked_at=timezone.now())  # A living one of this name would stand in the way.

    assert post("tokens/", body).status_code == 201
    assert idempotency.forget_old() == 1
    assert IdempotencyKey.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_fifty_at_once_one_is_done() -> None:
    ann = make.make_user("ann")
    _, text = tokens.create(principal=make.principal(ann), name="x", scopes=["write", "read"])
    headers = {"Authorization": f"Bearer {text}", "Idempotency-Key": "k"}

    def send(_: int) -> Any:
        try:
            body = {"name": "made", "scopes": ["read"], "days": 5}
            return Client().post("/api/v1/tokens/", body, content_type="application/json", headers=headers)
        finally:
            connection.close()

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(send, range(50)))
    codes = sorted(answer.status_code for answer in answers)

    assert codes == [201] + [409] * 49
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"in_flight", "shown_once"}
    assert ApiToken.objects.filter(name="made").count() == 1
