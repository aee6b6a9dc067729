"""Teams and their people: who may change what, what ends with a membership, and what an archived team leaves."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from deployments.models import (
    ApiToken,
    Deployment,
    Event,
    Flavor,
    GroupRule,
    Membership,
    QuotaAccount,
    QuotaGrant,
    QuotaHold,
    QuotaRequest,
    Reservation,
    Revision,
    Team,
    User,
)
from deployments.services import (
    approvals,
    invitations,
    ledger,
    lifecycle,
    memberships,
    requests,
    teams,
    tokens,
    waiting,
)
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError, RefusedError
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db


def roles(team: Team) -> dict[str, str]:
    return dict(Membership.objects.filter(team=team).values_list("user__username", "role"))


def test_a_lead_lets_people_in_changes_their_role_and_takes_them_out(team: Team, alice: User, bob: User) -> None:
    lead = make.principal(alice)

    memberships.add(principal=lead, team=team, user=bob)
    memberships.change(principal=lead, team=team, user=bob, role="lead")
    assert roles(team) == {"alice": "lead", "bob": "lead"}
    memberships.remove(principal=lead, team=team, user=bob)

    assert roles(team) == {"alice": "lead"}
    lines = Event.objects.filter(team=team).order_by("pk")
    assert [line.kind for line in lines] == ["member_added", "member_changed", "member_removed"]
    assert lines[1].data["before"] == {"role": "member"}
    assert lines[1].data["after"] == {"role": "lead"}


def test_members_and_strangers_change_nobody(team: Team, alice: User, ann: User, bob: User) -> None:
    for who, refusal in ((ann, NotAllowedError), (bob, MissingError)):
        principal = make.principal(who)
        with pytest.raises(refusal):
            memberships.add(principal=principal, team=team, user=who, role="lead")
        with pytest.raises(refusal):
            memberships.change(principal=principal, team=team, user=alice, role="member")
        with pytest.raises(refusal):
            memberships.remove(principal=principal, team=team, user=alice)
        with pytest.raises(refusal):
            teams.rename(principal=principal, team=team, name="Mine")
        with pytest.raises(refusal):
            invitations.invite(principal=principal, team=team)
    assert roles(team) == {"alice": "lead", "ann": "member"}


@pytest.mark.parametrize("scopes", [("read",), ("read", "approve"), ("invoke",)])
def test_a_token_that_may_not_write_changes_nobody(team: Team, alice: User, ann: User, scopes: tuple[str, ...]) -> None:
    with pytest.raises((NotAllowedError, MissingError)):
        memberships.remove(principal=make.principal(alice, *scopes), team=team, user=ann)
    with pytest.raises((NotAllowedError, MissingError)):
        memberships.leave(principal=make.principal(ann, *scopes), team=team)


def test_odd_roles_and_accounts_that_are_off_are_refused(team: Team, alice: User, bob: User) -> None:
    with pytest.raises(InvalidError, match="member, lead"):
        memberships.add(principal=make.principal(alice), team=team, user=bob, role="owner")
    User.objects.filter(pk=bob.pk).update(is_active=False)
    bob.refresh_from_db()
    with pytest.raises(InvalidError, match="switched off"):
        memberships.add(principal=make.principal(alice), team=team, user=bob)
    with pytest.raises(MissingError):
        memberships.change(principal=make.principal(alice), team=team, user=bob, role="lead")


def test_the_last_lead_of_a_team_with_deployments_stays(team: Team, alice: User, ann: User, carol: User) -> None:
    lead = make.principal(alice)
    make.make_deployment(team, ann)

    for refused in (
        lambda: memberships.leave(principal=lead, team=team),
        lambda: memberships.remove(principal=lead, team=team, user=alice),
        lambda: memberships.change(principal=lead, team=team, user=alice, role="member"),
    ):
        with pytest.raises(ConflictError) as caught:
            refused()
        assert caught.value.code == "last_lead"

    memberships.change(principal=lead, team=team, user=ann, role="lead")
    memberships.leave(principal=lead, team=team)
    assert roles(team) == {"ann": "lead"}
    memberships.remove(principal=make.principal(carol), team=team, user=ann)
    assert roles(team) == {}


def test_a_lead_who_is_switched_off_is_none_to_rely_on(team: Team, alice: User, ann: User) -> None:
    make.make_deployment(team, ann)
    memberships.change(principal=make.principal(alice), team=team, user=ann, role="lead")
    User.objects.filter(pk=ann.pk).update(is_active=False)

    with pytest.raises(ConflictError):
        memberships.leave(principal=make.principal(alice), team=team)


def test_the_last_lead_of_an_empty_team_may_leave(team: Team, alice: User) -> None:
    memberships.leave(principal=make.principal(alice), team=team)

    assert roles(team) == {}
    assert Event.objects.get(kind="member_left").actor == alice


def test_a_hand_on_what_a_group_made_makes_it_hand_made(team: Team, alice: User, ann: User) -> None:
    Membership.objects.filter(user=ann).update(by_group=True)

    memberships.add(principal=make.principal(alice), team=team, user=ann)

    assert not Membership.objects.get(user=ann).by_group


def test_only_admins_rename_beyond_their_teams_and_the_namespace_stays(
    team: Team, alice: User, bob: User, carol: User
) -> None:
    before = (team.slug, team.namespace)
    teams.rename(principal=make.principal(alice), team=team, name="  Search \n and find ")
    teams.rename(principal=make.principal(carol), team=team, name="Search and find")

    team.refresh_from_db()
    assert (team.slug, team.namespace, team.name) == (*before, "Search and find")
    assert Event.objects.get(kind="team_renamed").data["after"] == {"name": "Search and find"}
    with pytest.raises(InvalidError):
        teams.rename(principal=make.principal(carol), team=team, name=" ")


def test_a_team_with_deployments_is_not_archived(team: Team, ann: User, carol: User, alice: User) -> None:
    deployment = make.make_deployment(team, ann)

    with pytest.raises(NotAllowedError):
        teams.archive(principal=make.principal(alice), team=team)
    with pytest.raises(ConflictError, match="1 deployment is left"):
        teams.archive(principal=make.principal(carol), team=team)
    type(deployment).objects.filter(pk=deployment.pk).update(deleted_at=timezone.now(), wanted="deleted")
    assert teams.archive(principal=make.principal(carol), team=team).archived_at is not None


def test_an_archived_team_opens_no_door_and_its_name_is_never_given_again(
    team: Team, alice: User, ann: User, carol: User, h100: Flavor
) -> None:
    labs = make.make_team("labs")
    make.join(alice, labs)
    bound, text = tokens.create(principal=make.principal(alice), name="ci", teams=[team])
    both, _ = tokens.create(principal=make.principal(alice), name="both", teams=[team, labs])
    _, word = invitations.invite(principal=make.principal(alice), team=team)
    GroupRule.objects.create(group="search-people", team=team)
    asked = QuotaRequest.objects.create(team=team, flavor=h100, gpus=2, why="More", author=alice)

    teams.archive(principal=make.principal(carol), team=team)

    assert not Team.objects.writable_by(make.principal(ann)).exists()
    assert tokens.authenticate(text) is None
    assert ApiToken.objects.live().filter(pk=both.pk).exists()
    assert bound.pk != both.pk
    with pytest.raises(ConflictError):
        invitations.accept(user=make.make_user("dora"), word=word)
    assert not GroupRule.objects.exists()
    asked.refresh_from_db()
    assert asked.state == QuotaRequest.State.WITHDRAWN
    assert not QuotaGrant.objects.filter(team=team, valid_until=None).exists()
    with pytest.raises(ConflictError):
        memberships.add(principal=make.principal(carol), team=team, user=carol)
    with pytest.raises(ConflictError):
        teams.create(principal=make.principal(carol), slug="search", name="Search")
    assert Team.objects.visible_to(make.principal(ann)).filter(pk=team.pk).exists(), "what was can be read"
    ended = Event.objects.get(kind="team_archived").data["ended"]
    ones = dict.fromkeys(("tokens", "invitations", "group_rules", "quota_requests", "grants"), 1)
    assert ended == {**ones, "keys": 0, "credentials": 0}


def test_a_request_that_meets_an_archived_team_is_refused(
    team: Team, ann: User, hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DeploymentSpec.model_validate(make.a_spec())
    # The team is archived between the check of the form and the transaction.
    monkeypatch.setattr(requests, "_may_ask", lambda principal, team: True)
    Team.objects.filter(pk=team.pk).update(archived_at=timezone.now())

    with pytest.raises(RefusedError):
        requests.submit(principal=make.principal(ann), team=team, name="chat", spec=spec)


@pytest.fixture
def waits(team: Team, alice: User, ann: User, h100: Flavor) -> Revision:
    """A request that Alice approved as a lead, and that waits for GPUs."""
    Team.objects.filter(pk=team.pk).update(policy=Team.Policy.LEAD)
    other = make.make_deployment(team, ann, name="big", gpus=4, approved=True)
    assert other.latest is not None
    chat = make.make_deployment(team, ann, gpus=2)
    revision = chat.latest
    assert revision is not None
    approvals.decide(principal=make.principal(alice), revision=revision, digest=revision.digest, approve=True)
    # Somebody took the GPUs between the look and the reservation.
    chat.refresh_from_db()
    type(chat).objects.filter(pk=chat.pk).update(approved=None)
    assert Reservation.objects.filter(deployment=chat).exists()
    make.release(chat)
    ledger.reserve(deployment=other, revision=other.latest, gpus=4)
    revision.refresh_from_db()
    assert revision.verdict == Revision.Verdict.APPROVED
    return revision


def verdict(revision: Revision) -> str:
    revision.refresh_from_db()
    return revision.verdict


def test_the_word_of_an_ex_lead_ends_where_it_was_not_carried_out(
    team: Team, alice: User, carol: User, waits: Revision
) -> None:
    memberships.change(principal=make.principal(carol), team=team, user=alice, role="member")

    assert verdict(waits) == Revision.Verdict.PENDING
    line = Event.objects.get(kind="approval_void")
    assert line.data["before"] == {"verdict": "approved"}
    account = QuotaAccount.objects.get(team=team)
    assert waiting.wake(account.pk) == 0


def test_the_line_asks_again_who_approved(team: Team, alice: User, waits: Revision) -> None:
    # Switched off past every service.
    User.objects.filter(pk=alice.pk).update(is_active=False)
    make.make_grant(team, waits.flavor, 8)

    assert waiting.wake(QuotaAccount.objects.get(team=team).pk) == 0
    assert verdict(waits) == Revision.Verdict.PENDING


def test_a_start_asks_again_who_approved(team: Team, alice: User, ann: User, waits: Revision) -> None:
    # While it is stopped it stands in no line, and nobody looks whose word it is.
    lifecycle.stop(principal=make.principal(ann), deployment=waits.deployment)
    memberships.change(
        principal=make.principal(make.make_user("erin", admin=True)), team=team, user=alice, role="member"
    )
    make.make_grant(team, waits.flavor, 8)

    lifecycle.start(principal=make.principal(ann), deployment=waits.deployment)

    assert verdict(waits) == Revision.Verdict.PENDING
    assert Deployment.objects.get(pk=waits.deployment_id).approved is None
    assert not QuotaHold.objects.filter(deployment=waits.deployment_id, gpus__gt=0).exists()


def test_the_word_of_somebody_who_leads_still_is_carried_out(team: Team, waits: Revision) -> None:
    make.make_grant(team, waits.flavor, 8)

    assert waiting.wake(QuotaAccount.objects.get(team=team).pk) == 1
    assert verdict(waits) == Revision.Verdict.APPROVED


def test_leaving_ends_the_invitations_that_one_gave(team: Team, alice: User, ann: User, carol: User) -> None:
    _, word = invitations.invite(principal=make.principal(alice), team=team)
    _, other = invitations.invite(principal=make.principal(carol), team=team)

    memberships.remove(principal=make.principal(carol), team=team, user=alice)

    dora = make.make_user("dora")
    with pytest.raises(ConflictError) as caught:
        invitations.accept(user=dora, word=word)
    assert caught.value.code == "revoked"
    assert invitations.accept(user=dora, word=other).role == "member"


def test_an_admin_who_leads_nothing_still_rules_what_they_gave(team: Team, carol: User) -> None:
    _, word = invitations.invite(principal=make.principal(carol), team=team, days=1)
    User.objects.filter(pk=carol.pk).update(is_platform_admin=False)

    known = invitations.found(word)
    assert known is not None
    assert invitations.standing(known) is invitations.Standing.REVOKED
    assert known.expires_at - timezone.now() <= timedelta(days=1)
