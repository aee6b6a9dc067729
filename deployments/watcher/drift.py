"""Finds objects that are not as Slipway wrote them, and has a worker look. It only ever says that a row is due."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import timedelta

from django.db.models.functions import Now

from deployments.kube.kinds import Ref
from deployments.models import AppliedObject, Deployment, Intent, Team
from deployments.reconciler.plan import FETCHED
from deployments.watcher.seen import SERVICE_KINDS, OwnedSeen, ServiceSeen
from deployments.watcher.world import World
from portal.lib.hints import RECONCILE, RECONCILE_TEAM, hint

logger = logging.getLogger(__name__)

# A write is seen before it is recorded: suspicion has to outlast that.
RIPE_SECONDS = 1.0
SETTLED = timedelta(seconds=15)
CHUNK = 500


class Drift:
    """Suspects ripen, then the inventory is asked; what was reported is not reported again until it changes."""

    def __init__(self) -> None:
        self._ripening: dict[Ref, float] = {}
        self._reported: dict[Ref, tuple[str, str]] = {}

    def check(self, world: World) -> int:
        """Look at suspects that have ripened; returns how many objects drifted."""
        now = time.monotonic()
        for ref in world.suspects:
            self._ripening[ref] = now
        world.suspects.clear()
        ripe = [ref for ref, since in self._ripening.items() if now - since >= RIPE_SECONDS]
        for ref in ripe:
            del self._ripening[ref]
        drifted = 0
        for start in range(0, len(ripe), CHUNK):
            drifted += self._report(world, _inventory(ripe[start : start + CHUNK]))
        return drifted

    def check_all(self, world: World) -> int:
        """Compare the whole inventory with the complete lists, and look for what no inventory knows."""
        self._reported.clear()
        rows = AppliedObject.objects.filter(kind__in=world.synced, applied_at__lt=Now() - SETTLED)
        return self._report(world, rows.iterator(chunk_size=2000)) + _find_orphans(world)

    def _report(self, world: World, rows: Iterable[AppliedObject]) -> int:
        deployments: set[int] = set()
        teams: set[int] = set()
        for row in rows:
            ref = Ref(row.api_version, row.kind, row.namespace, row.name)
            if row.kind not in world.synced:
                continue
            seen = world.owned.get(ref)
            if not _differs(row, seen):
                self._reported.pop(ref, None)
                continue
            signature = (seen.uid, seen.managed) if seen else ("", "")
            if self._reported.get(ref) == signature:
                continue
            self._reported[ref] = signature
            logger.info("%s is not as it was written", ref)
            if row.deployment_id:
                deployments.add(row.deployment_id)
            elif row.team_id:
                teams.add(row.team_id)
        _make_due(deployments, teams)
        return len(deployments) + len(teams)


def _differs(row: AppliedObject, seen: OwnedSeen | None) -> bool:
    if row.managed == FETCHED:
        return False  # a Job that has done its work, and may be gone
    if seen is None or seen.uid != row.uid:
        return True
    return bool(row.managed and seen.managed and row.managed != seen.managed)


def _inventory(refs: list[Ref]) -> list[AppliedObject]:
    wanted = set(refs)
    by_kind: dict[tuple[str, str], list[Ref]] = defaultdict(list)
    for ref in refs:
        by_kind[ref.api_version, ref.kind].append(ref)
    rows: list[AppliedObject] = []
    for (api_version, kind), group in by_kind.items():
        rows += AppliedObject.objects.filter(
            api_version=api_version,
            kind=kind,
            namespace__in={ref.namespace for ref in group},
            name__in={ref.name for ref in group},
        )
    return [row for row in rows if Ref(row.api_version, row.kind, row.namespace, row.name) in wanted]


def _find_orphans(world: World) -> int:
    """Services that an intent of ours once asked for and that no inventory knows: a write made after its lease ended.

    The intent is opened again; a worker resolves it by a live read. What no intent knows is left alone.
    """
    known = set(AppliedObject.objects.filter(kind__in=SERVICE_KINDS).values_list("kind", "namespace", "name"))
    found = 0
    for kind, namespace, name, service in _services(world):
        if (kind, namespace, name) in known or not service.owned.deployment.isdigit():
            continue
        intents = Intent.objects.filter(
            verb="create",
            kind=kind,
            namespace=namespace,
            name=name,
            deployment_id=int(service.owned.deployment),
            created_at__lt=Now() - SETTLED,
        ).order_by("-pk")
        last = intents.first()
        if last is None or last.closed_at is None:
            continue
        logger.warning("%s %s/%s is nobody's", kind, namespace, name)
        Intent.objects.filter(pk=last.pk).update(closed_at=None, result="found without an owner")
        _make_due({int(service.owned.deployment)}, set())
        found += 1
    return found


def _services(world: World) -> Iterator[tuple[str, str, str, ServiceSeen]]:
    for kind, seen in zip(SERVICE_KINDS, (world.services, world.llm_services), strict=True):
        for (namespace, name), service in seen.items():
            yield kind, namespace, name, service


def _make_due(deployments: set[int], teams: set[int]) -> None:
    if deployments:
        Deployment.objects.filter(pk__in=deployments).update(next_reconcile_at=Now())
    if teams:
        Team.objects.filter(pk__in=teams).update(next_reconcile_at=Now())
    for pk in teams:
        hint(RECONCILE_TEAM, pk)
    for pk in deployments:
        hint(RECONCILE, pk)
