"""Who asks, and what the querysets let them see."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.contrib.auth.models import AnonymousUser

from deployments.models import Deployment, Event, Team
from deployments.services import events, grants, memberships, policies, teams, tokens
from deployments.services.errors import (
    ConflictError,
    InvalidError,
    MissingError,
    NotAllowedError,
    NotAuthenticatedError,
)
from deployments.services.principals import principal_of, principal_of_token
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db


def request(user, auth=None):
    return SimpleNamespace(user=user, auth=auth, META={"SLIPWAY_REQUEST_ID": "r1"})


def test_a_session_has_every_scope_and_a_token_only_its_own(ann, team):
    token, _ = tokens.create(principal=make.principal(ann), name="ci", scopes=["read"], teams=[team])
    assert principal_of(request(ann)).scopes == {"read", "write", "approve", "invoke"}
    narrow = principal_of(request(ann, token))
    assert (narrow.scopes, narrow.team_ids) == ({"read"}, {team.pk})


def test_nobody_and_the_disabled_are_not_authenticated(ann):
    ann.is_active = False
    for user in (AnonymousUser(), ann):
        with pytest.raises(NotAuthenticatedError):
            principal_of(request(user))


def test_events_carry_the_id_of_the_request(ann, team):
    principal_of(request(ann))
    events.record(kind="test", message="x", team=team)
    assert Event.objects.get(kind="test").request_id == "r1"


def test_events_of_no_team_are_for_admins(ann, carol, team):
    events.record(kind="token_created", message="x", actor=ann)
    events.record(kind="stopped", message="y", team=team)
    assert [row.kind for row in Event.objects.visible_to(make.principal(ann))] == ["stopped"]
    assert Event.objects.visible_to(make.principal(carol)).count() == 2
    assert not Event.objects.visible_to(make.principal(carol, "write")).exists()


def test_members_see_their_teams_and_admins_all(ann, bob, carol, team):
    make.make_deployment(team, ann)
    seen = {user.username: Deployment.objects.visible_to(make.principal(user)).count() for user in (ann, bob, carol)}
    assert seen == {"ann": 1, "bob": 0, "carol": 1}
    assert not Deployment.objects.writable_by(make.principal(carol)).exists()
    assert Deployment.objects.writable_by(make.principal(ann)).exists()


@pytest.mark.parametrize(
    ("scopes", "visible", "writable", "callable_"),
    [(("read",), 1, 0, 0), (("write",), 0, 1, 0), (("invoke",), 0, 0, 1)],
)
def test_each_scope_opens_its_own_door(ann, team, scopes, visible, writable, callable_):
    who = make.principal(ann, *scopes)
    doors = (Team.objects.visible_to(who), Team.objects.writable_by(who), Team.objects.callable_by(who))
    assert tuple(door.count() for door in doors) == (visible, writable, callable_)


def test_leads_and_admins_manage_members_and_strangers_do_not(alice, ann, bob, carol, team):
    for who, refusal in ((ann, NotAllowedError), (bob, MissingError)):
        with pytest.raises(refusal):
            memberships.add(principal=make.principal(who), team=team, user=bob)
    memberships.add(principal=make.principal(alice), team=team, user=bob, role="lead")
    assert Team.objects.led_by(make.principal(bob)).filter(pk=team.pk).exists()
    memberships.remove(principal=make.principal(carol), team=team, user=bob)
    assert not Team.objects.visible_to(make.principal(bob)).filter(pk=team.pk).exists()
    assert [event.kind for event in Event.objects.order_by("pk")] == ["member_added", "member_removed"]


def test_only_admins_make_teams_and_grant_quota(alice, carol, team, h100):
    with pytest.raises(NotAllowedError):
        teams.create(principal=make.principal(alice), slug="own", name="Own")
    with pytest.raises(NotAllowedError):
        grants.grant(principal=make.principal(alice), team=team, flavor=h100, gpus=1)
    made = teams.create(principal=make.principal(carol), slug="vision", name="Vision")
    assert made.namespace.startswith("vision-")
    assert len(made.namespace) == len("vision-") + 5
    with pytest.raises(ConflictError):
        teams.create(principal=make.principal(carol), slug="vision", name="Again")


@pytest.mark.parametrize("gpus", [-1, True, 10**9, "4", 1.5, None])
def test_odd_grants_are_refused(carol, team, h100, gpus):
    with pytest.raises(InvalidError):
        grants.grant(principal=make.principal(carol), team=team, flavor=h100, gpus=gpus)


def test_a_cut_grant_leaves_what_is_held(carol, ann, team, h100):
    from deployments.services import ledger

    deployment = make.make_deployment(team, ann, gpus=4, approved=True)
    ledger.reserve(deployment=deployment, revision=deployment.latest, gpus=4)
    grant = team.grants.get()
    grants.change_grant(principal=make.principal(carol), grant_id=grant.pk, gpus=1)
    row = ledger.usage(team)[0]
    assert (row.limit, row.reserved, row.free) == (1, 4, 0)
    assert Event.objects.get(kind="quota_granted").data["before"] == {"gpus": 4}


def test_an_admins_token_for_one_team_rules_no_other(alice, carol, team, h100):
    labs = make.make_team("labs")
    theirs = make.make_grant(labs, h100, 2)
    token, _ = tokens.create(principal=make.principal(carol), name="ci", scopes=["write", "approve"], teams=[team])
    bound = principal_of_token(token)
    with pytest.raises(MissingError):
        grants.change_grant(principal=bound, grant_id=theirs.pk, gpus=64)
    with pytest.raises(MissingError):
        grants.grant(principal=bound, team=labs, flavor=h100, gpus=64)
    with pytest.raises(MissingError):
        policies.set_policy(principal=bound, team=labs, policy=Team.Policy.AUTO)
    with pytest.raises(MissingError):
        memberships.add(principal=bound, team=labs, user=alice)
    with pytest.raises(MissingError):
        memberships.remove(principal=bound, team=labs, user=alice)
    with pytest.raises(NotAllowedError):
        teams.create(principal=bound, slug="mine", name="Mine")
    theirs.refresh_from_db()
    assert theirs.gpus == 2

    own = grants.grant(principal=bound, team=team, flavor=h100, gpus=1)
    assert grants.change_grant(principal=bound, grant_id=own.pk, gpus=3).gpus == 3
    assert policies.set_policy(principal=bound, team=team, policy=Team.Policy.AUTO).policy == Team.Policy.AUTO
    assert memberships.add(principal=bound, team=team, user=carol).team == team
