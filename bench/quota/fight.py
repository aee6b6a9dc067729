"""The same fight through Slipway's own services: people ask, scale, approve, delete and cut, workers give back."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.db import DatabaseError, connection
from django.db.models import F
from django.db.models.functions import Now
from psycopg import IsolationLevel

from bench.quota.service import isolate, left_as
from bench.quota.shape import FLAVORS, LARGEST_GRANT, SPEC, World
from deployments.models import Deployment, Principal, Revision, Team, User, Wanted
from deployments.services import approvals, grants, ledger, lifecycle, requests
from deployments.services.convergence import Lease, LeaseLostError, Outcome, database_now, finish
from deployments.services.errors import DomainError
from deployments.services.transactions import in_transaction
from deployments.spec import DeploymentSpec

LEASE = timedelta(seconds=60)


class Fighter:
    """One client, of many who reach for the same few deployments; every act is a service and its transaction.

    Each act returns False where there was nothing to do: then another is drawn. What is counted is named “act: what
    became of it”.
    """

    def __init__(self, number: int, world: World, seed: int) -> None:
        self.number, self.world = number, world
        self.random = random.Random(seed * 1000 + number)
        self.admin = Principal(user=User.objects.get(pk=world.admin))
        self.member = Principal(user=User.objects.get(pk=world.author))
        self.asked = 0
        self.counts: Counter[str] = Counter()
        self.acts: dict[Callable[[], bool], int] = {
            self.approve: 30,
            self.scale: 20,
            self.cut: 10,
            self.delete: 6,
            self.ask: 6,
            self.stop: 4,
            self.start: 6,
            self.work: 18,
        }

    def one(self) -> None:
        """One act, and what became of it."""
        done = False
        while not done:
            [act] = self.random.choices(list(self.acts), list(self.acts.values()))
            became = "committed"
            try:
                done = act()
            except DomainError as error:
                done, became = True, f"refused as {error.code}"
            except LeaseLostError:
                done, became = True, "refused as lease_lost"
            except DatabaseError as error:
                done, became = True, left_as(error)
            if done:
                self.counts[f"{act.__name__}: {became}"] += 1

    def approve(self) -> bool:
        """An admin says yes to one of the requests that wait."""
        waiting = Revision.objects.pending().filter(deployment__latest=F("pk")).values_list("pk", flat=True)
        if not (pks := list(waiting)):
            return False
        revision = Revision.objects.only("deployment", "digest").get(pk=self.random.choice(pks))
        approvals.decide(principal=self.admin, revision=revision, digest=revision.digest, approve=True)
        return True

    def scale(self) -> bool:
        """A member wants other replicas, now and then on another flavor: a revision that waits for its approval."""
        row = self.deployment(wanted=Wanted.RUNNING)
        if row is None or row.latest is None:
            return False
        number = row.latest.number
        requests.revise(principal=self.member, deployment=row, spec=self.wish(), base_revision=number)
        return True

    def cut(self) -> bool:
        """An admin changes a grant, mostly to less than is held."""
        grant, gpus = self.random.choice(self.world.grants), self.random.randint(0, LARGEST_GRANT)
        grants.change_grant(principal=self.admin, grant_id=grant, gpus=gpus)
        return True

    def delete(self) -> bool:
        """A member deletes, and a worker finds the pods gone."""
        row = self.deployment()
        if row is None:
            return False
        lifecycle.delete(principal=self.member, deployment=row)
        self.converge(row)
        return True

    def ask(self) -> bool:
        """A member asks for one more deployment."""
        self.asked += 1
        name = f"new-{self.number}-{self.asked}"
        requests.submit(principal=self.member, team=self.team(), name=name, spec=self.wish())
        return True

    def stop(self) -> bool:
        row = self.deployment(wanted=Wanted.RUNNING, approved__isnull=False)
        if row is None:
            return False
        lifecycle.stop(principal=self.member, deployment=row)
        return True

    def start(self) -> bool:
        row = self.deployment(wanted=Wanted.STOPPED)
        if row is None:
            return False
        lifecycle.start(principal=self.member, deployment=row)
        return True

    def work(self) -> bool:
        """A worker gives back what a deployment does not need, or any more."""
        row = self.deployment()
        if row is None:
            return False
        self.converge(row)
        return True

    def converge(self, row: Deployment) -> None:
        """What a worker writes once the cluster is as wanted; it takes the lease even of one who still has it."""
        held = Lease(Deployment, row.pk, uuid4())
        row = _leased(held)
        proof = ledger.Proof(database_now())
        if row.wanted == Wanted.RUNNING:
            if row.approved is None:
                return
            in_transaction(held.fenced().update)(applied=row.approved)
            least = row.approved.gpus
            ledger.release(deployment=row, lease=held, proof=proof, down_to=least, revision=row.approved)
            return
        ledger.release(deployment=row, lease=held, proof=proof)
        if row.wanted == Wanted.DELETED:
            in_transaction(finish)(held, outcome=Outcome("gone"), again=None, failures=0, deleted_at=Now())

    def team(self) -> Team:
        return Team.objects.get(pk=self.random.choice(list(self.world.accounts)))

    def deployment(self, **wanted: Any) -> Deployment | None:
        """Any deployment of any team, which others may be at as well; None where there is no such one."""
        rows = Deployment.objects.alive().filter(team=self.team(), **wanted)
        pks = list(rows.values_list("pk", flat=True))
        if not pks:
            return None
        return Deployment.objects.select_related("latest", "approved", "team").get(pk=self.random.choice(pks))

    def wish(self) -> DeploymentSpec:
        """The wish of `world`, with some number of replicas."""
        spec = copy.deepcopy(SPEC)
        spec["flavor"] = self.random.choices(FLAVORS, (4, 1))[0]
        spec["replicas"] = {"min": 1, "max": self.random.randint(1, 4)}
        return DeploymentSpec.from_json(spec)


def churn(number: int, world: World, isolation: IsolationLevel, transactions: int, seed: int) -> Counter[str]:
    """What one client of `together` does."""
    isolate(isolation)
    fighter = Fighter(number, world, seed)
    for _ in range(transactions):
        fighter.one()
    connection.close()
    return fighter.counts


@in_transaction
def _leased(held: Lease) -> Deployment:
    """The row as it is once this worker has the lease."""
    Deployment.objects.filter(pk=held.pk).update(lease_token=held.token, lease_until=Now() + LEASE)
    return Deployment.objects.select_related("approved").get(pk=held.pk)
