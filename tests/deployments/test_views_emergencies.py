"""Emergencies in the inbox: an admin who wrote the request calls one, and a second admin signs it."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from deployments.models import Approval, Emergency, Flavor, Revision, Team, User
from tests.deployments import factories as make
from tests.deployments.viewing import HTMX, flat, signed_in
from tests.deployments.viewing import inbox as page


@pytest.fixture
def own(team: Team, carol: User, h100: Flavor) -> Revision:
    make.join(carol, team)
    latest = make.make_deployment(team, carol, gpus=2).latest
    assert latest is not None
    return latest


def call(person: User, revision: Revision, reason: str = "Search is down") -> Any:
    wish = {"digest": revision.digest, "reason": reason}
    return signed_in(person).post(reverse("approvals-emergency", args=[revision.pk]), wish, headers=HTMX)


def test_an_author_calls_and_a_second_admin_signs(own: Revision, carol: User) -> None:
    assert "call an emergency" in page(carol)
    erin = make.make_user("erin", admin=True)
    assert "call an emergency" not in page(carol), "erin may approve it plainly"
    assert "call an emergency" not in page(erin)
    assert 'value="approve"' in page(erin)

    answer = call(carol, own)

    assert "a second admin has an hour" in answer.content.decode()
    text = page(erin)
    assert "Search is down" in text
    assert "Sign the emergency" in text
    assert 'value="approve"' not in text, "one way to let it through, not two"
    assert "Sign the emergency" not in page(carol)
    assert "Withdraw the emergency" in answer.content.decode(), "the card stays, with a way back"
    emergency = Emergency.objects.get()
    url = reverse("approvals-sign", args=[emergency.pk])
    assert signed_in(carol).post(url, {"digest": own.digest}, headers=HTMX).status_code == 422
    signed_in(erin).post(url, {"digest": own.digest}, headers=HTMX)

    approval = Approval.objects.get()
    assert (approval.kind, approval.actor, approval.second) == ("emergency", carol, erin)
    history = page(erin, show="history", verdict="emergency")
    assert "approved in an emergency" in history
    assert "carol and erin" in history


def test_who_called_takes_it_back_and_nobody_signs_it_any_more(own: Revision, carol: User) -> None:
    erin = make.make_user("erin", admin=True)
    call(carol, own)
    emergency = Emergency.objects.get()
    url = reverse("approvals-emergency-withdraw", args=[emergency.pk])
    assert signed_in(erin).post(url, headers=HTMX).status_code == 422

    answer = signed_in(carol).post(url, headers=HTMX)

    assert answer.status_code == 200
    assert "Withdraw the emergency" not in answer.content.decode()
    sign = reverse("approvals-sign", args=[emergency.pk])
    assert signed_in(erin).post(sign, {"digest": own.digest}, headers=HTMX).status_code == 412
    assert not Approval.objects.exists()


def test_a_call_without_a_reason_is_answered_at_its_field(own: Revision, carol: User) -> None:
    answer = call(carol, own, reason=" ")

    text = flat(answer.content.decode())
    assert answer.status_code == 422
    assert "Say what the emergency is" in text
    assert text.count('aria-invalid="true"') == 1
    assert not Emergency.objects.exists()


def test_emergencies_are_hidden_from_those_who_do_not_sign(own: Revision, carol: User, alice: User, bob: User) -> None:
    call(carol, own)
    url = reverse("approvals-sign", args=[Emergency.objects.get().pk])

    for person in (alice, bob):
        assert signed_in(person).post(url, {"digest": own.digest}).status_code == 404
    assert not Approval.objects.exists()
