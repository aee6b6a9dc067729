"""Asking for a model and changing the wish: what is stored, what is refused, and what strangers hear."""

from __future__ import annotations

import pytest

from deployments.manifests.count import gpus_of
from deployments.models import Deployment, Event, ModelCheck, QuotaGrant, Reservation, Revision, Team
from deployments.services import approvals, grants, ledger, model_checks, requests, waiting
from deployments.services.errors import ConflictError, MissingError, NotAllowedError, RefusedError, StaleError
from deployments.sources import Reply
from deployments.spec import DeploymentSpec, digest
from tests.deployments import factories as make

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hub")]

State = Deployment.State


def parsed(**changes) -> DeploymentSpec:
    return DeploymentSpec.from_json(make.a_spec(**changes))


def ask(user, team, name="chat", **changes) -> Deployment:
    return requests.submit(principal=make.principal(user), team=team, name=name, spec=parsed(**changes))


def let(user, deployment) -> None:
    """Approve the newest revision."""
    row = deployment.latest
    approvals.decide(principal=make.principal(user), revision=row, digest=row.digest, approve=True)


def codes(error: pytest.ExceptionInfo[RefusedError]) -> set[str]:
    return {finding.code for finding in error.value.findings if finding.is_error}


def test_a_request_stores_what_an_approval_will_sign(ann, team):
    deployment = ask(ann, team)

    revision = deployment.latest
    assert deployment.state == State.AWAITING_APPROVAL
    assert revision.resolution["commit"] == make.COMMIT
    assert "@sha256:" in revision.resolution["image"]
    assert revision.digest == digest(
        DeploymentSpec.from_json(revision.spec), revision.resolution, revision.objects_json
    )
    services = [obj for obj in revision.objects_json if obj["kind"] == "InferenceService"]
    assert [obj["metadata"]["namespace"] for obj in services] == [team.namespace]
    assert revision.gpus + revision.surge == gpus_of(revision.objects_json)
    assert not Reservation.objects.exists()


def test_a_request_is_recorded_with_who_and_what(ann, team):
    deployment = ask(ann, team)
    event = Event.objects.get(kind="requested")
    assert (event.actor, event.team, event.deployment) == (ann, team, deployment)
    assert event.data["digest"] == deployment.latest.digest
    assert event.data["after"]["flavor"] == "h100-80gb"


def test_policy_approves_at_once_within_quota(ann, team, h100, no_broker, django_capture_on_commit_callbacks):
    Team.objects.update(policy=Team.Policy.AUTO)
    with django_capture_on_commit_callbacks(execute=True):
        deployment = ask(ann, team)
    approval = deployment.latest.approvals.get()
    assert (approval.kind, approval.actor, approval.digest) == ("policy", None, deployment.latest.digest)
    assert deployment.approved == deployment.latest
    assert Reservation.objects.get().delta == 1
    assert deployment.next_reconcile_at is not None
    assert ("deployments.reconcile", deployment.pk) in no_broker


def test_policy_leaves_guarded_options_to_an_admin(ann, team):
    Team.objects.update(policy=Team.Policy.AUTO)
    guarded = {"profile": "vllm-0.32.0", "args": {"max-model-len": 16384, "trust-remote-code": True}}
    deployment = ask(ann, team, engine=guarded)
    assert deployment.latest.guarded == ["trust-remote-code"]
    assert deployment.state == State.AWAITING_APPROVAL


def test_a_guarded_switch_that_is_off_is_approved_by_policy_and_kept_in_the_signed_wish(ann, team):
    Team.objects.update(policy=Team.Policy.AUTO)
    args = {"max-model-len": 16384, "trust-remote-code": False}
    deployment = ask(ann, team, engine={"profile": "vllm-0.32.0", "args": args})
    assert deployment.latest.guarded == []
    assert "flag_guarded" not in {finding["code"] for finding in deployment.latest.findings}
    assert deployment.approved == deployment.latest
    assert deployment.latest.spec["engine"]["args"] == args


def test_policy_leaves_what_quota_does_not_cover_now_to_an_admin(ann, team):
    Team.objects.update(policy=Team.Policy.AUTO)
    ask(ann, team, replicas={"min": 3, "max": 3})
    second = ask(ann, team, "code", replicas={"min": 2, "max": 2})
    assert second.state == State.AWAITING_APPROVAL
    assert "quota_exceeded" in {finding["code"] for finding in second.latest.findings}


