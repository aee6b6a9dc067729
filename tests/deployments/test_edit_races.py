"""Edits of one thing at the same moment: each waits for the other, reads what it left, and only then checks and writes.

Over connections of their own, as people do: one consistent result, everybody else is told why not, nothing breaks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import connections, transaction

from deployments.models import (
    Credential,
    EndpointKey,
    Event,
    GroupRule,
    Invitation,
    Membership,
    Principal,
    SecretVersion,
    Team,
    User,
)
from deployments.services import (
    credentials,
    emergencies,
    endpoint_keys,
    grants,
    groups,
    invitations,
    memberships,
    policies,
    quota_requests,
    teams,
)
from deployments.services.errors import DomainError, MissingError, NotAllowedError
from tests.deployments import factories as make
from tests.deployments.sealing_keys import TOKEN, add, use_keys
from tests.deployments.test_approvals import ask
from tests.deployments.test_service_races import AT_ONCE, kinds, together, until_somebody_waits_for_a_lock

pytestmark = pytest.mark.django_db(transaction=True)


def chained(kind: str) -> list[tuple[Any, Any]]:
    """What each event of a kind says it changed, in the order of their commits."""
    return [(row.data["before"], row.data["after"]) for row in Event.objects.filter(kind=kind).order_by("pk")]


def test_roles_that_six_leads_set_at_once_follow_one_another(team: Team) -> None:
    leads = [make.make_user(f"lead{n}", team=team, lead=True) for n in range(AT_ONCE)]
    ann = make.make_user("ann-marie", team=team)
    works = [
        partial(memberships.add, principal=make.principal(who), team=team, user=ann, role=("lead", "member")[n % 2])
        for n, who in enumerate(leads)
    ]

    assert kinds(together(works)) == ["Membership"] * AT_ONCE

    roles = ["member"]
    for before, after in chained("member_changed"):
        assert before["role"] == roles[-1], "each change begins where the one before ended"
        roles.append(after["role"])
    assert Membership.objects.get(team=team, user=ann).role == roles[-1]


def test_two_leads_who_demote_each_other_leave_one(team: Team, alice: User) -> None:
    other = make.make_user("other", team=team, lead=True)
    works = [
        partial(memberships.change, principal=make.principal(one), team=team, user=two, role="member")
        for one, two in ((alice, other), (other, alice))
    ]

    assert kinds(together(works)) == ["Membership", "NotAllowedError"]
    assert Membership.objects.filter(team=team, role="lead").count() == 1


def test_an_invitation_is_accepted_or_revoked(team: Team, alice: User) -> None:
    for _ in range(4):
        row, word = invitations.invite(principal=make.principal(alice), team=team)
        guest = make.make_user()
        said = together(
            [
                partial(invitations.accept, user=guest, word=word),
                partial(invitations.revoke, principal=make.principal(alice), invitation_id=row.pk),
            ]
        )
        row.refresh_from_db()
        belongs = Membership.objects.filter(team=team, user=guest).exists()
        assert (row.accepted_at is None) == (row.revoked_at is not None) == (not belongs)
        assert len([one for one in said if isinstance(one, DomainError)]) == 1


def test_the_last_open_invitation_is_made_once(team: Team, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invitations, "MOST_OPEN", 2)
    said = together([partial(invitations.invite, principal=make.principal(alice), team=team)] * AT_ONCE)
    assert kinds(said) == ["ConflictError"] * (AT_ONCE - 2) + ["tuple"] * 2
    assert Invitation.objects.open().count() == 2


def test_a_rule_is_made_once_and_removed_once(team: Team, carol: User) -> None:
    admin = make.principal(carol)
    for of in (team, None):
        made = together([partial(groups.add_rule, principal=admin, group="ml", team=of)] * AT_ONCE)
        assert kinds(made) == ["ConflictError"] * (AT_ONCE - 1) + ["GroupRule"]
        rule = GroupRule.objects.get(team=of)
        gone = together([partial(groups.remove_rule, principal=admin, rule_id=rule.pk)] * AT_ONCE)
        assert kinds(gone) == ["MissingError"] * (AT_ONCE - 1) + ["NoneType"]
    assert Event.objects.filter(kind="group_rule_removed").count() == 2


def test_a_rule_goes_while_its_team_is_archived(carol: User) -> None:
    admin = make.principal(carol)
    for n in range(4):
        team = make.make_team(f"old-{n}")
        rule = groups.add_rule(principal=admin, group="ml", team=team)
        said = together(
            [
                partial(teams.archive, principal=admin, team=team),
                partial(groups.remove_rule, principal=admin, rule_id=rule.pk),
            ]
        )
        assert isinstance(said[0], Team)
        assert said[1] is None or isinstance(said[1], DomainError)
    assert not GroupRule.objects.exists()


def test_policies_that_admins_set_at_once_follow_one_another(team: Team) -> None:
    admins = [make.make_user(f"admin{n}", admin=True) for n in range(AT_ONCE)]
    works = [
        partial(policies.set_policy, principal=make.principal(who), team=team, ask_above=n + 1)
        for n, who in enumerate(admins)
    ]

    assert kinds(together(works)) == ["Team"] * AT_ONCE

    now: Any = None
    for before, after in chained("team_policy"):
        assert before["ask_above"] == now, "each change begins where the one before ended"
        now = after["ask_above"]
    team.refresh_from_db()
    assert team.ask_above == now
    assert len(chained("team_policy")) == AT_ONCE


def test_a_credential_is_made_once_entered_in_turn_and_deleted_once(team: Team, alice: User, settings: Any) -> None:
    use_keys(settings)
    lead = make.principal(alice)
    made = together([partial(add, lead, team)] * AT_ONCE)
    assert kinds(made) == ["ConflictError"] * (AT_ONCE - 1) + ["Credential"]
    row = Credential.objects.get()

    fields = [{"token": f"{TOKEN}{n}"} for n in range(AT_ONCE)]
    turns = together([partial(credentials.rotate, principal=lead, credential_id=row.pk, fields=one) for one in fields])
    assert kinds(turns) == ["Credential"] * AT_ONCE
    versions = SecretVersion.objects.filter(credential=row).order_by("number")
    assert [one.number for one in versions] == list(range(1, AT_ONCE + 2))
    assert [one.number for one in versions if one.retired_at is None] == [AT_ONCE + 1], "the newest alone is to be used"

    gone = together([partial(credentials.delete, principal=lead, credential_id=row.pk)] * AT_ONCE)
    assert kinds(gone) == ["MissingError"] * (AT_ONCE - 1) + ["NoneType"]


def test_a_key_has_one_successor(team: Team, alice: User) -> None:
    lead = make.principal(alice)
    key, _ = endpoint_keys.create(principal=lead, team=team, name="ci", every_deployment=True)
    said = together([partial(endpoint_keys.rotate, principal=lead, key_id=key.pk)] * AT_ONCE)
    assert kinds(said) == ["ConflictError"] * (AT_ONCE - 1) + ["tuple"]
    assert EndpointKey.objects.filter(rotated_from=key).count() == 1


def test_who_leaves_while_they_rotate_leaves_no_key_behind(team: Team, alice: User) -> None:
    for n in range(4):
        ann = make.make_user(f"ann{n}", team=team)
        key, _ = endpoint_keys.create(
            principal=make.principal(ann), team=team, name="own", personal=True, every_deployment=True
        )
        together(
            [
                partial(endpoint_keys.rotate, principal=make.principal(ann), key_id=key.pk),
                partial(memberships.remove, principal=make.principal(alice), team=team, user=ann),
            ]
        )
        assert not EndpointKey.objects.filter(person=ann, revoked_at=None).exists()


def test_grants_that_admins_change_at_once_follow_one_another(team: Team) -> None:
    grant = make.make_grant(team, make.make_flavor(), 50)
    admins = [make.make_user(f"admin{n}", admin=True) for n in range(AT_ONCE)]
    seen = grants.tag_of(grant)
    blind = [
        partial(grants.change_grant, principal=make.principal(who), grant_id=grant.pk, gpus=n)
        for n, who in enumerate(admins)
    ]
    careful = [partial(work, seen=seen) for work in blind]

    assert kinds(together(careful)) == ["QuotaGrant"] + ["StaleError"] * (AT_ONCE - 1)
    assert set(kinds(together(blind))) <= {"QuotaGrant", "ConflictError"}
    now: Any = 50
    for before, after in chained("quota_granted"):
        assert before["gpus"] == now
        now = after["gpus"]
    grant.refresh_from_db()
    assert grant.gpus == now


@pytest.mark.usefixtures("hub")
def test_an_emergency_is_signed_or_withdrawn(team: Team, carol: User) -> None:
    erin = make.make_user("erin", admin=True)
    make.join(carol, team)
    for n in range(4):
        row = ask(carol, team, f"chat-{n}")
        digest = row.latest.digest  # type: ignore[union-attr]
        called = emergencies.call(
            principal=make.principal(carol), revision=row.latest, digest=digest, reason="Search is down"
        )
        said = together(
            [
                partial(emergencies.sign, principal=make.principal(erin), emergency_id=called.pk, digest=digest),
                partial(emergencies.withdraw, principal=make.principal(carol), emergency_id=called.pk),
            ]
        )
        called.refresh_from_db()
        withdrawn = Event.objects.filter(kind="emergency_withdrawn", data__emergency=called.pk).exists()
        assert (called.approval is None) == withdrawn
        assert len([one for one in said if isinstance(one, DomainError)]) == 1


# Who waited for the lock while the right to do it was taken from them.

Work = Callable[[Principal, Team], object]
OF_LEADS: dict[str, Work] = {
    "a member is added": lambda who, team: memberships.add(principal=who, team=team, user=make.make_user()),
    "somebody is invited": lambda who, team: invitations.invite(principal=who, team=team),
    "an invitation is revoked": lambda who, team: invitations.revoke(
        principal=who, invitation_id=Invitation.objects.get().pk
    ),
    "a credential is added": lambda who, team: add(who, team, "late"),
    "a credential is deleted": lambda who, team: credentials.delete(
        principal=who, credential_id=Credential.objects.get().pk
    ),
    "a key of the team is made": lambda who, team: endpoint_keys.create(
        principal=who, team=team, name="late", every_deployment=True
    ),
    "a key of the team is revoked": lambda who, team: endpoint_keys.revoke(
        principal=who, key_id=EndpointKey.objects.get().pk
    ),
    "quota is asked for": lambda who, team: quota_requests.ask(
        principal=who, team=team, flavor=make.make_flavor(), gpus=1, why="late"
    ),
    "the team is renamed": lambda who, team: teams.rename(principal=who, team=team, name="Late"),
}
OF_ADMINS: dict[str, Work] = {
    "a policy is set": lambda who, team: policies.set_policy(principal=who, team=team, policy="auto"),
    "a rule is made": lambda who, team: groups.add_rule(principal=who, group="late", team=team),
    "a rule is removed": lambda who, team: groups.remove_rule(principal=who, rule_id=GroupRule.objects.get().pk),
    "a team is archived": lambda who, team: teams.archive(principal=who, team=team),
    "quota is granted": lambda who, team: grants.grant(
        principal=who, team=team, flavor=make.make_flavor(), gpus=1, comment="late"
    ),
}


@pytest.mark.parametrize("wish", [*OF_LEADS, *OF_ADMINS])
def test_whoever_loses_the_right_while_they_wait_does_nothing(
    team: Team, alice: User, carol: User, settings: Any, wish: str
) -> None:
    use_keys(settings)
    by_admin = wish in OF_ADMINS
    work, person = ({**OF_LEADS, **OF_ADMINS})[wish], carol if by_admin else alice
    _things_to_change(team, alice, carol)
    before = _seen()
    said: list[object] = []

    def wait_for_it() -> None:
        try:
            said.append(work(make.principal(person), team))
        except DomainError as error:
            said.append(error)
        finally:
            connections.close_all()

    waiter = threading.Thread(target=wait_for_it)
    with transaction.atomic():
        Team.objects.hold(team.pk)
        waiter.start()
        until_somebody_waits_for_a_lock()
        if by_admin:
            User.objects.filter(pk=carol.pk).update(is_platform_admin=False)
        else:
            Membership.objects.filter(team=team, user=alice).update(role="member")
    waiter.join(10)

    (answer,) = said
    assert isinstance(answer, NotAllowedError | MissingError)
    assert _seen() == before


def _things_to_change(team: Team, alice: User, carol: User) -> None:
    lead = make.principal(alice)
    invitations.invite(principal=lead, team=team)
    add(lead, team)
    endpoint_keys.create(principal=lead, team=team, name="ci", every_deployment=True)
    groups.add_rule(principal=make.principal(carol), group="ml", team=team)


def _seen() -> list[object]:
    return [
        list(Invitation.objects.values_list("pk", "revoked_at").order_by("pk")),
        list(Credential.objects.values_list("pk", "deleted_at").order_by("pk")),
        list(EndpointKey.objects.values_list("pk", "revoked_at").order_by("pk")),
        list(GroupRule.objects.values_list("pk", flat=True).order_by("pk")),
        list(Team.objects.values_list("pk", "name", "policy", "archived_at").order_by("pk")),
        Membership.objects.count(),
        Event.objects.count(),
    ]
