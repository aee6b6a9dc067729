"""Mails of invitations: sent by workers, so that whoever invites waits for no mail server, and lost by none."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from deployments.models import Invitation, Team, User
from deployments.services import invitation_mails, invitations
from deployments.tasks import sweep_mail
from portal.lib.hints import MAIL_INVITATION
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in

pytestmark = pytest.mark.django_db
WISH = {"email": "dora@example.org", "role": "lead", "days": "2"}


class HangingServer:
    """Takes connections and never says a word."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.taken: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                self.taken.append(self.listener.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self.listener.close()
        for each in self.taken:
            each.close()


@pytest.fixture
def hanging(settings: Any) -> Iterator[HangingServer]:
    server = HangingServer()
    settings.SENDS_MAIL = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = server.listener.getsockname()[:2]
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    # Whoever spoke to it would wait for so long.
    settings.EMAIL_TIMEOUT = 60
    yield server
    server.close()


@pytest.fixture
def invited(team: Team, alice: User, settings: Any, no_broker: Any) -> tuple[Invitation, str]:
    settings.SENDS_MAIL = True
    return invitations.invite(principal=make.principal(alice), team=team, email="dora@example.org")


def aged(row: Invitation, seconds: float) -> None:
    Invitation.objects.filter(pk=row.pk).update(created_at=timezone.now() - timedelta(seconds=seconds))
    row.refresh_from_db()


def test_whoever_invites_waits_for_no_mail_server(
    team: Team,
    alice: User,
    hanging: HangingServer,
    settings: Any,
    no_broker: list[tuple[str, int]],
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:
    """A server that hangs was not spoken to when the page is there; what a worker loses to it is tried again."""
    with django_capture_on_commit_callbacks(execute=True):
        made = signed_in(alice).post(reverse("people-invite", args=[team.slug]), WISH)
        body = {"team": "search", "role": "member", "email": "eve@example.org"}
        over_api = signed_in(alice).post("/api/v1/invitations/", body, "application/json")

    assert (made.status_code, over_api.status_code) == (201, 201)
    assert "being mailed to dora@example.org" in flat(made.content.decode())
    assert over_api.json()["mailed"] is True
    row = Invitation.objects.get(email="dora@example.org")
    assert (MAIL_INVITATION, row.pk) in no_broker
    assert hanging.taken == []

    settings.EMAIL_TIMEOUT = 0.1
    assert invitation_mails.send(row.pk) is False
    assert len(hanging.taken) == 1
    row.refresh_from_db()
    assert (row.mail_due, row.mail_failures, row.mailed_at) == (True, 1, None)
    page = flat(signed_in(alice).get(reverse("people-team", args=[team.slug])).content.decode())
    assert "The mail server does not take the mail yet; it is tried again." in page

    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert row.pk not in invitation_mails.due(10)  # not before its pause is over
    aged(row, 31)
    assert invitation_mails.due(10)[0] == row.pk
    assert invitation_mails.send(row.pk) is True
    assert [sent.to for sent in mail.outbox] == [["dora@example.org"]]
    assert "Mailed " in flat(signed_in(alice).get(reverse("people-team", args=[team.slug])).content.decode())


def test_the_mail_holds_the_link_and_its_word_is_forgotten_with_it(invited: tuple[Invitation, str]) -> None:
    row, word = invited

    assert word not in str(vars(row))
    assert row.mail_word
    assert invitation_mails.send(row.pk) is True
    assert invitation_mails.send(row.pk) is False, "once"
    [sent] = mail.outbox
    link = re.search(r"/join/([A-Za-z0-9_-]+)/", str(sent.body))
    assert link is not None
    assert link.group(1) == word
    row.refresh_from_db()
    assert (row.mail_due, row.mail_word) == (False, "")
    assert row.mailed_at is not None


def test_two_workers_send_one_mail(invited: tuple[Invitation, str], monkeypatch: pytest.MonkeyPatch) -> None:
    row, _ = invited
    claimed = invitation_mails._claimed

    def meanwhile(mine: Invitation) -> bool:
        Invitation.objects.filter(pk=mine.pk).update(mail_failures=mine.mail_failures + 1)  # the other one was first
        return claimed(mine)

    monkeypatch.setattr(invitation_mails, "_claimed", meanwhile)

    assert invitation_mails.send(row.pk) is False
    assert mail.outbox == []


@pytest.mark.parametrize("how", ["revoked", "over", "host left", "other secret key", "refused for good"])
def test_a_mail_that_helps_nobody_is_given_up_with_its_word(
    invited: tuple[Invitation, str], alice: User, settings: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    row, _ = invited
    if how == "revoked":
        invitations.revoke(principal=make.principal(alice), invitation_id=row.pk)
    elif how == "over":
        Invitation.objects.update(expires_at=timezone.now())
    elif how == "host left":
        alice.memberships.all().delete()
    elif how == "other secret key":
        settings.SECRET_KEY = "another" * 8
    else:
        monkeypatch.setattr(invitation_mails.mails, "deliver", lambda *_: (False, "the server refuses it"))

    assert invitation_mails.send(row.pk) is False

    row.refresh_from_db()
    assert (row.mail_due, row.mail_word, row.mailed_at) == (False, "", None)
    assert mail.outbox == []


def test_a_link_without_address_or_server_is_handed_over(team: Team, alice: User, settings: Any) -> None:
    client = signed_in(alice)
    without_server = client.post(reverse("people-invite", args=[team.slug]), WISH)
    settings.SENDS_MAIL = True
    without_address = client.post(reverse("people-invite", args=[team.slug]), {**WISH, "email": ""})

    assert "No mail is sent to dora@example.org: hand the link over yourself." in flat(without_server.content.decode())
    assert "mail" not in flat(without_address.content.decode()).partition("<main")[2].partition("</main")[0]
    assert set(Invitation.objects.values_list("mail_due", "mail_word")) == {(False, "")}


def test_the_sweep_finds_what_no_message_told_of(
    invited: tuple[Invitation, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, list[int]]] = []
    monkeypatch.setattr(
        "deployments.tasks.current_app.send_task", lambda task, args, **_: sent.append((task, list(args)))
    )

    assert sweep_mail() == 1
    assert sent == [(MAIL_INVITATION, [invited[0].pk])]
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'invitation_unsent'")
        assert "WHERE mail_due" in cursor.fetchone()[0]
