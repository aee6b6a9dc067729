"""One pass over a team's own objects: its namespace and what guards it."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from deployments.kube.cluster import Cluster as Door
from deployments.kube.errors import ClusterError, ErrorClass
from deployments.models import AppliedObject, Cluster, Deployment, Team, Wanted
from deployments.reconciler import endings, secrets
from deployments.reconciler.act import MOVED, Actor
from deployments.reconciler.desired import desired_of_team, marks_of
from deployments.reconciler.endings import Ending
from deployments.reconciler.identity import stranger
from deployments.reconciler.live import observe
from deployments.reconciler.plan import Block, Desired, Wait, plan
from deployments.reconciler.recover import resolve_intents
from deployments.services import convergence, events
from deployments.services.convergence import Lease, LeaseLostError
from portal.lib.hints import RECONCILE, hint

logger = logging.getLogger(__name__)

ROUNDS = 5
OPENING = frozenset({"Namespace", "RoleBinding"})


def reconcile_team(pk: int, cluster: Door) -> bool:
    """Converge one team's namespace; False when it was not due or another worker has it."""
    with convergence.lease(Team, pk) as held:
        if held is None:
            return False
        try:
            _converge(held, cluster)
        except LeaseLostError:
            logger.warning("team %s: the lease ran out, another worker goes on", pk)
    return True


def _converge(held: Lease, cluster: Door) -> None:
    team = Team.objects.get(pk=held.pk)
    actor = Actor(cluster, held, marks_of(team))
    try:
        stop, later = _work(actor, team)
    except ClusterError as error:
        logger.info("team %s: %s", team.slug, error)
        ending = endings.failed(_forgiving(error, actor), failures=team.failures, revision=None)
        _finish(held, team, ending, ready=False)
    except LeaseLostError:
        raise
    except Exception as error:  # one poisonous row must not stop the others
        logger.exception("team %s: internal error", team.slug)
        _finish(held, team, endings.broken(error, failures=team.failures, revision=None), ready=False)
    else:
        ending = _ending(stop)
        soonest = [pause for pause in (ending.again, later) if pause is not None]
        _finish(held, team, replace(ending, again=min(soonest, default=None)), ready=stop is None)
        if stop is None and (actor.restored or not team.ready):
            _go_on(team)


def _work(actor: Actor, team: Team) -> tuple[Wait | Block | None, timedelta | None]:
    """What stopped it, and when the Secrets of its credentials want to be looked at again."""
    if elsewhere := stranger(actor.cluster, Cluster.objects.order_by("pk").first()):
        return elsewhere, None
    resolve_intents(actor.cluster, actor.held, actor.marks)
    desired, inventory = desired_of_team(team), AppliedObject.objects.filter(team=team)
    # Until the namespace and our roles in it stand, nothing else in it can even be read.
    first = Desired(tuple(wish for wish in desired.objects if wish.ref.kind in OPENING))
    stop = _until_still(actor, inventory.filter(kind__in=OPENING), first)
    if stop is None:
        stop = _until_still(actor, inventory, desired)
    _tell(actor, team)
    return stop, secrets.keep(actor.cluster, actor.held, team) if stop is None else None


def _forgiving(error: ClusterError, actor: Actor) -> ClusterError:
    """A role that was bound a moment ago may not be known yet: authorizers take a little to hear of it."""
    bound = any(ref.kind == "RoleBinding" for ref in [*actor.created, *actor.restored])
    if error.code != "permission" or not bound:
        return error
    return ClusterError(ErrorClass.RETRY, error.code, error.message, status=error.status)


def _until_still(actor: Actor, inventory: QuerySet[AppliedObject], desired: Desired) -> Wait | Block | None:
    for _ in range(ROUNDS):
        rows = list(inventory.order_by("pk"))
        try:
            stop, again = actor.carry_out(plan(desired, observe(actor.cluster, actor.held, rows, actor.marks)))
        except ClusterError as error:
            if error.kind not in MOVED:
                raise
            continue
        if stop is not None or not again:
            return stop
    raise ClusterError(ErrorClass.RETRY, "conflict", "The objects keep changing while they are written.")


def _ending(stop: Wait | Block | None) -> Ending:
    if isinstance(stop, Block):
        return endings.blocked(stop, revision=None)
    if isinstance(stop, Wait):
        return endings.waiting(stop, revision=None, before={}, now=timezone.now())
    return endings.converged(None)


def _finish(held: Lease, team: Team, ending: Ending, *, ready: bool) -> None:
    """Store how it ended. A team that was ready stays so through trouble of the moment."""
    outcome = ending.outcome
    stays = outcome.phase == endings.RETRYING and team.ready
    message = f"{outcome.message} {outcome.remedy}".strip() if outcome.phase == endings.BLOCKED else ""
    stored = convergence.finish(
        held,
        outcome=outcome,
        again=ending.again,
        failures=ending.failures,
        ready=ready or stays,
        blocked_message=message,
    )
    if not stored:
        return
    if message and message != team.blocked_message:
        events.record(kind="team_blocked", message=message, team=team, level="bad")
    logger.info("team %s: %s %s", team.slug, outcome.phase, outcome.code)


def _go_on(team: Team) -> None:
    """The namespace stands: deployments that waited for it are due now."""
    waiting = Deployment.objects.filter(team=team, wanted=Wanted.RUNNING, deleted_at=None).exclude(approved=None)
    waiting.update(next_reconcile_at=Now())
    for pk in waiting.values_list("pk", flat=True):
        hint(RECONCILE, pk)


def _tell(actor: Actor, team: Team) -> None:
    for ref, editor in actor.healed:
        events.record(
            kind="healed",
            message=f"{ref} was changed by {editor} and put back",
            team=team,
            level="warning",
            data={"object": str(ref), "by": editor},
        )
    for ref in actor.restored:
        events.record(kind="restored", message=f"{ref} was deleted by hand and made again", team=team, level="warning")
