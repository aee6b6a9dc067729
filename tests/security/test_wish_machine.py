"""Every event in every state that a wish can be in, in any order: what the table does not allow changes nothing, and
what may run is what somebody else than its authors approved, by its digest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from deployments.models import Approval, Deployment, Principal, Revision, Team, User, Wanted
from deployments.services import approvals, emergencies, lifecycle, requests
from deployments.services.errors import DomainError
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make
from tests.deployments.conftest import h100, hub, no_broker, team  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hub")]

Verdict = Revision.Verdict
# By event: verdicts of the newest revision, and what is wanted, in which it is taken. `approved`: only once a revision
# was. An event that is not in it is never taken, whatever the state.
LIVING = {Wanted.RUNNING, Wanted.STOPPED}
TABLE: dict[str, tuple[set[str], set[str], bool]] = {
    "revise": ({*Verdict.values}, {*LIVING}, False),
    "approve": ({Verdict.PENDING}, {*LIVING}, False),
    "reject": ({Verdict.PENDING}, {*LIVING}, False),
    "stop": ({*Verdict.values}, {*LIVING}, True),
    "start": ({*Verdict.values}, {*LIVING}, True),
    "delete": ({*Verdict.values}, {*Wanted.values}, False),
}
# Started without ever having been stopped, it runs on as it was.
IDLE = {"start": Wanted.RUNNING, "stop": Wanted.STOPPED}
SEEN: set[tuple[str, str, str, bool]] = set()


class Wish(RuleBasedStateMachine):
    """One deployment of ann and dan; carol decides, and eve is an admin who once wrote a revision."""

    @initialize()
    def begin(self) -> None:
        self.undo = transaction.atomic()
        self.undo.__enter__()
        self.team = Team.objects.get(slug="search")
        self.ann, self.dan = (make.make_user(name, team=self.team) for name in ("ann", "dan"))
        self.lead = make.make_user("lead", team=self.team, lead=True)
        self.carol, self.eve = make.make_user("carol", admin=True), make.make_user("eve", admin=True, team=self.team)
        self.size = 0
        self.approved: set[str] = set()
        self.old_digest = "0" * 64
        self.row = requests.submit(principal=self.who(self.ann), team=self.team, name="chat", spec=self.spec())

    def teardown(self) -> None:
        if hasattr(self, "undo"):
            transaction.set_rollback(True)
            self.undo.__exit__(None, None, None)

    def who(self, user: User) -> Principal:
        return Principal(user=user)

    def spec(self) -> DeploymentSpec:
        self.size += 1
        args = {"max-model-len": 4096 + self.size}
        return DeploymentSpec.from_json(make.a_spec(engine={"profile": "vllm-0.32.0", "args": args}))

    def now(self) -> Deployment:
        return Deployment.objects.select_related("latest", "approved").get(pk=self.row.pk)

    def state(self) -> tuple[Any, ...]:
        row = self.now()
        verdicts = row.revisions.order_by("number").values_list("number", "verdict", "digest")
        return row.latest_id, row.approved_id, row.wanted, tuple(verdicts), Approval.objects.count()

    def happens(self, event: str, act: Callable[[Deployment], object]) -> None:
        row, before = self.now(), self.state()
        assert row.latest is not None
        once = bool(self.approved)
        allowed = False
        if event in TABLE:
            verdicts, wanted, needs = TABLE[event]
            allowed = row.latest.verdict in verdicts and row.wanted in wanted
            allowed = allowed and (once or not needs or row.wanted == IDLE.get(event))
        SEEN.add((event, row.latest.verdict, row.wanted, allowed))
        try:
            with transaction.atomic():
                act(row)
        except DomainError:
            assert not allowed, f"{event} is refused"
            assert self.state() == before, f"{event} is refused and changes something"
        else:
            assert allowed, f"{event} is taken in {before}"

    def decide(self, user: User, row: Deployment, *, approve: bool, digest: str = "") -> None:
        revision = row.latest
        assert revision is not None
        words = {} if approve else {"comment": "No."}
        given = digest or revision.digest
        approvals.decide(principal=self.who(user), revision=revision, digest=given, approve=approve, **words)
        if approve:
            self.approved.add(revision.digest)

    @rule()
    def revise(self) -> None:
        spec = self.spec()

        def act(row: Deployment) -> None:
            assert row.latest is not None
            self.old_digest = row.latest.digest
            who, number = self.who(self.dan), row.latest.number
            requests.revise(principal=who, deployment=row, spec=spec, base_revision=number)

        self.happens("revise", act)

    @rule()
    def revise_what_was_changed_since(self) -> None:
        number = 10**6
        self.happens(
            "revise a stale one",
            lambda row: requests.revise(
                principal=self.who(self.ann), deployment=row, spec=self.spec(), base_revision=number
            ),
        )

    @rule()
    def approve(self) -> None:
        self.happens("approve", lambda row: self.decide(self.carol, row, approve=True))

    @rule()
    def reject(self) -> None:
        self.happens("reject", lambda row: self.decide(self.carol, row, approve=False))

    @rule()
    def approve_a_stale_page(self) -> None:
        self.happens("approve stale", lambda row: self.decide(self.carol, row, approve=True, digest=self.old_digest))

    @rule()
    def approve_ones_own(self) -> None:
        self.happens("approve own", lambda row: self.decide(self.dan, row, approve=True))
        self.happens("approve own", lambda row: self.decide(self.ann, row, approve=True))

    @rule()
    def approve_without_the_right(self) -> None:
        """The policy of the team asks an admin: a lead does not do."""
        self.happens("approve as lead", lambda row: self.decide(self.lead, row, approve=True))

    @rule()
    def call_an_emergency_for_others(self) -> None:
        def act(row: Deployment) -> None:
            assert row.latest is not None
            emergencies.call(
                principal=self.who(self.eve), revision=row.latest, digest=row.latest.digest, reason="It burns."
            )

        self.happens("emergency", act)

    @rule()
    def stop(self) -> None:
        self.happens("stop", lambda row: lifecycle.stop(principal=self.who(self.ann), deployment=row))

    @rule()
    def start(self) -> None:
        self.happens("start", lambda row: lifecycle.start(principal=self.who(self.ann), deployment=row))

    @rule()
    def delete(self) -> None:
        # Not too often: little is left to do after it.
        if self.size > 2:
            self.happens("delete", lambda row: lifecycle.delete(principal=self.who(self.ann), deployment=row))

    @invariant()
    def what_runs_is_what_somebody_else_approved(self) -> None:
        if not hasattr(self, "row"):
            return
        row = self.now()
        if row.approved is None:
            return
        assert row.approved.digest in self.approved
        said = Approval.objects.get(revision=row.approved, approved=True)
        assert said.digest == row.approved.digest
        assert said.actor_id not in approvals.authors_of(row.approved) | {row.approved.author_id}


def test_no_order_of_events_runs_what_nobody_approved() -> None:
    make.make_grant(Team.objects.get(slug="search"), make.Flavor.objects.get(), 100)
    SEEN.clear()
    patient = settings(
        max_examples=12,
        stateful_step_count=16,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    run_state_machine_as_test(Wish, settings=patient)
    assert len(SEEN) > 30, "too few pairs of state and event were tried"
    assert {event for event, _, _, allowed in SEEN if allowed} == TABLE.keys()
