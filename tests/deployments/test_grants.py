"""Grants: they begin, are told of, end and are cut; what runs goes on unless the team chose otherwise."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.models import Deployment, Event, Flavor, Node, QuotaGrant, QuotaRequest, Team, User
from deployments.reconciler.desired import desired_of_team
from deployments.services import expiry, flavors, grant_ends, grants, ledger, quota_requests
from deployments.services.errors import InvalidError, QuotaExceededError
from deployments.tasks import sweep
from tests.deployments import factories as make
from tests.deployments.viewing import add_node

pytestmark = pytest.mark.django_db

LONG_AGO = timezone.now() - timedelta(days=60)


def runs(team: Team, user: User, flavor: Flavor, gpus: int, name: str) -> Deployment:
    """A deployment that runs and holds that many GPUs."""
    row = make.make_deployment(team, user, name=name, flavor=flavor, gpus=gpus, approved=True)
    assert row.latest is not None
    ledger.reserve(deployment=row, revision=row.latest, gpus=gpus)
    return row


def end(grant: QuotaGrant) -> None:
    """Let the last moment of a grant have been a second ago."""
    past = timezone.now() - timedelta(seconds=1)
    QuotaGrant.objects.filter(pk=grant.pk).update(valid_until=past, valid_from=past - timedelta(days=9))


def gpus_in_namespace(team: Team) -> dict[str, str]:
    """What the team's ResourceQuota would allow."""
    body = next(wish.body for wish in desired_of_team(team).objects if wish.ref.kind == "ResourceQuota")
    hard = body["spec"]["hard"]
    return {name: str(value) for name, value in hard.items() if "nvidia.com" in name}


def told(kind: str) -> list[str]:
    return list(Event.objects.filter(kind=kind).order_by("pk").values_list("message", flat=True))


def test_a_team_is_told_once_that_a_grant_ends_soon(team: Team, h100: Flavor, ann: User, settings: Any) -> None:
    settings.QUOTA_WARNING_DAYS = 7
    near = make.make_grant(team, h100, 2, valid_from=LONG_AGO, valid_until=timezone.now() + timedelta(days=6))
    make.make_grant(team, h100, 1, valid_from=LONG_AGO, valid_until=timezone.now() + timedelta(days=8))
    runs(team, ann, h100, 6, "chat")

    assert grant_ends.follow_dates() == 1
    assert grant_ends.follow_dates() == 0

    [words] = told("quota_ends_soon")
    assert "2 × H100-80GB ends on" in words
    assert "1 GPU more than the team may" in words
    near.refresh_from_db()
    assert near.warned_at is not None


def test_a_short_grant_is_warned_of_once_half_of_it_is_over(team: Team, h100: Flavor, carol: User) -> None:
    now = timezone.now()
    made = grants.grant(
        principal=make.principal(carol), team=team, flavor=h100, gpus=2, until=now + timedelta(days=4), comment="Fair"
    )
    grant_ends.follow_dates()
    assert told("quota_ends_soon") == []

    QuotaGrant.objects.filter(pk=made.pk).update(valid_from=now - timedelta(days=5))
    assert grant_ends.follow_dates() == 1
    assert len(told("quota_ends_soon")) == 1


def test_a_prolonged_grant_is_told_of_anew(team: Team, h100: Flavor, carol: User) -> None:
    grant = make.make_grant(team, h100, 2, valid_from=LONG_AGO, valid_until=timezone.now() + timedelta(days=2))
    grant_ends.follow_dates()
    grants.change_grant(
        principal=make.principal(carol), grant_id=grant.pk, until=timezone.now() + timedelta(days=5), comment="Fair"
    )
    assert grant_ends.follow_dates() == 1
    assert len(told("quota_ends_soon")) == 2


