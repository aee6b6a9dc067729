"""Takes wishes from the request form to a running endpoint and off the cluster again, as many at once as GPUs hold."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.urls import reverse

from deployments.findings import Finding
from deployments.labels import LABEL_DEPLOYMENT
from deployments.models import Deployment, Flavor, Revision, User
from deployments.reconciler import passes, teams
from deployments.services import probes
from sandbox.nodes import SHAPES
from tests.deployments.viewing import signed_in
from tests.every_wish import Wish
from tests.scenarios.stage import Stage

# One replica of one GPU for each role and steps that the smallest holds, so that many wishes find room at once.
SMALLEST = {
    f"{role}{name}": "1"
    for role in ("", "prefill_", "decode_")
    for name in ("replicas_min", "replicas_max", "tensor_parallel_size")
} | dict.fromkeys(("prefill_args", "decode_args"), "--max-num-batched-tokens=2048")
# A wish takes some ten seconds each way on a quiet machine, and three minutes were seen at twenty times its load.
PATIENCE = 600.0
# Forms sent before everything else has its turn again.
AT_A_TIME = 4


@dataclass
class Run:
    """A wish that was admitted, on its way."""

    wish: Wish
    row: Deployment
    since: float = field(default_factory=time.monotonic)
    leaves: bool = False  # once its deletion was asked for

    @property
    def seconds(self) -> float:
        """How long it has been on this half of its way."""
        return time.monotonic() - self.since


@dataclass
class Office:
    """The people and the forms: a member asks and deletes, a lead or an admin approves."""

    stage: Stage
    member: User
    lead: User
    admin: User

    def __post_init__(self) -> None:
        self._member, self._lead, self._admin = map(signed_in, (self.member, self.lead, self.admin))
        self.offered: Mapping[str, str] = self._member.get(reverse("deployment-create")).context["values"]

    def ask(self, name: str, wish: Wish, source: Mapping[str, str]) -> Deployment | list[Finding]:
        """Fill in and send the form; what was asked for, or the reasons why not."""
        data = {**self.offered, **SMALLEST, **wish.typed(source, name=name, team=self.stage.team.slug)}
        answer = self._member.post(reverse("deployment-create"), data)
        if answer.status_code == 302:
            return Deployment.objects.alive().select_related("latest").get(team=self.stage.team, name=name)
        assert answer.status_code == 422, answer.status_code
        form = answer.context["form"]
        assert not form.errors, (str(wish), form.errors)
        return [finding for finding in form.findings if finding.is_error]

    def approve(self, revision: Revision) -> None:
        """A lead says yes to what the page shows, or where that does not suffice an admin."""
        words = {"verdict": "approve", "digest": revision.digest}
        url = reverse("approvals-decide", args=[revision.pk])
        answer = self._lead.post(url, words)
        if answer.status_code != 302:
            assert any("An admin has to approve it." in said for said in said_in(answer)), said_in(answer)
            answer = self._admin.post(url, words)
        assert answer.status_code == 302, said_in(answer)
        revision.refresh_from_db()
        assert revision.verdict == Revision.Verdict.APPROVED

    def delete(self, row: Deployment) -> None:
        """Type its name, and press the button."""
        answer = self._member.post(reverse("deployment-delete", args=[row.pk]), {"confirm": row.name})
        assert answer.status_code == 302, said_in(answer)


class Player:
    """Plays wishes on a ground; afterwards knows what became of each."""

    def __init__(self, office: Office, sources: Mapping[str, Mapping[str, str]], diary: Path) -> None:
        self.ran: list[Wish] = []
        self.refused: dict[Wish, list[Finding]] = {}
        self.failed: dict[str, Any] = {}
        self._office, self._stage, self._sources = office, office.stage, sources
        self._free = {flavor.slug: played(flavor) for flavor in Flavor.objects.all()}
        self._going: list[Run] = []
        self._diary, self._begun = diary, time.monotonic()

    def play(self, wishes: Iterable[Wish]) -> None:
        """Ask for each of them, run what is admitted, and come back when nothing of it is left."""
        waiting = {f"wish-{number}": wish for number, wish in enumerate(wishes)}
        while waiting or self._going:
            for name in self._next(waiting):
                self._begin(name, waiting.pop(name))
            self._turn()
            self._look()

    def _next(self, waiting: Mapping[str, Wish]) -> list[str]:
        """Some that find room now, and not so many that the watcher would be called late meanwhile."""
        found, rest, free = [], [], dict(self._free)
        for name, wish in waiting.items():
            if not wish.admitted:
                rest.append(name)
                continue
            # Whoever finds no room is passed by those alone that want other GPUs.
            free[wish.flavor] -= wish.gpus
            if free[wish.flavor] >= 0:
                found.append(name)
        return [*found, *rest][:AT_A_TIME]

    def _begin(self, name: str, wish: Wish) -> None:
        asked = self._office.ask(name, wish, self._sources[wish.source])
        if not isinstance(asked, Deployment):
            self.refused[wish] = asked
            self._note(wish, f"refused: {', '.join(finding.code for finding in asked)}")
            return
        assert asked.latest is not None
        assert asked.latest.gpus == wish.gpus
        self._office.approve(asked.latest)
        self._free[wish.flavor] -= wish.gpus
        self._going.append(Run(wish, asked))

    def _turn(self) -> None:
        """One turn of everything that Slipway runs: workers on what is due, the watcher, questions to endpoints."""
        self._work()
        self._stage.driven.watcher.step()
        self._work()
        for pk in probes.due():
            probes.probe(pk)

    def _work(self) -> None:
        worker, team = self._stage.worker, self._stage.team
        teams.reconcile_team(team.pk, worker)
        for pk in Deployment.objects.due().filter(team=team).values_list("pk", flat=True):
            passes.reconcile(pk, worker)

    def _look(self) -> None:
        rows = Deployment.objects.in_bulk([run.row.pk for run in self._going])
        left = self._with_pods() if any(row.deleted_at for row in rows.values()) else set()
        for run in list(self._going):
            row = rows[run.row.pk]
            if run.leaves and row.deleted_at and row.pk not in left and self._stage.held(row) == 0:
                self._going.remove(run)
                self._free[run.wish.flavor] += run.wish.gpus
                self._note(run.wish, f"gone after {run.seconds:.0f} s more")
            elif not run.leaves and row.state == Deployment.State.RUNNING and answers(row):
                self.ran.append(run.wish)
                self._note(run.wish, f"answered after {run.seconds:.0f} s")
                self._take_off(run)
            elif run.seconds > PATIENCE:
                self._give_up(run)

    def _take_off(self, run: Run) -> None:
        self._office.delete(run.row)
        run.leaves, run.since = True, time.monotonic()

    def _give_up(self, run: Run) -> None:
        self._note(run.wish, f"given up after {run.seconds:.0f} s")
        self.failed[f"{run.wish}{', which does not leave' if run.leaves else ''}"] = self._stage.known(run.row)
        if run.leaves:
            self._going.remove(run)  # Its GPUs may be taken still: they are not given to another.
        else:
            self._take_off(run)

    def _note(self, wish: Wish, what: str) -> None:
        """A line for whoever follows a run that takes long."""
        with self._diary.open("a") as diary:
            diary.write(f"{time.monotonic() - self._begun:5.0f} s  {wish}: {what}\n")

    def _with_pods(self) -> set[int]:
        """Deployments of which pods are left on the cluster."""
        labels = [pod["metadata"].get("labels", {}) for pod in self._stage.pods()]
        return {int(found[LABEL_DEPLOYMENT]) for found in labels if LABEL_DEPLOYMENT in found}


def said_in(answer: Any) -> list[str]:
    """What a page says at its top of what was sent to it."""
    return re.findall(r'role="alert">(.*?)</div>', answer.content.decode(), re.DOTALL)


def answers(row: Deployment) -> bool:
    """Whether the endpoint gave a short prompt a text back when it was asked last, through the gateway."""
    probe = row.probe or {}
    return bool(probe.get("ok") and probe["answer"])


def played(flavor: Flavor) -> int:
    """GPUs of a flavor that the ground has."""
    return sum(shape.gpus for shape in SHAPES.values() if shape.gpu.product == flavor.product)
