"""Who is told of what, in the site and by e-mail, and who no longer is."""

from __future__ import annotations

import smtplib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.models import Deployment, Event, Flavor, Notification, Team, User
from deployments.services import (
    approvals,
    events,
    expiry,
    grant_ends,
    grants,
    lifecycle,
    mails,
    notice_ends,
    notices,
    quota_requests,
    requests,
    states,
    waiting,
)
from deployments.services.errors import MissingError
from deployments.spec import DeploymentSpec
from deployments.tasks import sweep_mail
from portal.lib.hints import MAIL
from tests.deployments import factories as make


def told(person: User) -> list[str]:
    return list(Notification.objects.filter(user=person).values_list("event__kind", flat=True))


def ask(person: User, team: Team, spec: dict[str, Any]) -> Deployment:
    return requests.submit(
        principal=make.principal(person), team=team, name="chat", spec=DeploymentSpec.from_json(spec)
    )


def fail(deployment: Deployment) -> None:
    """The watcher's and the reconciler's last word: it is blocked."""
    outcome = {"phase": "blocked", "revision": 1, "message": "The name is taken.", "code": "name_taken"}
    Deployment.objects.filter(pk=deployment.pk).update(outcome=outcome)
    states.refresh(deployment.pk)
    assert Deployment.objects.get(pk=deployment.pk).state == "Blocked"


@pytest.fixture
def chat(team: Team, ann: User, h100: Flavor) -> Deployment:
    return make.make_deployment(team, ann, approved=True)


@pytest.fixture
def mailed(settings: Any, ann: User) -> User:
    """Ann, who has an address, on an installation that sends mail."""
    settings.SENDS_MAIL = True
    settings.SLIPWAY_URL = "https://slipway.example"
    ann.email = "ann@example.org"
    ann.save()
    return ann


def test_a_request_is_told_to_those_who_may_decide(
    team: Team, alice: User, ann: User, bob: User, carol: User, hub: list[str], spec: dict[str, Any]
) -> None:
    chat = ask(ann, team, spec)

    assert told(carol) == ["requested"]  # The team's policy leaves it to admins.
    assert told(alice) == told(ann) == told(bob) == []
    row = Notification.objects.get()
    latest = chat.latest
    assert latest is not None
    cost = round(float(latest.flavor.price_per_hour) * 730)
    assert row.link == f"/approvals/?team=search#r{latest.pk}"
    assert row.message == f"Search, chat: Revision 1 asked for by ann (1 × H100-80GB; € {cost:,} a month at most)"


def test_a_lead_is_told_of_what_leads_decide(
    team: Team, alice: User, ann: User, bob: User, carol: User, hub: list[str], spec: dict[str, Any]
) -> None:
    Team.objects.filter(pk=team.pk).update(policy=Team.Policy.LEAD)
    ask(ann, team, spec)

    assert told(alice) == told(carol) == ["requested"]
    assert told(ann) == told(bob) == []


def test_nobody_is_told_of_what_policy_approves_but_who_asked(
    team: Team, alice: User, ann: User, carol: User, hub: list[str], spec: dict[str, Any]
) -> None:
    Team.objects.filter(pk=team.pk).update(policy=Team.Policy.AUTO)
    ask(ann, team, spec)

    assert told(alice) == told(carol) == []
    assert told(ann) == ["approved"]


def test_an_author_who_is_an_admin_is_not_asked_to_decide(
    team: Team, ann: User, carol: User, hub: list[str], spec: dict[str, Any]
) -> None:
    make.join(carol, team)
    ask(carol, team, spec)

    assert told(carol) == []


@pytest.mark.parametrize("approve", [True, False])
def test_a_decision_is_told_to_who_asked(team: Team, ann: User, alice: User, carol: User, approve: bool) -> None:
    make.make_grant(team, make.make_flavor(), 4)
    chat = make.make_deployment(team, ann)
    approvals.decide(
        principal=make.principal(carol),
        revision=chat.latest,  # type: ignore[arg-type]
        digest=chat.latest.digest,  # type: ignore[union-attr]
        approve=approve,
        comment="because",
    )

    assert told(ann) == ["approved" if approve else "rejected"]
    assert told(carol) == told(alice) == []


