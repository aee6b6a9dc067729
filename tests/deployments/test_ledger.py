"""What a team holds of its quota: taking, giving back with proof, and who waits."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from deployments.models import Approval, Deployment, Event, QuotaAccount, QuotaHold, Reservation, Wanted
from deployments.services import ledger, lifecycle
from deployments.services.convergence import LeaseLostError, database_now
from deployments.services.errors import ConflictError, InvalidError, NotAllowedError, QuotaExceededError
from deployments.services.transactions import sqlstate
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def team():
    return make.make_team()


@pytest.fixture
def alice(team):
    return make.make_user("alice", team=team, lead=True)


@pytest.fixture
def h100(team):
    flavor = make.make_flavor()
    make.make_grant(team, flavor, 4)
    return flavor


@pytest.fixture
def chat(team, alice, h100):
    return make.make_deployment(team, alice, gpus=2, approved=True)


def stop(deployment: Deployment) -> None:
    Deployment.objects.filter(pk=deployment.pk).update(wanted=Wanted.STOPPED, wanted_at=Now())


def code_of(error: pytest.ExceptionInfo[DatabaseError]) -> str:
    return sqlstate(error.value)


def test_reserving_moves_account_and_hold(chat, h100, team):
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    assert ledger.held_by(chat) == 2
    assert [(row.flavor, row.limit, row.reserved, row.free) for row in ledger.usage(team)] == [(h100, 4, 2, 2)]


def test_reserving_the_same_twice_takes_once(chat):
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    assert ledger.reserve(deployment=chat, revision=chat.latest, gpus=2) is None
    assert ledger.held_by(chat) == 2


def test_an_edit_takes_only_the_difference(chat):
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    row = ledger.reserve(deployment=chat, revision=chat.latest, gpus=3)
    assert row is not None
    assert (row.delta, row.balance_before) == (1, 2)


def test_more_than_the_limit_is_refused_with_the_numbers(chat):
    with pytest.raises(QuotaExceededError, match="5 more GPUs of H100-80GB are needed; Search has 4 of 4 free"):
        ledger.reserve(deployment=chat, revision=chat.latest, gpus=5)
    assert ledger.held_by(chat) == 0


def test_grants_that_ended_or_have_not_begun_do_not_count(team, alice):
    flavor = make.make_flavor("l4-24gb")
    now = timezone.now()
    make.make_grant(team, flavor, 8, valid_from=now - timedelta(days=2), valid_until=now - timedelta(days=1))
    make.make_grant(team, flavor, 8, valid_from=now + timedelta(days=1))
    deployment = make.make_deployment(team, alice, flavor=flavor)
    with pytest.raises(QuotaExceededError):
        ledger.reserve(deployment=deployment, revision=deployment.latest, gpus=1)


def test_giving_back_never_depends_on_the_limit(chat, team):
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    team.grants.all().delete()
    stop(chat)
    make.release(chat)
    assert ledger.held_by(chat) == 0


def test_pods_that_are_still_there_keep_their_gpus_reserved(chat):
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    stop(chat)
    with pytest.raises(ledger.ProofError):
        make.release(chat, gpus=1)
    assert ledger.held_by(chat) == 2


def test_a_list_older_than_the_reservation_proves_nothing(chat):
    early = ledger.Proof(database_now())
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    Deployment.objects.filter(pk=chat.pk).update(wanted=Wanted.STOPPED, wanted_at=early.listed_at)
    with pytest.raises(ledger.ProofError, match="older than the reservation"):
        ledger.release(deployment=chat, lease=make.lease(chat), proof=early)
    assert ledger.held_by(chat) == 2


def test_a_list_older_than_the_last_start_or_stop_proves_nothing(chat, alice):
    who = make.principal(alice)
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    lifecycle.stop(principal=who, deployment=chat)
    early = ledger.Proof(database_now())
    lifecycle.start(principal=who, deployment=chat)
    lifecycle.stop(principal=who, deployment=chat)
    assert Reservation.objects.filter(kind="take").count() == 1  # the hold stood all the time
    with pytest.raises(ledger.ProofError, match="older than the last start or stop"):
        ledger.release(deployment=chat, lease=make.lease(chat), proof=early)
    assert ledger.held_by(chat) == 2


@pytest.mark.parametrize("lost", ["taken over", "run out", "another row's"])
def test_a_worker_without_the_lease_gives_nothing_back(chat, alice, team, lost):
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    stop(chat)
    lease, proof = make.lease(chat), ledger.Proof(database_now())
    if lost == "taken over":
        make.lease(chat)
    elif lost == "run out":
        Deployment.objects.filter(pk=chat.pk).update(lease_until=Now() - timedelta(seconds=1))
    else:
        lease = make.lease(make.make_deployment(team, alice, name="other"))
    with pytest.raises(LeaseLostError):
        ledger.release(deployment=chat, lease=lease, proof=proof)
    assert ledger.held_by(chat) == 2


def test_a_deployment_that_was_started_again_keeps_its_gpus(chat):
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    assert make.release(chat) == []
    assert ledger.held_by(chat) == 2


def test_giving_back_twice_gives_back_once(chat, team):
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    stop(chat)
    assert [row.delta for row in make.release(chat)] == [-2]
    assert make.release(chat) == []
    assert ledger.usage(team)[0].reserved == 0


def test_the_surge_comes_back_after_the_rollout_and_not_before(chat, alice):
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    Deployment.objects.filter(pk=chat.pk).update(applied=chat.latest)
    wider = make.add_revision(chat, alice, gpus=2, surge=1)
    make.approve(wider)
    ledger.reserve(deployment=chat, revision=wider, gpus=ledger.charge(old=chat.revisions.last(), new=wider))
    assert ledger.held_by(chat) == 3
    assert make.release(chat, gpus=2, down_to=2) == []
    Deployment.objects.filter(pk=chat.pk).update(applied=wider)
    with pytest.raises(ledger.ProofError):
        make.release(chat, gpus=2, of_others=1, down_to=2)
    make.release(chat, gpus=2, down_to=2)
    assert ledger.held_by(chat) == 2


def test_a_change_of_flavor_is_paid_twice_until_the_old_pods_are_gone(chat, alice, team, h100):
    l4 = make.make_flavor("l4-24gb")
    make.make_grant(team, l4, 8)
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    moved = make.add_revision(chat, alice, flavor=l4, gpus=4)
    make.approve(moved)
    ledger.reserve(deployment=chat, revision=moved, gpus=ledger.charge(old=chat.revisions.last(), new=moved))
    assert (ledger.held_by(chat, h100), ledger.held_by(chat, l4)) == (2, 4)
    Deployment.objects.filter(pk=chat.pk).update(applied=moved)
    make.release(chat, gpus=4, down_to=4)
    assert (ledger.held_by(chat, h100), ledger.held_by(chat, l4)) == (0, 4)


@pytest.mark.parametrize(
    ("old", "new", "expected"), [(None, (2, 1), 3), ((4, 0), (2, 1), 5), ((2, 0), (4, 1), 5), ((2, 0), (2, 0), 2)]
)
def test_the_charge_is_the_worst_moment_of_the_change(chat, alice, old, new, expected):
    before = make.add_revision(chat, alice, gpus=old[0], surge=old[1]) if old else None
    after = make.add_revision(chat, alice, gpus=new[0], surge=new[1])
    assert ledger.charge(old=before, new=after) == expected


def test_an_admin_may_force_with_a_reason_and_it_is_recorded(chat, alice):
    carol = make.make_user("carol", admin=True)
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=2)
    force = ledger.force_release
    with pytest.raises(NotAllowedError):
        force(principal=make.principal(alice), deployment=chat, reason="node burnt")
    with pytest.raises(InvalidError):
        force(principal=make.principal(carol), deployment=chat, reason="  ")
    with pytest.raises(ConflictError):
        force(principal=make.principal(carol), deployment=chat, reason="node burnt")
    stop(chat)
    force(principal=make.principal(carol), deployment=chat, reason="node burnt")
    assert ledger.held_by(chat) == 0
    event = Event.objects.get(kind="gpus_forced")
    assert (event.actor, event.data["gpus"], event.data["reason"]) == (carol, 2, "node burnt")


# Each guard of the database alone: services could be wrong, these may not.


def take(account: QuotaAccount, deployment: Deployment, delta: int, before: int, **fields: object) -> Reservation:
    kind = "take" if delta > 0 else "release"
    values = {"account": account, "deployment": deployment, "delta": delta, "balance_before": before, "kind": kind}
    return Reservation.objects.create(**{**values, **fields})


@pytest.fixture
def account(team, h100):
    return QuotaAccount.objects.get(team=team, flavor=h100)


def test_the_ledger_itself_refuses_to_pass_the_limit(account, chat):
    with pytest.raises(DatabaseError) as error, transaction.atomic():
        take(account, chat, 5, 0)
    assert code_of(error) == "SQ001"


def test_the_ledger_refuses_a_balance_that_is_not_so(account, chat):
    take(account, chat, 2, 0)
    with pytest.raises(DatabaseError) as error, transaction.atomic():
        take(account, chat, 1, 0)
    assert code_of(error) == "SQ002"


def test_the_ledger_refuses_to_give_back_twice(account, chat):
    take(account, chat, 2, 0)
    take(account, chat, -2, 2)
    for before in (2, 0):
        with pytest.raises(DatabaseError) as error, transaction.atomic():
            take(account, chat, -2, before)
        # A code of ours, and not the account's constraint: who released as well is told that it is done.
        assert code_of(error) == "SQ002"
    account.refresh_from_db()
    assert account.reserved == 0


def test_the_ledger_refuses_the_account_of_another_team(account):
    other = make.make_team("labs")
    stranger = make.make_deployment(other, make.make_user("bob", team=other))
    with pytest.raises(DatabaseError) as error, transaction.atomic():
        take(account, stranger, 1, 0)
    assert code_of(error) == "SQ003"


@pytest.mark.parametrize("fields", [{"delta": 0}, {"kind": "release"}, {"delta": -1, "kind": "take"}])
def test_the_kind_says_the_sign(account, chat, fields):
    with pytest.raises(DatabaseError), transaction.atomic():
        take(account, chat, fields.pop("delta", 1), 0, **fields)


def test_a_forced_release_names_who_and_why(account, chat, alice):
    take(account, chat, 2, 0)
    for fields in ({"reason": "why"}, {"actor": alice}):
        with pytest.raises(DatabaseError), transaction.atomic():
            take(account, chat, -2, 2, kind="force", **fields)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE deployments_quotaaccount SET reserved = 0",
        "UPDATE deployments_quotahold SET gpus = 0",
        "DELETE FROM deployments_quotahold",
        "UPDATE deployments_reservation SET delta = 1",
        "DELETE FROM deployments_reservation",
        "INSERT INTO deployments_quotahold (account_id, deployment_id, gpus) SELECT account_id, deployment_id + 1, 1 "
        "FROM deployments_quotahold",
    ],
)
def test_reserved_and_the_ledger_change_in_no_other_way(account, chat, statement):
    take(account, chat, 2, 0)
    with pytest.raises(DatabaseError) as error, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert code_of(error) == "SQ003"


def test_an_account_does_not_begin_with_gpus_reserved(team):
    with pytest.raises(DatabaseError) as error, transaction.atomic():
        QuotaAccount.objects.create(team=team, flavor=make.make_flavor("l4-24gb"), reserved=3)
    assert code_of(error) == "SQ003"


def test_every_change_of_a_grant_updates_the_account(account, team, h100):
    l4 = make.make_flavor("l4-24gb")

    def version(flavor) -> int:
        return QuotaAccount.objects.get(team=team, flavor=flavor).grants_version

    before = version(h100)
    grant = make.make_grant(team, h100, 2)
    grant.gpus = 1
    grant.save()
    assert version(h100) == before + 2
    grant.flavor = l4
    grant.save()
    assert (version(h100), version(l4)) == (before + 3, 1)
    grant.delete()
    assert version(l4) == 2


def test_holds_and_ledger_agree(account, chat):
    take(account, chat, 3, 0)
    take(account, chat, -1, 3)
    account.refresh_from_db()
    assert account.reserved == QuotaHold.objects.get().gpus == 2


@pytest.mark.parametrize("table", ["event", "reservation", "approval", "revision", "quotahold"])
def test_tables_whose_rows_stay_are_not_emptied(chat, table):
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # else PostgreSQL refuses for other reasons
        cursor.execute("SET LOCAL slipway.may_truncate = off")  # as on every connection but those of tests
        with pytest.raises(DatabaseError) as error, transaction.atomic():
            cursor.execute(f"TRUNCATE deployments_{table} CASCADE")
    assert code_of(error) == "SQ003"


def signed(revision, actor, kind="admin") -> None:
    """An approval straight into the table, past the service."""
    with transaction.atomic():
        Approval.objects.create(revision=revision, digest=revision.digest, kind=kind, actor=actor, approved=True)


def test_the_database_knows_every_author_since_the_last_approval(chat, alice, team):
    ann, carol = make.make_user("ann", team=team), make.make_user("carol", admin=True)
    make.add_revision(chat, ann)
    third = make.add_revision(chat, alice)
    for author in (ann, alice):
        with pytest.raises(DatabaseError) as error:
            signed(third, author)
        assert code_of(error) == "SQ003"
    signed(third, carol)
    signed(make.add_revision(chat, carol), ann)  # what ann wrote is approved: she is a second person again


def test_only_policy_approves_without_an_actor(chat, alice):
    revision = make.add_revision(chat, alice)
    for kind in ("lead", "admin"):
        with pytest.raises(DatabaseError, match="approval_by_policy_or_somebody"):
            signed(revision, None, kind)
    signed(revision, None, "policy")
