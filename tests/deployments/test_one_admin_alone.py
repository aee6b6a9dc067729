"""One admin alone gets nothing running: what they arranged for themselves, somebody else decides about."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.models import Deployment, Flavor, Notification, QuotaGrant, Revision, Team, User
from deployments.services import asks, grants, groups, memberships, policies, quota_requests, requests
from deployments.services.errors import NotAllowedError
from deployments.services.inbox import undecided
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hub")]


@pytest.fixture
def erin(db: None) -> User:
    """Another admin."""
    return make.make_user("erin", admin=True)


def ask(user: User, team: Team, name: str = "chat") -> Deployment:
    spec = DeploymentSpec.from_json(make.a_spec())
    return requests.submit(principal=make.principal(user), team=team, name=name, spec=spec)


def verdict(deployment: Deployment) -> str:
    assert deployment.latest is not None
    return str(deployment.latest.verdict)


def told(user: User) -> list[str]:
    return list(Notification.objects.filter(user=user).order_by("pk").values_list("event__kind", flat=True))


def test_policy_approves_no_request_of_an_admin(team: Team, ann: User, alice: User, carol: User) -> None:
    Team.objects.update(policy=Team.Policy.AUTO)
    memberships.add(principal=make.principal(carol), team=team, user=carol)

    assert verdict(ask(ann, team, "hers")) == Revision.Verdict.APPROVED
    own = ask(carol, team, "own")

    assert verdict(own) == Revision.Verdict.PENDING
    assert told(alice)[-1:] == ["requested"]
    assert [row.deployment for row in undecided(make.principal(alice))] == [own]
    assert list(undecided(make.principal(carol))) == []


def test_who_asks_is_told_before_that_somebody_else_decides(team: Team, ann: User, carol: User) -> None:
    Team.objects.update(policy=Team.Policy.AUTO)
    team.refresh_from_db()
    make.join(carol, team)

    def why(user: User) -> list[tuple[str, str]]:
        principal = make.principal(user)
        found = requests.preflight(principal=principal, team=team, name="chat", spec=make.a_spec())
        return [(one.code, one.who) for one in found.asks]

    assert (why(ann), why(carol)) == ([], [("author_rules", asks.LEAD)])


@pytest.mark.parametrize("by", ["policy", "grant", "changed grant"])
def test_who_arranged_it_as_an_admin_gets_nothing_by_it_later(
    team: Team, h100: Flavor, ann: User, carol: User, erin: User, by: str
) -> None:
    Team.objects.update(policy=Team.Policy.AUTO if by != "policy" else Team.Policy.ASK)
    team.refresh_from_db()
    one = make.principal(carol)
    if by == "policy":
        policies.set_policy(principal=one, team=team, policy="auto")
        policies.set_policy(principal=make.principal(erin), team=team, at_expiry="stop")
    elif by == "grant":
        grants.grant(principal=one, team=team, flavor=h100, gpus=1)
    else:
        grants.change_grant(principal=one, grant_id=QuotaGrant.objects.get().pk, gpus=5)
    User.objects.filter(pk=carol.pk).update(is_platform_admin=False)
    carol.refresh_from_db()
    make.join(carol, team)

    assert verdict(ask(carol, team, "own")) == Revision.Verdict.PENDING
    assert verdict(ask(ann, team, "hers")) == Revision.Verdict.APPROVED


def test_another_admins_word_replaces_it(team: Team, carol: User, erin: User) -> None:
    policies.set_policy(principal=make.principal(carol), team=team, policy="auto", ask_above=1)
    policies.set_policy(principal=make.principal(erin), team=team, policy="ask", ask_above=2)
    policies.set_policy(principal=make.principal(erin), team=team, policy="auto")
    User.objects.filter(pk=carol.pk).update(is_platform_admin=False)
    carol.refresh_from_db()
    make.join(carol, team)

    assert verdict(ask(carol, team)) == Revision.Verdict.APPROVED


def arranged(name: str, admin: User, team: Team, flavor: Flavor) -> Any:
    one = make.principal(admin)
    if name == "policy":
        return policies.set_policy(principal=one, team=team, policy="auto")
    if name == "grant":
        return grants.grant(principal=one, team=team, flavor=flavor, gpus=1)
    if name == "change":
        return grants.change_grant(principal=one, grant_id=QuotaGrant.objects.get().pk, gpus=9)
    lead = User.objects.get(username="alice")
    asked = quota_requests.ask(principal=make.principal(lead), team=team, flavor=flavor, gpus=1, why=admin.username)
    return quota_requests.decide(principal=one, request_id=asked.pk, grant=True, comment="Fine")


@pytest.mark.parametrize("name", ["policy", "grant", "change", "request"])
def test_an_admin_rules_no_team_that_they_belong_to(
    team: Team, h100: Flavor, alice: User, carol: User, erin: User, name: str
) -> None:
    make.join(carol, team)

    with pytest.raises(NotAllowedError, match=r"^You belong to Search: another admin has to [a-z ]+\.$"):
        arranged(name, carol, team, h100)

    team.refresh_from_db()
    assert (team.policy, sum(row.gpus for row in QuotaGrant.objects.all())) == ("ask", 4)
    arranged(name, erin, team, h100)


def test_the_only_admin_is_told_what_is_left(team: Team, carol: User) -> None:
    make.join(carol, team)

    with pytest.raises(NotAllowedError, match=r"There is no other admin: leave the team first, .*make_admin"):
        policies.set_policy(principal=make.principal(carol), team=team, policy="auto")


def test_all_other_admins_hear_what_one_arranges(
    team: Team, h100: Flavor, alice: User, ann: User, carol: User, erin: User
) -> None:
    one = make.principal(carol)
    policies.set_policy(principal=one, team=team, policy="auto")
    grants.grant(principal=one, team=team, flavor=h100, gpus=1)
    memberships.add(principal=one, team=team, user=carol)
    memberships.add(principal=one, team=team, user=make.make_user("new"))
    rule = groups.add_rule(principal=one, group="gpu-people", team=None)
    groups.remove_rule(principal=one, rule_id=rule.pk)

    heard = ["team_policy", "quota_granted", "member_added", "group_rule_added", "group_rule_removed"]
    assert told(erin) == heard
    assert told(carol) == []
    assert (told(alice), told(ann)) == (["quota_granted"], [])
