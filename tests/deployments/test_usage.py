"""What keys use: refused over a limit in words, kept by the hour, and taken out of the bucket afterwards."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from deployments.models import KeyUsage
from deployments.services import endpoint_keys as keys
from deployments.services import invoke, usage
from deployments.services.endpoint_keys import Limits
from deployments.services.invoke import Admission
from deployments.services.rates import OwnCounters
from deployments.services.usage import Total, Use
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def gateway_reports(settings):
    """The gateway of this installation says how many tokens answers took."""
    settings.GATEWAY_TOKEN = "of-the-gateway"


@pytest.fixture
def chat(team, ann):
    return make.make_deployment(team, ann, approved=True)


def new(alice, team, **limits):
    return keys.create(
        principal=make.principal(alice), team=team, name=make.a_name(), every_deployment=True, limits=Limits(**limits)
    )


def asking(text, deployment, counting):
    verdict = invoke.admit(f"Bearer {text}", deployment.team.namespace, deployment.name)
    assert isinstance(verdict, Admission)
    return usage.take(verdict, counting)


def test_over_a_limit_of_requests_the_caller_is_told_when_to_come_back(chat, alice, team):
    key, text = new(alice, team, requests_per_minute=2)
    counting = OwnCounters(lambda: 1000.0)

    answers = [asking(text, chat, counting) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    refused = answers[-1]
    assert (refused.code, refused.limit, refused.retry_after) == ("rate_limit_exceeded", "requests", 61)
    assert (refused.key_id, refused.deployment_id) == (key.pk, chat.pk)
    assert refused.message == "This key may use 2 requests per minute, and has. Try again in 61 s."


def test_tokens_that_a_gateway_reports_are_waited_for(chat, alice, team):
    key, text = new(alice, team, tokens_per_minute=60)
    counting = OwnCounters(lambda: 1000.0)
    assert asking(text, chat, counting).status == 200

    usage.report([Use(key.pk, chat.pk, requests=1, prompt_tokens=40, completion_tokens=50)], counting)

    refused = asking(text, chat, counting)
    assert (refused.status, refused.limit, refused.retry_after) == (429, "tokens", 31)


def test_keys_without_limits_are_counted_nowhere_else(chat, alice, team):
    _, text = new(alice, team)

    assert asking(text, chat, None).status == 200  # type: ignore[arg-type]


def test_reports_of_an_hour_add_up_in_one_row(chat, alice, team, django_assert_num_queries):
    first, _ = new(alice, team)
    second, _ = new(alice, team)
    usage.report([Use(first.pk, chat.pk, requests=1, prompt_tokens=5, completion_tokens=7)])
    with django_assert_num_queries(4):  # a transaction, one statement, and the limits
        kept = usage.report(
            [Use(first.pk, chat.pk, 1, 0, 5, 7), Use(first.pk, chat.pk, 1, 2, 5, 7), Use(second.pk, chat.pk, 1)]
        )

    assert kept == 2
    row = KeyUsage.objects.get(key=first)
    assert (row.requests, row.refused, row.prompt_tokens, row.completion_tokens) == (3, 2, 15, 21)
    assert row.hour == usage.hour_of(timezone.now())
    assert usage.totals([first.pk, second.pk], since=usage.days_ago(1)) == {
        first.pk: Total(3, 2, 15, 21),
        second.pk: Total(1),
    }
    KeyUsage.objects.update(hour=timezone.now() - timedelta(days=2))
    assert usage.totals([first.pk], since=usage.days_ago(1)) == {}


def test_what_names_no_key_or_another_teams_deployment_is_left_out(chat, alice, team, bob):
    key, _ = new(alice, team)
    foreign = make.make_deployment(bob.memberships.get().team, bob)

    kept = usage.report([Use(key.pk, foreign.pk, 1), Use(10**6, chat.pk, 1), Use(key.pk, 10**6, 1)])

    assert (kept, KeyUsage.objects.count()) == (0, 0)
    assert usage.report([]) == 0
