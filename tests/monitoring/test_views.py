"""Chart pages against a real Prometheus that has no targets, and against none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from deployments.models import Deployment, User
from monitoring import views
from monitoring.prometheus import Range, Series
from monitoring.readings import SENTENCES, Display
from tests.conftest import PrometheusServer
from tests.deployments import factories as make
from tests.deployments.viewing import signed_in


@pytest.fixture
def ann(db: None) -> User:
    return make.make_user("ann", team=make.make_team("search"))


@pytest.fixture
def chat(ann: User) -> Deployment:
    make.make_profile()
    team = ann.memberships.get().team
    return make.make_deployment(team, ann, approved=True)


@pytest.fixture
def watched(prometheus: PrometheusServer, settings: Any) -> None:
    settings.PROMETHEUS_URL = prometheus.url


def charts(person: User, deployment: Deployment, **query: str) -> str:
    answer = signed_in(person).get(reverse("deployment-charts", args=[deployment.pk]), query)
    assert answer.status_code == 200
    return answer.content.decode()


def in_state(deployment: Deployment, state: str) -> Deployment:
    Deployment.objects.filter(pk=deployment.pk).update(state=state)
    return deployment


def test_a_deployment_that_comes_up_is_not_told_off_for_having_no_figures(
    watched: None, ann: User, chat: Deployment
) -> None:
    page = charts(ann, in_state(chat, Deployment.State.DOWNLOADING))

    assert "Charts begin as soon as the engine runs." in page
    assert "Not scraped" not in page


def test_a_running_one_without_targets_is(watched: None, ann: User, chat: Deployment) -> None:
    assert "Not scraped" in charts(ann, in_state(chat, Deployment.State.RUNNING))


class Silent:
    """A Prometheus that knows one target, which never answered."""

    away_since = None

    def instant(self, query: str) -> list[Series]:
        return [Series({"series": "known"}, [(0, 1)])]

    def range(self, query: str, over: Range) -> list[Series]:
        return []


@pytest.mark.parametrize(
    ("state", "sentence"),
    [(Deployment.State.FAILED, Display.DOWN), (Deployment.State.STOPPING, Display.STARTING)],
)
def test_an_engine_that_fails_is_not_said_to_be_on_its_way(
    monkeypatch: pytest.MonkeyPatch, ann: User, chat: Deployment, state: str, sentence: Display
) -> None:
    monkeypatch.setattr(views, "prometheus", Silent)
    hours_ago = timezone.now() - timedelta(hours=2)
    Deployment.objects.filter(pk=chat.pk).update(state=state, state_since=hours_ago)

    assert SENTENCES[sentence] in charts(ann, chat)


def test_an_outage_is_said_in_any_state(settings: Any, ann: User, chat: Deployment) -> None:
    settings.PROMETHEUS_URL = "http://127.0.0.1:9"  # nobody listens

    assert "Prometheus cannot be reached" in charts(ann, in_state(chat, Deployment.State.DOWNLOADING))


def test_a_stranger_gets_nothing(ann: User, chat: Deployment) -> None:
    bob = make.make_user("bob", team=make.make_team("labs"))

    for name in ("deployment-charts", "deployment-metrics"):
        assert signed_in(bob).get(reverse(name, args=[chat.pk])).status_code == 404
    assert signed_in(bob).get(reverse("panel-csv", args=[chat.pk, "ttft"])).status_code == 404


def test_columns_are_given_only_for_deployments_one_may_see(watched: None, ann: User, chat: Deployment) -> None:
    bob = make.make_user("bob", team=make.make_team("labs"))
    address = f"{reverse('fleet-columns')}?ids={chat.pk},999999,x"

    assert f'id="ttft-{chat.pk}"' in signed_in(ann).get(address).content.decode()
    assert "ttft-" not in signed_in(bob).get(address).content.decode()


def test_values_come_as_csv_with_their_unit(watched: None, ann: User, chat: Deployment) -> None:
    answer = signed_in(ann).get(reverse("panel-csv", args=[chat.pk, "ttft"]))

    assert answer.content.decode().splitlines()[0] == "time,series,value (s)"
