"""Who may call an endpoint: members, their tokens, the prompt box, the probe; nobody else, and nobody any more."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core import signing
from django.utils import timezone

from deployments.models import ApiToken, Membership
from deployments.services import invoke, tokens
from deployments.services.errors import MissingError, NotAllowedError
from deployments.services.invoke import Admission, Refusal
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def chat(team, ann):
    return make.make_deployment(team, ann, approved=True)


def ask(text, deployment, *, name=None):
    return invoke.admit(f"Bearer {text}", deployment.team.namespace, name or deployment.name)


def status(answer: Admission | Refusal) -> int:
    return answer.status


def test_the_prompt_box_of_a_member_is_admitted(chat, ann):
    text = invoke.token_for(principal=make.principal(ann), deployment=chat)
    assert ask(text, chat) == Admission("user:ann", chat.pk)


def test_a_prompt_token_is_for_one_endpoint(chat, ann, team):
    other = make.make_deployment(team, ann, name="code")
    text = invoke.token_for(principal=make.principal(ann), deployment=chat)
    assert status(ask(text, other)) == 403


def test_strangers_get_no_prompt_token(chat, ann, bob):
    with pytest.raises(MissingError):
        invoke.token_for(principal=make.principal(bob), deployment=chat)
    with pytest.raises(NotAllowedError):
        invoke.token_for(principal=make.principal(ann, "read"), deployment=chat)


def test_a_prompt_token_expires(chat, ann, monkeypatch):
    text = invoke.token_for(principal=make.principal(ann), deployment=chat, seconds=60)
    later = timezone.now() + timedelta(seconds=61)
    monkeypatch.setattr(invoke.timezone, "now", lambda: later)
    assert status(ask(text, chat)) == 401


def test_a_prompt_token_lives_a_quarter_of_an_hour_at_most(chat, ann):
    text = invoke.token_for(principal=make.principal(ann), deployment=chat, seconds=10**9)
    claims = signing.loads(text.removeprefix("sli_"), salt=invoke.SALT)
    assert claims["e"] <= timezone.now().timestamp() + 900


def test_leaving_the_team_or_being_disabled_ends_it_at_once(chat, ann):
    text = invoke.token_for(principal=make.principal(ann), deployment=chat)
    member = Membership.objects.get(user=ann)
    member.delete()
    assert status(ask(text, chat)) == 403
    make.join(ann, chat.team)
    assert status(ask(text, chat)) == 200
    ann.is_active = False
    ann.save()
    assert status(ask(text, chat)) == 401


def test_the_probe_is_admitted_while_the_deployment_lives(chat):
    text = invoke.probe_token(deployment_id=chat.pk)
    assert ask(text, chat) == Admission("probe", chat.pk)
    chat.deleted_at = timezone.now()
    chat.save()
    assert status(ask(text, chat)) == 403


def test_programs_call_with_a_token_of_the_scope_invoke(chat, ann, bob):
    _, caller = tokens.create(principal=make.principal(ann), name="app", scopes=["invoke"])
    _, reader = tokens.create(principal=make.principal(ann), name="reader", scopes=["read", "write"])
    _, strange = tokens.create(principal=make.principal(bob), name="app", scopes=["invoke"])
    assert status(ask(caller, chat)) == 200
    assert (status(ask(reader, chat)), ask(reader, chat).code) == (403, "scope")
    assert status(ask(strange, chat)) == 403
    ApiToken.objects.update(revoked_at=timezone.now())
    assert status(ask(caller, chat)) == 401


def test_a_token_bound_to_another_team_does_not_call(chat, ann, team):
    other = make.make_team("labs")
    make.join(ann, other)
    _, text = tokens.create(principal=make.principal(ann), name="app", scopes=["invoke"], teams=[other])
    assert status(ask(text, chat)) == 403


def test_what_exists_and_what_does_not_look_the_same_to_strangers(chat, bob):
    _, text = tokens.create(principal=make.principal(bob), name="app", scopes=["invoke"])
    assert ask(text, chat) == ask(text, chat, name="nothing")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer sli_",
        "Bearer sli_a:b:c",
        "Bearer slp_no",
        "Bearer \x00",
        "x" * 9999,
    ],
)
def test_odd_headers_are_refused(chat, header):
    assert invoke.admit(header, chat.team.namespace, chat.name).status == 401


def test_forged_claims_are_refused(chat, ann):
    good = signing.dumps({"d": chat.pk, "u": ann.pk, "e": 9e12}, salt="another")
    wrong = signing.dumps({"d": "x", "u": None, "e": []}, salt=invoke.SALT)
    partial = signing.dumps(["d"], salt=invoke.SALT)
    for text in (good, wrong, partial):
        assert status(ask(f"sli_{text}", chat)) == 401


def test_odd_names_are_refused(chat, ann):
    text = invoke.token_for(principal=make.principal(ann), deployment=chat)
    assert invoke.admit(f"Bearer {text}", "a\x00b", "c\x00d").status == 403