def test_one_decision_makes_one_notice_and_waiting_and_starting_are_told(
    team: Team, ann: User, alice: User, carol: User, h100: Flavor
) -> None:
    row = make.make_deployment(team, ann, gpus=5)
    latest = row.latest
    assert latest is not None

    approvals.decide(principal=make.principal(carol), revision=latest, digest=latest.digest, approve=True)

    assert told(ann) == ["approved"]
    words = Notification.objects.get(user=ann).message
    assert words.endswith("It does not run yet: waits for quota: 1 GPU of H100-80GB more than the team may hold")

    grants.grant(principal=make.principal(carol), team=team, flavor=h100, gpus=1)
    waiting.wake_all()
    assert sorted(told(ann)) == ["approved", "gpus_reserved"]
    started = Notification.objects.get(user=ann, event__kind="gpus_reserved")
    assert started.message == "chat: 5 GPUs reserved for revision 1: it waited for quota, and starts now"


def test_a_request_for_quota_is_told_with_terms_and_leads_to_its_card(
    team: Team, alice: User, carol: User, h100: Flavor
) -> None:
    until = timezone.now() + timedelta(days=30)
    lead = make.principal(alice)
    row = quota_requests.ask(principal=lead, team=team, flavor=h100, gpus=4, why="Fair", valid_until=until)

    notice = Notification.objects.get(user=carol)
    day = timezone.localtime(until)
    cost = round(float(h100.price_per_hour) * 4 * 730)
    assert notice.message == (
        f"Search, 4 × H100-80GB asked for by alice: Fair (from now, until {day.day} {day:%b %Y}; "
        f"€ {cost:,} a month at most)"
    )
    assert notice.link == f"/approvals/?team=search#q{row.pk}"

    quota_requests.decide(principal=make.principal(carol), request_id=row.pk, grant=True, comment="Yes")
    assert told(alice) == ["quota_request_granted"]


def test_a_grant_made_inside_the_days_of_the_warning_warns_of_nothing(
    team: Team, alice: User, carol: User, h100: Flavor, settings: Any
) -> None:
    settings.QUOTA_WARNING_DAYS = 7
    soon = timezone.now() + timedelta(days=3)
    grants.grant(principal=make.principal(carol), team=team, flavor=h100, gpus=1, until=soon)
    assert grant_ends.follow_dates() == 0
    assert told(alice) == ["quota_granted"]


def test_a_request_that_nobody_decided_is_told_to_who_asked(team: Team, ann: User, alice: User, h100: Flavor) -> None:
    chat = make.make_deployment(team, ann)
    chat.revisions.update(created_at=timezone.now() - timedelta(days=15))
    assert expiry.expire_undecided() == 1

    assert told(ann) == ["expired"]
    assert told(alice) == []


def test_a_failure_is_told_to_who_asked_and_to_leads_once_an_hour(
    chat: Deployment, ann: User, alice: User, bob: User, carol: User
) -> None:
    fail(chat)
    Deployment.objects.filter(pk=chat.pk).update(outcome={})
    states.refresh(chat.pk)
    fail(chat)

    assert Event.objects.filter(kind="state", data__to="Blocked").count() == 2
    assert told(ann) == told(alice) == ["state"]
    assert told(bob) == told(carol) == []
    Notification.objects.update(created_at=timezone.now() - timedelta(hours=2))
    Deployment.objects.filter(pk=chat.pk).update(outcome={})
    states.refresh(chat.pk)
    fail(chat)
    assert told(ann) == ["state", "state"]


def test_many_failures_cost_no_more_queries(team: Team, ann: User, alice: User, h100: Flavor) -> None:
    def cost(count: int, name: str) -> int:
        rows = [make.make_deployment(team, ann, name=f"{name}{n}", approved=True) for n in range(count)]
        made = [
            Event(kind="state", team=team, deployment=row, message="Blocked", level="bad", data={"to": "Blocked"})
            for row in rows
        ]
        Event.objects.bulk_create(made)
        with CaptureQueriesContext(connection) as queries:
            notices.notify(made)
        return len(queries)

    assert cost(1, "a") == cost(40, "b") <= 6


def test_who_left_is_told_nothing_and_finds_nothing(chat: Deployment, ann: User, alice: User) -> None:
    fail(chat)
    row = Notification.objects.get(user=ann)
    assert Notification.objects.visible_to(make.principal(ann)).exists()
    ann.memberships.all().delete()
    fail(make.make_deployment(chat.team, ann, name="other", approved=True))

    assert told(ann) == ["state"]
    assert not Notification.objects.visible_to(make.principal(ann)).exists()
    with pytest.raises(MissingError):
        notices.read(principal=make.principal(ann), pk=row.pk)


def test_a_notice_stands_or_falls_with_its_event(team: Team, alice: User, carol: User) -> None:
    with transaction.atomic():
        events.record(kind="quota_granted", message="more", team=team, actor=carol)
        transaction.set_rollback(True)

    assert not Notification.objects.exists()