def test_at_its_end_what_runs_stays_and_nothing_grows(team: Team, h100: Flavor, ann: User) -> None:
    extra = make.make_grant(team, h100, 4)
    row = runs(team, ann, h100, 6, "chat")
    Team.objects.update(next_reconcile_at=None)
    end(extra)

    assert sweep() == 0
    assert sweep() == 1, "the team is due, so that its ResourceQuota follows"

    assert told("quota_ended") == [
        "The grant of 4 × H100-80GB has ended. Deployments hold 2 GPUs more than the team may; "
        "they go on, and cannot grow."
    ]
    row.refresh_from_db()
    assert row.wanted == "running"
    usage = ledger.usage_in(team=team, flavor=h100)
    assert (usage.limit, usage.reserved, usage.free, usage.over) == (4, 6, 0, 2)
    assert gpus_in_namespace(team) == {"requests.nvidia.com/gpu": "6"}, "never below what the ledger holds"
    with pytest.raises(QuotaExceededError):
        ledger.reserve(deployment=row, revision=row.latest, gpus=7)  # type: ignore[arg-type]


def test_a_team_that_chose_so_has_the_newest_stopped(team: Team, h100: Flavor, ann: User) -> None:
    Team.objects.filter(pk=team.pk).update(at_expiry=Team.AtExpiry.STOP)
    extra = make.make_grant(team, h100, 4)
    first, second, third = (runs(team, ann, h100, gpus, name) for gpus, name in ((3, "a"), (2, "b"), (3, "c")))
    end(extra)

    grant_ends.follow_dates()

    wanted = dict(Deployment.objects.values_list("name", "wanted"))
    assert wanted == {"a": "running", "b": "stopped", "c": "stopped"}
    assert ledger.held_by(third) == 3, "GPUs come back when the pods are gone, not before"
    assert set(Event.objects.filter(kind="stopped").values_list("deployment", flat=True)) == {second.pk, third.pk}
    assert Event.objects.get(kind="quota_ended").data["stopped"] == ["b", "c"]
    assert first.wanted == "running"


def test_what_stops_already_counts_before_others_are_stopped(team: Team, h100: Flavor, ann: User) -> None:
    Team.objects.filter(pk=team.pk).update(at_expiry=Team.AtExpiry.STOP)
    extra = make.make_grant(team, h100, 2)
    runs(team, ann, h100, 4, "a")
    going = runs(team, ann, h100, 2, "b")
    Deployment.objects.filter(pk=going.pk).update(wanted="stopped")
    end(extra)
    grant_ends.follow_dates()
    assert not Event.objects.filter(kind="stopped").exists()


def test_a_cut_stops_nobody_whatever_the_team_chose(team: Team, h100: Flavor, ann: User, carol: User) -> None:
    Team.objects.filter(pk=team.pk).update(at_expiry=Team.AtExpiry.STOP)
    runs(team, ann, h100, 4, "a")
    grants.change_grant(principal=make.principal(carol), grant_id=team.grants.get().pk, gpus=1)
    grant_ends.follow_dates()
    assert Deployment.objects.get().wanted == "running"
    assert ledger.usage(team)[0].over == 3


def test_a_grant_that_begins_later_counts_from_then(team: Team, h100: Flavor, carol: User) -> None:
    begins = timezone.now() + timedelta(days=1)
    grant = grants.grant(principal=make.principal(carol), team=team, flavor=h100, gpus=2, since=begins)
    assert ledger.usage_in(team=team, flavor=h100).limit == 4
    assert grant_ends.follow_dates() == 0
    past = timezone.now() - timedelta(minutes=1)
    QuotaGrant.objects.filter(pk=grant.pk).update(valid_from=past, created_at=past - timedelta(days=1))
    Team.objects.update(next_reconcile_at=None)

    assert grant_ends.follow_dates() == 1
    assert grant_ends.follow_dates() == 0

    assert told("quota_begun") == ["The grant of 2 × H100-80GB has begun."]
    assert Team.objects.get(pk=team.pk).next_reconcile_at is not None
    assert ledger.usage_in(team=team, flavor=h100).limit == 6


