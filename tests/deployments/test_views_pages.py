"""The pages of one deployment, the inbox, quotas, tokens: what they say, and what their buttons do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import yaml
from django.urls import reverse
from django.utils import timezone

from deployments.kube.observe import ContainerView, EventView
from deployments.models import ApiToken, Approval, Deployment, Event, Flavor, QuotaGrant, Reservation, Team, User
from deployments.services import ledger, requests
from deployments.spec import DeploymentSpec
from tests.demo.visitor import text_of
from tests.deployments import factories as make
from tests.deployments.viewing import flat, observe, pod, signed_in

State = Deployment.State
HOSTILE = '<img src=x onerror=alert(1)><div hx-get="/accounts/logout/" hx-trigger="load">'


@pytest.fixture
def chat(team: Team, ann: User, h100: Flavor) -> Deployment:
    """An approved deployment whose revision is applied."""
    make.make_profile()
    row = make.make_deployment(team, ann, approved=True)
    Deployment.objects.filter(pk=row.pk).update(applied=row.latest, state=State.RUNNING)
    row.refresh_from_db()
    return row


def page(person: User, name: str, row: Deployment, **query: str) -> Any:
    return signed_in(person).get(reverse(f"deployment-{name}", args=[row.pk]), query)


def marks(answer: Any) -> dict[str, str]:
    return {step.label: step.mark for step in answer.context["steps"]}


def test_a_serving_deployment_has_every_step_done(chat: Deployment, alice: User) -> None:
    answered = {"ok": True, "latency_ms": 412, "answer": "<b>OK", "at": timezone.now().isoformat()}
    Deployment.objects.filter(pk=chat.pk).update(probe=answered, probed_at=timezone.now())
    observe(chat, pods=(pod(),))

    answer = page(alice, "detail", chat)

    assert set(marks(answer).values()) == {"done"}
    assert list(marks(answer)) == [
        "Requested",
        "Approved",
        "Applied",
        "Scheduled",
        "Image",
        "Weights",
        "Engine",
        "Ready",
        "Answering",
    ]
    assert "“<b>OK” came within 0.412 s" in text_of(answer.content.decode())


def test_an_endpoint_that_is_just_being_asked_is_not_said_to_be_silent(chat: Deployment, alice: User) -> None:
    Deployment.objects.filter(pk=chat.pk).update(probe={}, probed_at=timezone.now())
    observe(chat, pods=(pod(),))

    text = page(alice, "detail", chat).content.decode()

    assert "no answer" not in text
    assert "Not asked yet" in text


def test_the_step_that_fails_is_marked_and_nothing_behind_it(chat: Deployment, alice: User) -> None:
    crashing = ContainerView(name="kserve-container", state="waiting", reason="CrashLoopBackOff", restarts=3)
    weights = ContainerView(name="storage-initializer", init=True, state="terminated", exit_code=0)
    observe(chat, pods=(pod(ready=False, containers=(weights, crashing)),))
    Deployment.objects.filter(pk=chat.pk).update(state=State.FAILED)

    answer = page(alice, "detail", chat)

    found = marks(answer)
    assert (found["Weights"], found["Engine"], found["Ready"]) == ("done", "bad", "later")
    assert answer.context["replicas"][0].word == "Crash loop"


def test_a_download_is_under_way(chat: Deployment, alice: User) -> None:
    weights = ContainerView(name="storage-initializer", init=True, state="running")
    observe(chat, pods=(pod(ready=False, containers=(weights,)),))
    Deployment.objects.filter(pk=chat.pk).update(state=State.DOWNLOADING)

    found = marks(page(alice, "detail", chat))

    assert (found["Image"], found["Weights"], found["Engine"]) == ("done", "now", "later")


def test_a_request_waits_for_a_person(team: Team, ann: User, h100: Flavor, alice: User) -> None:
    row = make.make_deployment(team, ann)

    answer = page(alice, "detail", row)

    assert marks(answer)["Approved"] == "wait"
    assert "Decide in the inbox" in answer.content.decode()


def test_a_reason_is_a_sentence_with_a_button(chat: Deployment, alice: User) -> None:
    reason = {
        "code": "kv_cache_too_small",
        "weight": "failed",
        "title": "The context does not fit the GPU.",
        "remedy": "The longest that fits is 74,880 tokens.",
        "field": "max_model_len",
        "value": 65536,
        "evidence": f"ValueError: {HOSTILE}",
    }
    Deployment.objects.filter(pk=chat.pk).update(state=State.FAILED, reason=reason)

    text = page(alice, "detail", chat).content.decode()

    assert "The context does not fit the GPU." in text
    assert f"{reverse('deployment-edit', args=[chat.pk])}?set=max_model_len%3D65536" in text
    assert "Set max-model-len to 65,536" in text
    assert "<img src=x" not in text


def test_an_older_revision_that_serves_is_told_from_the_new_one_that_fails(chat: Deployment, alice: User) -> None:
    detail = {"text": "", "serving_revision": 1, "failing_revision": 2, "ready_replicas": 1}
    Deployment.objects.filter(pk=chat.pk).update(detail=detail)

    text = page(alice, "detail", chat).content.decode()

    assert "revision 2 does not start" in text


def test_what_the_cluster_says_is_text_and_never_markup(chat: Deployment, alice: User) -> None:
    loud = EventView(
        type="Warning", reason=HOSTILE, message=HOSTILE, kind="Pod", name=HOSTILE, last_seen=timezone.now()
    )
    observe(chat, pods=(pod(name=HOSTILE),), events=(loud,))
    Event.objects.create(team=chat.team, deployment=chat, kind="x", message=HOSTILE)

    for name in ("detail", "logs", "manifests", "revisions", "prompt"):
        text = page(alice, name, chat).content.decode()
        assert "<img src=x" not in text
        assert '<div hx-get="/accounts/logout/"' not in text


def test_the_log_page_chooses_pod_and_container(chat: Deployment, alice: User) -> None:
    engine = ContainerView(name="kserve-container", state="running")
    weights = ContainerView(name="storage-initializer", init=True, state="terminated")
    observe(chat, pods=(pod("a"), pod("b", containers=(weights, engine))))

    chosen = page(alice, "logs", chat, pod="b", container="storage-initializer").context
    unknown = page(alice, "logs", chat, pod="of-somebody-else", container="nope").context

    assert (chosen["pod"].name, chosen["container"]) == ("b", "storage-initializer")
    assert (unknown["pod"].name, unknown["container"]) == ("b", "kserve-container")


def test_revisions_show_what_each_changed(chat: Deployment, alice: User, ann: User) -> None:
    second = make.add_revision(chat, ann, gpus=2)

    answer = page(alice, "revisions", chat)

    first = answer.context["listed"][0]
    assert first["revision"] == second
    assert first["changes"] == [("replicas.max", 1, 2)]


def test_manifests_come_as_the_yaml_that_was_signed(hub: list[str], team: Team, ann: User, alice: User) -> None:
    spec = DeploymentSpec.from_json(make.a_spec())
    row = requests.submit(principal=make.principal(ann), team=team, name="chat", spec=spec)
    assert row.latest is not None

    answer = page(alice, "manifests", row, format="yaml")

    assert answer["Content-Type"].startswith("application/yaml")
    account, *signed = yaml.safe_load_all(answer.content)
    assert (account["kind"], signed) == ("ServiceAccount", row.latest.objects_json)
    assert "InferenceService" in page(alice, "manifests", row).content.decode()


def test_stop_says_what_comes_back_and_does_it(chat: Deployment, alice: User) -> None:
    assert chat.approved is not None
    ledger.reserve(deployment=chat, revision=chat.approved, gpus=1)
    client = signed_in(alice)
    url = reverse("deployment-stop", args=[chat.pk])

    assert "1 × H100-80GB come back to Search" in flat(client.get(url).content.decode())
    answer = client.post(url, {"reason": "over the weekend"})

    assert answer.status_code == 302
    chat.refresh_from_db()
    assert chat.wanted == "stopped"
    assert Event.objects.filter(deployment=chat, message__contains="over the weekend").exists()


def test_a_dialog_moves_the_page_when_it_is_done(chat: Deployment, alice: User) -> None:
    url = reverse("deployment-stop", args=[chat.pk])

    answer = signed_in(alice).post(url, headers={"HX-Request": "true"})

    assert answer.status_code == 204
    assert answer["HX-Redirect"] == reverse("deployment-detail", args=[chat.pk])


def test_delete_asks_for_the_name(chat: Deployment, alice: User) -> None:
    client = signed_in(alice)
    url = reverse("deployment-delete", args=[chat.pk])

    wrong = client.post(url, {"confirm": "chatt"})
    chat.refresh_from_db()

    assert wrong.status_code == 422
    assert "Type the name" in wrong.content.decode()
    assert chat.wanted == "running"
    assert client.post(url, {"confirm": "chat"}).status_code == 302
    chat.refresh_from_db()
    assert chat.wanted == "deleted"


def test_strangers_stop_nothing(chat: Deployment, bob: User) -> None:
    client = signed_in(bob)

    for name in ("stop", "start", "delete"):
        assert client.post(reverse(f"deployment-{name}", args=[chat.pk]), {"confirm": "chat"}).status_code == 404
    chat.refresh_from_db()
    assert chat.wanted == "running"


def test_start_without_quota_says_why(chat: Deployment, alice: User) -> None:
    Deployment.objects.filter(pk=chat.pk).update(wanted="stopped")
    QuotaGrant.objects.update(gpus=0)

    answer = signed_in(alice).post(reverse("deployment-start", args=[chat.pk]))

    assert answer.status_code == 422
    assert "GPUs" in answer.content.decode()


# Approvals


@pytest.fixture
def asked(team: Team, ann: User, h100: Flavor) -> Deployment:
    return make.make_deployment(team, ann, gpus=2)


def test_the_inbox_shows_what_it_takes_and_leaves(asked: Deployment, carol: User) -> None:
    answer = signed_in(carol).get(reverse("approvals"))

    card = answer.context["cards"][0]
    assert (card["cost"].more, card["cost"].limit, card["leaves"]) == (2, 4, 2)
    assert card["standing"].approve


def test_an_admin_approves_the_digest_on_the_page(asked: Deployment, carol: User) -> None:
    revision = asked.latest
    assert revision is not None
    url = reverse("approvals-decide", args=[revision.pk])

    signed_in(carol).post(url, {"digest": revision.digest, "verdict": "approve", "comment": "go"})

    approval = Approval.objects.get()
    assert (approval.approved, approval.actor, approval.comment) == (True, carol, "go")
    asked.refresh_from_db()
    assert asked.approved == revision


def test_another_digest_is_refused_and_said(asked: Deployment, carol: User) -> None:
    assert asked.latest is not None
    url = reverse("approvals-decide", args=[asked.latest.pk])

    answer = signed_in(carol).post(url, {"digest": "0" * 64, "verdict": "approve"}, follow=True)

    assert not Approval.objects.exists()
    assert "was changed since the page was loaded" in answer.content.decode()


def test_nobody_approves_what_they_asked_for(team: Team, h100: Flavor, carol: User) -> None:
    make.join(carol, team)
    own = make.make_deployment(team, carol)
    assert own.latest is not None

    signed_in(carol).post(
        reverse("approvals-decide", args=[own.latest.pk]), {"digest": own.latest.digest, "verdict": "approve"}
    )

    assert not Approval.objects.exists()


def test_strangers_do_not_find_the_request(asked: Deployment, bob: User) -> None:
    assert asked.latest is not None
    client = signed_in(bob)

    assert client.get(reverse("approvals")).context["cards"] == []
    url = reverse("approvals-decide", args=[asked.latest.pk])
    assert client.post(url, {"digest": asked.latest.digest, "verdict": "approve"}).status_code == 404
    assert not Approval.objects.exists()


def test_decisions_stand_in_the_history(asked: Deployment, carol: User) -> None:
    assert asked.latest is not None
    make.approve(asked.latest)

    answer = signed_in(carol).get(reverse("approvals"), {"show": "history"})

    assert [row.revision.pk for row in answer.context["page"].rows] == [asked.latest.pk]


def test_the_sidebar_counts_what_waits_for_me(asked: Deployment, team: Team, ann: User, alice: User, bob: User) -> None:
    Team.objects.filter(pk=team.pk).update(policy=Team.Policy.LEAD)

    counts = [signed_in(who).get(reverse("capacity")).context["site"].frame.waiting for who in (ann, alice, bob)]

    assert counts == [0, 1, 0]


# Quotas and tokens


def test_quotas_show_reserved_and_the_ledger(chat: Deployment, alice: User, bob: User) -> None:
    assert chat.approved is not None
    ledger.reserve(deployment=chat, revision=chat.approved, gpus=1)

    mine = signed_in(alice).get(reverse("quotas")).context
    lines = [signed_in(who).get(reverse("quotas"), {"show": "history"}).context["page"].rows for who in (alice, bob)]

    assert [(row["usage"].limit, row["usage"].reserved) for row in mine["rows"]] == [(4, 1)]
    assert [[row.delta for row in found] for found in lines] == [[1], []]


def test_the_ledger_as_csv_holds_no_formulas(chat: Deployment, alice: User) -> None:
    assert chat.approved is not None
    taken = ledger.reserve(deployment=chat, revision=chat.approved, gpus=1)
    assert isinstance(taken, Reservation)

    answer = signed_in(alice).get(reverse("quotas"), {"format": "csv"})

    lines = b"".join(answer.streaming_content).decode().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("time,team,flavor")
    assert "search,h100-80gb,chat,1,1" in lines[1]


def test_only_admins_grant(team: Team, h100: Flavor, alice: User, carol: User) -> None:
    wish = {"team": "search", "flavor": "h100-80gb", "gpus": "2", "until": "", "comment": "more"}
    url = reverse("quotas-grant")

    assert signed_in(alice).post(url, wish).status_code == 404
    assert QuotaGrant.objects.count() == 1
    assert signed_in(carol).post(url, wish).status_code == 302
    assert QuotaGrant.objects.count() == 2


@pytest.mark.parametrize(
    "change", [{"gpus": "-1"}, {"gpus": "many"}, {"team": "x"}, {"until": "2001-02-31"}, {"gpus": "99999"}]
)
def test_a_grant_that_makes_no_sense_is_not_made(team: Team, h100: Flavor, carol: User, change: dict[str, str]) -> None:
    wish = {"team": "search", "flavor": "h100-80gb", "gpus": "2", "until": ""} | change

    answer = signed_in(carol).post(reverse("quotas-grant"), wish, follow=True)

    assert answer.status_code == 422
    assert QuotaGrant.objects.count() == 1


def test_a_token_is_shown_once_and_revoked_at_once(alice: User) -> None:
    client = signed_in(alice)
    page = client.post(reverse("account"), {"name": "notebook", "days": "30", "scopes": ["read", "invoke"]})
    assert (page.status_code, page["Cache-Control"]) == (201, "no-store")
    text = page.context["made"]["text"]

    assert text in page.content.decode()
    assert text not in client.get(reverse("account")).content.decode()
    token = ApiToken.objects.get()
    assert token.scopes == ["invoke", "read"]

    asked = client.get(reverse("account-revoke", args=[token.pk]), headers={"HX-Request": "true"})
    assert "Revoke notebook?" in asked.content.decode()
    assert ApiToken.objects.live().exists()
    client.post(reverse("account-revoke", args=[token.pk]))

    token.refresh_from_db()
    assert token.revoked_at is not None


@pytest.mark.parametrize(
    ("change", "field"),
    [({"name": ""}, "name"), ({"days": "0"}, "days"), ({"days": "x"}, "days"), ({"scopes": []}, "scopes")],
)
def test_a_bad_token_wish_is_answered_at_its_field(alice: User, change: dict[str, Any], field: str) -> None:
    wish = {"name": "notebook", "days": "30", "scopes": ["read"]} | change

    answer = signed_in(alice).post(reverse("account"), wish)

    assert answer.status_code == 422
    assert field in answer.context["errors"]
    assert not ApiToken.objects.exists()


def test_nobody_revokes_tokens_of_others(alice: User, bob: User) -> None:
    signed_in(alice).post(reverse("account"), {"name": "mine", "days": "30", "scopes": ["read"]})

    signed_in(bob).post(reverse("account-revoke", args=[ApiToken.objects.get().pk]))

    assert ApiToken.objects.get().revoked_at is None


def test_a_token_whose_time_is_over_says_so_and_is_not_offered_to_be_revoked(alice: User) -> None:
    client = signed_in(alice)
    client.post(reverse("account"), {"name": "mine", "days": "30", "scopes": ["read"]})
    address = reverse("account-revoke", args=[ApiToken.objects.get().pk])
    assert address in client.get(reverse("account")).content.decode()

    ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    page = flat(client.get(reverse("account")).content.decode())
    assert '<span class="chip">ended</span>' in page
    assert address not in page