def test_a_grant_is_told_to_leads_but_not_to_who_gave_it(team: Team, alice: User, ann: User, carol: User) -> None:
    events.record(kind="quota_granted", message="4 more", team=team, actor=carol)

    assert told(alice) == ["quota_granted"]
    assert told(carol) == told(ann) == []


def test_reading(team: Team, alice: User, bob: User, carol: User) -> None:
    for _ in range(3):
        events.record(kind="quota_granted", message="more", team=team, actor=carol)
    first, second, third = Notification.objects.order_by("pk")
    notices.read(principal=make.principal(alice), pk=first.pk)
    assert notices.read_all(principal=make.principal(alice), upto=second.pk) == 1

    assert [row.pk for row in Notification.objects.unread()] == [third.pk]
    with pytest.raises(MissingError):
        notices.read(principal=make.principal(bob), pk=third.pk)
    assert notices.read_all(principal=make.principal(bob)) == 0


def test_what_was_decided_asks_nobody_any_more(
    hub: list[str], team: Team, h100: Flavor, ann: User, alice: User, carol: User
) -> None:
    spec = DeploymentSpec.from_json(make.a_spec())
    for name in ("one", "two", "three"):
        requests.submit(principal=make.principal(ann), team=team, name=name, spec=spec)
    one, _, three = Deployment.objects.order_by("pk")
    asked = [
        quota_requests.ask(principal=make.principal(alice), team=team, flavor=h100, gpus=gpus, why="More")
        for gpus in (1, 2)
    ]
    assert Notification.objects.filter(user=carol).unread().count() == 5
    assert notice_ends.settle() == 0

    make.approve(one.latest)  # type: ignore[arg-type]
    lifecycle.delete(principal=make.principal(ann), deployment=three)
    quota_requests.withdraw(principal=make.principal(alice), request_id=asked[0].pk)

    assert notice_ends.settle() >= 3
    left = Notification.objects.filter(user=carol).unread().values_list("event__kind", "event__deployment__name")
    assert sorted(left, key=str) == [("quota_asked", None), ("requested", "two")]


def test_read_notices_are_kept_for_90_days(team: Team, alice: User, carol: User) -> None:
    for _ in range(2):
        events.record(kind="quota_granted", message="more", team=team, actor=carol)
    first, second = Notification.objects.order_by("pk")
    Notification.objects.filter(pk=first.pk).update(read_at=timezone.now() - timedelta(days=91))
    Notification.objects.filter(pk=second.pk).update(created_at=timezone.now() - timedelta(days=91))

    assert notices.forget_read() == 1
    assert list(Notification.objects.all()) == [second]


# ---- mail