def test_a_grant_that_cannot_be_followed_holds_up_no_other(
    team: Team, h100: Flavor, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisonous, other = (make.make_grant(team, h100, gpus) for gpus in (1, 2))
    end(poisonous)
    end(other)
    follow = grants.follow
    failed: list[int] = []

    def fails_once(team_id: int, flavor_id: int) -> None:
        if not failed:
            failed.append(team_id)
            raise RuntimeError("poison")
        follow(team_id, flavor_id)

    monkeypatch.setattr(grants, "follow", fails_once)
    assert grant_ends.follow_dates() == 1
    assert grant_ends.follow_dates() == 1, "and is followed by the next sweep"
    assert len(told("quota_ended")) == 2


def test_grants_of_flavors_that_share_a_resource_are_summed(team: Team, h100: Flavor) -> None:
    make.make_grant(team, make.make_flavor("l4-24gb"), 3)
    shared = make.make_flavor("l40s-48gb")
    Flavor.objects.filter(pk=shared.pk).update(resource_name="nvidia.com/gpu.shared")
    make.make_grant(team, shared, 5)
    assert gpus_in_namespace(team) == {"requests.nvidia.com/gpu": "7", "requests.nvidia.com/gpu.shared": "5"}


def test_of_a_resource_that_is_not_granted_the_namespace_holds_none(team: Team, h100: Flavor, ann: User) -> None:
    slices = make.make_flavor("l40s-48gb")
    Flavor.objects.filter(pk=slices.pk).update(resource_name="nvidia.com/mig-1g.10gb")
    grant = make.make_grant(team, slices, 4, valid_until=timezone.now() + timedelta(days=1))
    end(grant)
    # And of one that a node has, and no flavor names.
    add_node(gpus=4)
    Node.objects.update(resource_name="nvidia.com/mig-3g.40gb")

    assert gpus_in_namespace(team) == {
        "requests.nvidia.com/gpu": "4",
        "requests.nvidia.com/mig-1g.10gb": "0",
        "requests.nvidia.com/mig-3g.40gb": "0",
    }


def test_another_flavor_is_in_every_teams_limits(team: Team, h100: Flavor, carol: User) -> None:
    Team.objects.update(next_reconcile_at=timezone.now() + timedelta(hours=1))
    values = {"slug": "slices", "name": "Slices", "product": "NVIDIA-H100-80GB-HBM3", "memory_mib": 10_000}
    flavors.create(
        principal=make.principal(carol), resource_name="nvidia.com/mig-1g.10gb", compute_capability="9.0", **values
    )
    team.refresh_from_db()
    assert team.next_reconcile_at <= timezone.now()
    assert gpus_in_namespace(team)["requests.nvidia.com/mig-1g.10gb"] == "0"


def test_requests_for_quota_expire_undecided(team: Team, h100: Flavor, alice: User, settings: Any) -> None:
    settings.REQUEST_EXPIRY_DAYS = 3
    old, new = (
        quota_requests.ask(principal=make.principal(alice), team=team, flavor=h100, gpus=gpus, why="x")
        for gpus in (1, 2)
    )
    QuotaRequest.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=4))
    assert expiry.expire_asked() == 1
    assert expiry.expire_asked() == 0
    states = dict(QuotaRequest.objects.values_list("pk", "state"))
    assert states == {old.pk: "expired", new.pk: "pending"}
    assert told("quota_expired") == ["Nobody decided about the request for 1 × H100-80GB for 3 days"]


def test_a_grant_does_not_end_before_it_begins(team: Team, h100: Flavor, carol: User) -> None:
    now = timezone.now()
    with pytest.raises(InvalidError) as refused:
        grants.grant(
            principal=make.principal(carol),
            team=team,
            flavor=h100,
            gpus=1,
            since=now + timedelta(days=2),
            until=now + timedelta(days=1),
        )
    assert refused.value.field == "valid_until"
