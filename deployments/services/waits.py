"""What somebody whose deployment waits for quota wants to know: their place, what would free GPUs, and other ways."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone

from deployments.engine.alternatives import Alternative, Room, alternatives
from deployments.engine.facts import ModelFacts
from deployments.engine.options import Choice
from deployments.models import (
    Deployment,
    Flavor,
    ModelCheck,
    QuotaAccount,
    QuotaGrant,
    QuotaHold,
    QuotaRequest,
    Revision,
    Wanted,
)
from deployments.preflight import ClusterFacts, Facts, check, sizer
from deployments.services import facts, holds, waiting
from deployments.spec import DeploymentSpec

# What would free GPUs is named, the most at first.
NAMED = 5


@dataclass(frozen=True)
class Freeing:
    """One thing that gives the team GPUs: a deployment that holds some, a grant that begins, a request that waits.

    `kind` is "stopping", "hold", "grant" or "request"; `at` is when, where that is known.
    """

    kind: str
    gpus: int
    name: str = ""
    deployment: int | None = None
    at: datetime | None = None


@dataclass(frozen=True)
class Waiting:
    """A deployment in its account's line. GPUs: `needs` in all, `more` than it holds; the team has `free` of `limit`.

    `apart` are the GPUs of the new revision alone, where `needs` holds the old one beside it. `beyond` are GPUs by
    which the need exceeds the whole limit: then only more quota helps, and others pass. `ask_for` are GPUs of quota
    with which it would start: also those that whoever waits before it takes first.
    """

    flavor: Flavor
    place: int
    of: int
    needs: int
    apart: int
    more: int
    free: int
    limit: int
    ask_for: int
    frees: tuple[Freeing, ...]
    alternatives: tuple[Alternative, ...]

    @property
    def beyond(self) -> int:
        """GPUs missing in the quota itself."""
        return max(0, self.needs - self.limit)

    @property
    def fits_apart(self) -> bool:
        """True when it would start at once if the old revision were stopped first, and nobody else waits."""
        holds_now = self.needs - self.more
        return self.of == 1 and 0 < self.apart <= min(self.limit, self.free + holds_now) and holds_now > 0 < self.more


def waiting_of(deployment: Deployment) -> Waiting | None:
    """How a deployment waits for quota; None for one that does not (then one query)."""
    row = Deployment.objects.awaiting_quota().filter(pk=deployment.pk).select_related("team", "latest__flavor").first()
    if row is None or row.latest is None:
        return None
    latest, flavor = row.latest, row.latest.flavor
    account = holds.account_of(team_id=row.team_id, flavor_id=flavor.pk)
    line = waiting.line(account)
    place = next((place for place, each in enumerate(line) if each.pk == row.pk), len(line))
    usages = {usage.flavor.pk: usage for usage in holds.usage(row.team)}
    usage = usages.get(flavor.pk, holds.Usage(flavor, 0, account.reserved))
    needs = holds.charge(old=row.applied, new=latest)
    held = holds_of(account)
    more = max(0, needs - held[row.pk])
    before = [(waiting.needs_of(each), held[each.pk]) for each in line[:place]]
    return Waiting(
        flavor=flavor,
        place=place + 1,
        of=max(len(line), 1),
        needs=needs,
        apart=holds.charge(old=None, new=latest),
        more=more,
        free=usage.free,
        limit=usage.limit,
        ask_for=missing([*before, (needs, held[row.pk])], limit=usage.limit, free=usage.free - usage.over),
        frees=tuple(_frees(row, latest, beyond=needs > usage.limit)[:NAMED]),
        alternatives=tuple(_alternatives(row, latest, usages)),
    )


def missing(line: Sequence[tuple[int, int]], *, limit: int, free: int) -> int:
    """GPUs of quota with which the last of a line starts; each needs so many in all and holds some of them already.

    Whoever fits the limit is served before the next, and more quota serves the first in line first. `free` is negative
    where more is held than the limit allows.
    """
    most = max(0, sum(needs for needs, _ in line) - free)
    return next((more for more in range(most) if _starts(line, limit + more, free + more)), most)


def _starts(line: Sequence[tuple[int, int]], limit: int, free: int) -> bool:
    """True when the line is served to its end, but for those who need more than the limit."""
    for needs, held in line:
        if needs <= limit:
            free -= max(0, needs - held)
            if free < 0:
                return False
    return line[-1][0] <= limit


def holds_of(account: QuotaAccount) -> Counter[int]:
    """GPUs that deployments hold of an account, by primary key."""
    return Counter(dict(QuotaHold.objects.filter(account=account).values_list("deployment_id", "gpus")))


def _frees(row: Deployment, latest: Revision, *, beyond: bool) -> list[Freeing]:
    """What goes already first, then what is promised, then what is held, the largest first (three queries).

    Where the whole quota is too small (`beyond`), nothing that others give back helps.
    """
    held = QuotaHold.objects.filter(account__team=row.team_id, account__flavor=latest.flavor_id, gpus__gt=0)
    rows = list(held.exclude(deployment=row.pk).select_related("deployment").order_by("-gpus", "deployment__name"))
    going = [hold for hold in rows if hold.deployment.wanted != Wanted.RUNNING]
    stays = [hold for hold in rows if hold.deployment.wanted == Wanted.RUNNING]
    later = QuotaGrant.objects.filter(
        team=row.team_id, flavor=latest.flavor_id, valid_from__gt=timezone.now(), gpus__gt=0
    )
    asked = QuotaRequest.objects.pending().filter(team=row.team_id, flavor=latest.flavor_id)
    if beyond:
        rows, going, stays = [], [], []
    return [
        *(Freeing("stopping", hold.gpus, hold.deployment.name, hold.deployment_id) for hold in going),
        *(Freeing("grant", grant.gpus, at=grant.valid_from) for grant in later.order_by("valid_from")),
        *(Freeing("request", request.gpus, at=request.valid_from) for request in asked.order_by("pk")),
        *(Freeing("hold", hold.gpus, hold.deployment.name, hold.deployment_id) for hold in stays),
    ]


def _alternatives(row: Deployment, latest: Revision, usages: dict[int, holds.Usage]) -> list[Alternative]:
    """Other ways that fit the team's free quota and the cluster's free GPUs (seven queries, no outbound call).

    Of a flavor for which others wait only what it holds there already: a change is approved anew, and waits after them.
    """
    spec = DeploymentSpec.from_json(latest.spec)
    known = {
        hold.account.flavor_id: hold.gpus
        for hold in QuotaHold.objects.filter(deployment=row.pk, gpus__gt=0).select_related("account")
    }
    cluster = facts.main_cluster()
    flavors = facts.flavors(cluster if cluster and facts.is_seen(cluster) else None)
    limits = {pk: usage.limit for pk, usage in usages.items()}
    queued = waiting.queued(row.team, limits, but=row)
    rooms: dict[str, Room] = {}
    for usage in usages.values():
        fact, own = flavors.get(usage.flavor.slug), known.get(usage.flavor.pk, 0)
        if fact is None or not fact.enabled:
            continue
        most = 1 if fact.is_slice else fact.gpus_per_node
        rooms[fact.slug] = Room(
            Choice(fact.slug, fact.gpu, most, price=fact.price_per_hour),
            fact.label,
            quota=(usage.free if not usage.over and not queued[usage.flavor.pk] else 0) + own,
            free=None if fact.free is None else fact.free + own,
            block=fact.largest_free_block if not own else None,
        )
    model = _model(spec)
    known_facts = Facts(
        flavors=flavors,
        profiles=facts.profiles(),
        model=model,
        cluster=ClusterFacts(sandbox=settings.SLIPWAY_SANDBOX),
    )
    found = alternatives(sizer(spec, known_facts), spec, rooms)
    return [item for item in found if _accepted(changed(latest.spec, item), known_facts)]


def changed(spec: Mapping[str, Any], alternative: Alternative) -> DeploymentSpec:
    """The spec with an alternative's values in it."""
    data = copy.deepcopy(dict(spec))
    for pointer, value in alternative.sets:
        *path, last = pointer.removeprefix("/spec/").split("/")
        inner = data
        for name in path:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return DeploymentSpec.from_json(data)


def _accepted(spec: DeploymentSpec, known: Facts) -> bool:
    """True when preflight finds nothing wrong with it but what is known: name and quota are looked at elsewhere."""
    errors = [finding.code for finding in check(spec, "x", "", known) if finding.is_error]
    return all(code.startswith(("quota_", "name_", "credential_")) for code in errors)


def _model(spec: DeploymentSpec) -> ModelFacts | None:
    """What is stored of the model, however old: nobody is asked while a page is drawn."""
    row = ModelCheck.objects.filter(uri=spec.source.uri).exclude(facts={}).order_by("-checked_at").first()
    return ModelFacts.from_json(row.facts) if row else None
