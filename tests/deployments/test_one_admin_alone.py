"""One admin alone gets nothing running: what they arranged for themselves, somebody else decides about."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.models import (
    Deployment,
    Flavor,
    Membership,
    Notification,
    QuotaGrant,
    QuotaRequest,
    Revision,
    Team,
    User,
)
from deployments.services import (
    asks,
    grants,
    groups,
    impartial,
    invitations,
    lifecycle,
    memberships,
    policies,
    quota_requests,
    requests,
)
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


def test_an_admin_who_belongs_to_a_team_still_cuts_and_tightens(team: Team, h100: Flavor, carol: User) -> None:
    grant, one = QuotaGrant.objects.get(), make.principal(carol)
    policies.set_policy(principal=one, team=team, policy="auto", ask_above=4)
    make.join(carol, team)

    grants.change_grant(principal=one, grant_id=grant.pk, gpus=1)
    grants.change_grant(principal=one, grant_id=grant.pk, until=timezone.now() + timedelta(days=1))
    policies.set_policy(principal=one, team=team, policy="lead", ask_above=2, at_expiry="stop")

    grant.refresh_from_db()
    team.refresh_from_db()
    assert (grant.gpus, team.policy, team.ask_above, team.at_expiry) == (1, "lead", 2, "stop")
    looser: list[dict[str, Any]] = [{"policy": "auto"}, {"ask_above": None}, {"ask_above": 3}, {"at_expiry": "keep"}]
    for loose in looser:
        with pytest.raises(NotAllowedError, match=r"^You belong to Search: another admin has to loosen its policy"):
            policies.set_policy(principal=one, team=team, **loose)
    later = timezone.now() + timedelta(days=2)
    larger: list[dict[str, Any]] = [{"gpus": 2}, {"until": None}, {"until": later}, {"gpus": 0, "until": None}]
    for more in larger:
        with pytest.raises(NotAllowedError, match=r"^You belong to Search: another admin has to raise its quota"):
            grants.change_grant(principal=one, grant_id=grant.pk, **more)


def test_a_lead_ties_no_admin_to_their_team(team: Team, alice: User, carol: User) -> None:
    lead, new = make.principal(alice), make.make_user("new")
    with pytest.raises(NotAllowedError, match=r"^carol is an admin, .*send them an invitation"):
        memberships.add(principal=lead, team=team, user=carol)
    assert not Membership.objects.filter(user=carol).exists()

    memberships.add(principal=lead, team=team, user=new)
    memberships.add(principal=make.principal(carol), team=team, user=carol)
    # Who belongs to it already gets another role as everybody does.
    memberships.change(principal=lead, team=team, user=carol, role="lead")
    assert Membership.objects.get(user=carol).role == "lead"


def test_an_invitation_is_taken_up_by_an_admins_own_word(team: Team, alice: User, carol: User) -> None:
    _, word = invitations.invite(principal=make.principal(alice), team=team, email="carol@example.com")
    User.objects.filter(pk=carol.pk).update(email="carol@example.com")
    carol.refresh_from_db()
    invitations.accept(user=carol, word=word)
    assert Membership.objects.filter(team=team, user=carol).exists()


@pytest.mark.parametrize("name", ["policy", "grant", "change"])
def test_who_left_a_moment_ago_is_no_stranger(
    team: Team, h100: Flavor, alice: User, carol: User, erin: User, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.join(carol, team)
    memberships.leave(principal=make.principal(carol), team=team)

    with pytest.raises(NotAllowedError, match=r"^You belonged to Search within the last 30 days: another admin has to"):
        arranged(name, carol, team, h100)

    later = timezone.now() + timedelta(days=31)
    monkeypatch.setattr(impartial.timezone, "now", lambda: later)
    arranged(name, carol, team, h100)


def test_who_asked_for_quota_grants_none_while_it_waits(team: Team, h100: Flavor, carol: User, erin: User) -> None:
    asked = QuotaRequest.objects.create(team=team, flavor=h100, gpus=2, author=carol, why="mine")

    with pytest.raises(NotAllowedError, match=r"^You asked for quota of Search, which waits: another admin has to"):
        grants.grant(principal=make.principal(carol), team=team, flavor=h100, gpus=2)

    quota_requests.decide(principal=make.principal(erin), request_id=asked.pk, grant=False, comment="No")
    grants.grant(principal=make.principal(carol), team=team, flavor=h100, gpus=2)


def test_the_only_admin_may_once_they_have_left(team: Team, h100: Flavor, carol: User) -> None:
    make.join(carol, team)
    memberships.leave(principal=make.principal(carol), team=team)
    grants.grant(principal=make.principal(carol), team=team, flavor=h100, gpus=2)
    assert sum(row.gpus for row in QuotaGrant.objects.all()) == 6


def test_who_asked_hears_that_it_was_stopped_or_is_going(team: Team, alice: User, ann: User, carol: User) -> None:
    Team.objects.update(policy=Team.Policy.AUTO)
    hers = ask(ann, team, "hers")
    lifecycle.stop_by_itself(deployment=hers, reason="The team's grant has ended.")
    assert told(ann)[-1] == "stopped"
    assert (
        "Stopped by Slipway: The team's grant has ended." in Notification.objects.filter(user=ann).latest("pk").message
    )

    lifecycle.start(principal=make.principal(ann), deployment=hers)
    before = len(told(ann))
    lifecycle.stop(principal=make.principal(ann), deployment=hers)
    assert len(told(ann)) == before, "nobody is told what they did"
    lifecycle.delete(principal=make.principal(alice), deployment=hers)
    assert told(ann)[-1] == "delete_asked"


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