def test_more_than_the_whole_quota_waits_for_an_admin_then_for_quota_and_starts_when_it_is_granted(
    ann, team, h100, carol
):
    row = ask(ann, team, replicas={"min": 5, "max": 5})
    assert row.state == State.AWAITING_APPROVAL
    [warned] = [finding for finding in row.latest.findings if finding["code"] == "quota_exceeded"]
    assert warned["severity"] == "warning"
    assert "approved, it waits until the team's quota is raised" in warned["remedy"]

    let(carol, row)
    row.refresh_from_db()
    assert (row.state, row.approved) == (State.AWAITING_QUOTA, None)

    grants.grant(principal=make.principal(carol), team=team, flavor=h100, gpus=1)
    waiting.wake_all()
    row.refresh_from_db()
    assert row.approved == row.latest
    assert Reservation.objects.get().delta == 5


def test_a_team_without_any_quota_of_a_flavor_may_ask_for_it(ann, team, h100, carol):
    QuotaGrant.objects.all().delete()
    row = ask(ann, team)
    assert [finding["severity"] for finding in row.latest.findings if finding["code"] == "quota_none"] == ["warning"]
    let(carol, row)
    row.refresh_from_db()
    assert row.state == State.AWAITING_QUOTA


def test_a_name_is_used_once_in_a_team_and_again_after_deletion(ann, team):
    first = ask(ann, team)
    with pytest.raises(RefusedError) as error:
        ask(ann, team)
    assert codes(error) == {"name_taken"}
    Deployment.objects.filter(pk=first.pk).update(deleted_at=first.created_at)
    assert ask(ann, team).pk != first.pk


def test_strangers_and_nobody_hear_the_same_about_a_team(bob, team):
    with pytest.raises(RefusedError) as foreign:
        ask(bob, team)
    with pytest.raises(RefusedError) as unknown:
        requests.team_called(make.principal(bob), "nosuchteam")
    with pytest.raises(RefusedError) as odd:
        requests.team_called(make.principal(bob), "search\x00")
    assert foreign.value.findings == unknown.value.findings == odd.value.findings
    assert foreign.value.pointer == "/team"
    assert not Deployment.objects.exists()


def test_a_token_that_may_only_read_asks_for_nothing(ann, team):
    with pytest.raises(RefusedError):
        requests.submit(principal=make.principal(ann, "read"), team=team, name="chat", spec=parsed())


def test_an_admin_asks_only_where_they_belong(carol, team):
    with pytest.raises(RefusedError) as error:
        ask(carol, team)
    assert codes(error) == {"team_unknown"}


def test_an_unknown_model_is_refused_at_its_field(ann, team, hub):
    with pytest.raises(RefusedError) as error:
        ask(ann, team, source={"uri": "hf://nobody/nothing"})
    assert (error.value.field, codes(error)) == ("source_uri", {"source_not_found"})
    assert hub == ["/api/models/nobody/nothing?blobs=true"]


def test_a_gated_model_is_refused_without_a_credential(ann, team):
    make.make_check("hf://meta-llama/Llama-3.1-8B-Instruct", result="gated")
    with pytest.raises(RefusedError) as error:
        ask(ann, team, source={"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"})
    assert error.value.field == "credential"


def test_a_hub_that_is_away_still_knows_what_it_said_before(ann, team, monkeypatch):
    monkeypatch.setattr(model_checks, "_get", lambda path: Reply(0, error="hub cannot be reached"))
    ModelCheck.objects.update(checked_at="2020-01-01T00:00:00Z")
    deployment = ask(ann, team)
    assert deployment.latest.resolution["commit"] == make.COMMIT
    assert "source_unreachable" in {finding["code"] for finding in deployment.latest.findings}


def test_what_cannot_be_pinned_is_refused(ann, team, monkeypatch):
    monkeypatch.setattr(model_checks, "_get", lambda path: Reply(0, error="hub cannot be reached"))
    with pytest.raises(RefusedError) as error:
        ask(ann, team, source={"uri": "hf://some/model"})
    assert codes(error) == {requests.NOT_PINNED}
    pinned = ask(ann, team, source={"uri": "hf://some/model", "revision": "b" * 40})
    assert pinned.latest.resolution["storage_uri"] == f"hf://some/model:{'b' * 40}"


def test_a_team_cannot_pile_up_requests(ann, team, monkeypatch):
    monkeypatch.setattr(requests, "MOST_PENDING", 2)
    ask(ann, team, "one")
    ask(ann, team, "two")
    with pytest.raises(ConflictError):
        ask(ann, team, "three")


def revise(user, deployment, base, **changes) -> Revision:
    return requests.revise(
        principal=make.principal(user), deployment=deployment, spec=parsed(**changes), base_revision=base
    )


TWO = {"min": 2, "max": 2}


def test_an_edit_makes_a_revision_that_supersedes_the_undecided_one(ann, team):
    deployment = ask(ann, team)
    second = revise(ann, deployment, 1, replicas=TWO)
    first = deployment.revisions.get(number=1)
    assert (second.number, first.verdict, second.verdict) == (2, "superseded", "pending")
    event = Event.objects.get(kind="revised")
    assert event.data["before"] == {"replicas.max": 1, "replicas.min": 1}
    assert event.data["after"] == {"replicas.max": 2, "replicas.min": 2}