def test_a_notice_is_mailed_after_the_commit_by_a_worker(
    mailed: User,
    chat: Deployment,
    no_broker: list[tuple[str, int]],
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        fail(chat)
    event = Event.objects.get(kind="state", data__to="Blocked")

    assert (MAIL, event.pk) in no_broker
    assert mail.outbox == []
    assert mails.send(event.pk) == 1
    assert mails.send(event.pk) == 0
    [sent] = mail.outbox
    assert sent.to == ["ann@example.org"]
    assert sent.subject.startswith("[Slipway] chat: ")
    assert f"https://slipway.example/deployments/{chat.pk}/" in sent.body
    assert sent.content_subtype == "plain"


@pytest.mark.parametrize("how", ["address", "wish", "installation"])
def test_no_mail_without_address_wish_or_server(mailed: User, chat: Deployment, settings: Any, how: str) -> None:
    if how == "address":
        User.objects.filter(pk=mailed.pk).update(email="")
    elif how == "wish":
        notices.set_mail(principal=make.principal(mailed), wanted=False)
    else:
        settings.SENDS_MAIL = False
    fail(chat)

    assert Notification.objects.filter(user=mailed).count() == 1
    assert not Notification.objects.unsent().exists()


class Server:
    """A mail server that does what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trouble: Exception | None = None
        self.sent: list[Any] = []
        monkeypatch.setattr("django.core.mail.EmailMessage.send", lambda message: self.take(message))

    def take(self, message: Any) -> int:
        message.message()
        if self.trouble is not None:
            raise self.trouble
        self.sent.append(message)
        return 1


def aged(row: Notification, age: timedelta) -> None:
    Notification.objects.filter(pk=row.pk).update(created_at=timezone.now() - age)


def test_nothing_is_lost_while_the_server_is_away(
    mailed: User, chat: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)
    server.trouble = ConnectionRefusedError()
    fail(chat)
    row = Notification.objects.get(user=mailed)
    for failures, pause in enumerate([0, 30, 90, 210, 450], 1):
        aged(row, timedelta(seconds=max(0, pause - 2)))
        assert mails.due(10) == ([] if pause else [row.event_id])
        aged(row, timedelta(seconds=pause + 1))
        assert mails.send(row.event_id) == 0
        row.refresh_from_db()
        assert (row.mail_failures, row.mail_due, row.mailed_at) == (failures, True, None)
    server.trouble = None
    aged(row, timedelta(days=3))
    assert mails.due(10) == [row.event_id]
    assert mails.send(row.event_id) == 1

    row.refresh_from_db()
    assert row.mailed_at is not None
    assert len(server.sent) == 1
    assert mails.due(10) == []


@pytest.mark.parametrize(
    ("trouble", "goes_on"),
    [
        (smtplib.SMTPServerDisconnected(), True),
        (smtplib.SMTPAuthenticationError(535, b"no"), True),
        (smtplib.SMTPRecipientsRefused({"a": (450, b"later")}), True),
        (smtplib.SMTPRecipientsRefused({"a": (550, b"nobody")}), False),
        (smtplib.SMTPDataError(554, b"spam"), False),
        (TimeoutError(), True),
    ],
)
def test_only_a_refusal_for_good_ends_the_tries(
    mailed: User, chat: Deployment, monkeypatch: pytest.MonkeyPatch, trouble: Exception, goes_on: bool
) -> None:
    server = Server(monkeypatch)
    server.trouble = trouble
    fail(chat)
    row = Notification.objects.get(user=mailed)
    mails.send(row.event_id)

    row.refresh_from_db()
    assert row.mail_due is goes_on


def test_two_workers_send_one_mail(mailed: User, chat: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch)
    fail(chat)
    row = Notification.objects.select_related("user", "event").get(user=mailed)

    assert mails._claimed(row)
    assert not mails._claimed(row)
    assert mails.send(row.event_id) == 0
    assert server.sent == []


def test_who_may_not_see_it_any_more_gets_no_mail(mailed: User, chat: Deployment) -> None:
    fail(chat)
    row = Notification.objects.get(user=mailed)
    mailed.memberships.all().delete()

    assert mails.send(row.event_id) == 0
    assert mail.outbox == []
    assert mails.due(10) == []


@pytest.mark.parametrize("text", ["a\r\nBcc: x@example.org", "a\nb", "a\u2028b", "a\x0bb", "a\x85b", "<b>bold</b>"])
def test_no_text_becomes_a_header_or_markup(mailed: User, chat: Deployment, text: str) -> None:
    event = Event.objects.create(kind="noted", message=text, team=chat.team)
    row = Notification.objects.create(user=mailed, event=event, message=text, link="/x/")
    message = mails.message_of(row).message()

    assert message["Bcc"] is None
    assert "\n" not in message["Subject"]
    assert message["To"] == "ann@example.org"
    assert message.get_content_type() == "text/plain"


@pytest.mark.parametrize("address", ["a@example.org\nBcc: x@example.org", "a@example.org\r\n\r\nbody"])
def test_an_address_with_a_line_break_gets_nothing(mailed: User, chat: Deployment, address: str) -> None:
    fail(chat)
    User.objects.filter(pk=mailed.pk).update(email=address)
    row = Notification.objects.get(user=mailed)

    assert mails.send(row.event_id) == 0
    assert mail.outbox == []
    row.refresh_from_db()
    assert not row.mail_due


def test_the_sweep_finds_every_mail(mailed: User, chat: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr("celery.current_app.send_task", lambda task, args, **_: sent.append((task, args)))
    fail(chat)
    row = Notification.objects.get(user=mailed)

    assert sweep_mail() == 1
    assert sent == [(MAIL, [row.event_id])]


def test_switching_mail_off_leaves_a_line_in_the_audit(ann: User) -> None:
    for _ in range(2):
        notices.set_mail(principal=make.principal(ann), wanted=False)
    event = Event.objects.get(kind="account_changed")

    assert event.actor == ann
    assert (event.data["before"], event.data["after"]) == ({"mail_notices": True}, {"mail_notices": False})


def test_a_new_member_is_told(team: Team, alice: User, bob: User) -> None:
    events.record(
        kind="member_added", message="bob is now member of Search", team=team, actor=alice, data={"user": bob.pk}
    )
    assert told(bob) == []  # Not of the team: nobody is told of what they may not see.
    make.join(bob, team)
    events.record(
        kind="member_added", message="bob is now member of Search", team=team, actor=alice, data={"user": bob.pk}
    )

    assert told(bob) == ["member_added"]