def test_an_edit_of_a_stale_page_is_refused(ann, team):
    deployment = ask(ann, team)
    revise(ann, deployment, 1, replicas=TWO)
    with pytest.raises(StaleError):
        revise(ann, deployment, 1, replicas={"min": 3, "max": 3})
    assert deployment.revisions.count() == 2


def test_an_edit_that_changes_nothing_makes_no_revision(ann, team):
    deployment = ask(ann, team)
    with pytest.raises(ConflictError):
        revise(ann, deployment, 1)


def test_what_runs_goes_on_while_an_edit_waits(ann, carol, team):
    deployment = ask(ann, team)
    approvals.decide(
        principal=make.principal(carol), revision=deployment.latest, digest=deployment.latest.digest, approve=True
    )
    revise(ann, deployment, 1, replicas=TWO)
    deployment.refresh_from_db()
    assert (deployment.approved.number, deployment.latest.number) == (1, 2)


def test_only_members_edit(ann, bob, carol, team):
    deployment = ask(ann, team)
    with pytest.raises(MissingError):
        revise(bob, deployment, 1, replicas=TWO)
    with pytest.raises(NotAllowedError):
        revise(carol, deployment, 1, replicas=TWO)


def test_preflight_names_who_approves_with_the_gpus_of_a_rollout_counted(ann, team, h100):
    Team.objects.filter(pk=team.pk).update(policy=Team.Policy.AUTO)
    team.refresh_from_db()
    role = {"replicas": {"min": 1, "max": 1}}
    wish = make.a_spec(strategy="disaggregated", prefill=role, decode=role)
    del wish["replicas"]
    # Of the team's four GPUs three are free: enough for both roles, and not for a quarter more of each.
    other = make.make_deployment(team, ann, name="other", approved=True)
    ledger.reserve(deployment=other, revision=other.latest, gpus=1)

    told = requests.preflight(principal=make.principal(ann), team=team, name="pd", spec=wish)
    asked = requests.submit(
        principal=make.principal(ann), team=team, name="pd", spec=DeploymentSpec.from_json(wish)
    ).latest

    assert [ask.code for ask in told.asks] == [ask.code for ask in approvals.asks_of(asked)] == ["over_quota"]


def test_preflight_shows_fit_quota_and_who_approves_and_stores_nothing(ann, team):
    result = requests.preflight(principal=make.principal(ann), team=team, name="chat", spec=make.a_spec())
    assert result.ok
    assert [(role, fit.state) for role, fit in result.fits.items()] == [("both", "fits")]
    assert (result.quota.limit, result.gpus) == (4, 1)
    assert result.approval == "An admin approves every request of this team."
    assert not Deployment.objects.exists()


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"source": None},
        {"source": {"uri": "x" * 100_000}, "flavor": "h100-80gb"},
        {"source": {"uri": "hf://a/b\x00"}, "flavor": "h100\x00"},
        {"source": {"uri": "hf://Ωmega/möd€l"}, "flavor": "🚀"},
        make.a_spec(replicas={"min": -1, "max": 10**30}),
        make.a_spec(replicas={"min": True, "max": "2"}),
        make.a_spec(engine={"profile": "vllm-0.32.0", "args": {"no-such-flag": 1, "max-model-len": -5}}),
        make.a_spec(engine={"args": {"max-model-len": float("inf")}}),
        make.a_spec(engine={"args": {"chat-template": "{{ x }}", "a\x00b": 1}}),
        make.a_spec(flavor="b200-of-my-dreams"),
        make.a_spec(surprise=[[[[]]]]),
    ],
)
def test_odd_wishes_get_findings_at_fields(ann, team, spec):
    result = requests.preflight(principal=make.principal(ann), team=team, name="chat", spec=spec)
    assert not result.ok
    assert all(finding.pointer for finding in result.findings if finding.is_error)


@pytest.mark.parametrize("name", ["", "x" * 5000, "Ünicode", "a\x00b", "-a", "a b", "{{x}}", "$(id)"])
def test_odd_names_get_a_finding_at_the_name(ann, team, name):
    with pytest.raises(RefusedError) as error:
        ask(ann, team, name)
    assert error.value.field == "name"


def test_preflight_of_a_foreign_team_tells_nothing_of_its_quota(bob, team):
    result = requests.preflight(principal=make.principal(bob), team=team, name="chat", spec=make.a_spec())
    assert "team_unknown" in {finding.code for finding in result.findings}
    assert result.quota is None
    assert not any(finding.code.startswith("quota") for finding in result.findings)
