"""What keys use: each question counted against the key's limits, and what gateways report kept by the hour."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from deployments.models import EndpointKey, KeyUsage
from deployments.services import invoke
from deployments.services.invoke import Admission, Refusal
from deployments.services.rates import Counters, counters
from deployments.services.transactions import in_transaction

MOST_COUNTED = 10**9  # of anything in one report

# Only keys that are there, for deployments of their own team; in one order, so that two reports never lock each other.
ADD = """
INSERT INTO deployments_keyusage (key_id, deployment_id, hour, requests, refused, prompt_tokens, completion_tokens)
SELECT used.key_id, used.deployment_id, %s, used.requests, used.refused, used.prompt_tokens, used.completion_tokens
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
    AS used (key_id, deployment_id, requests, refused, prompt_tokens, completion_tokens)
JOIN deployments_endpointkey AS key ON key.id = used.key_id
JOIN deployments_deployment AS deployment ON deployment.id = used.deployment_id AND deployment.team_id = key.team_id
ORDER BY used.key_id, used.deployment_id
ON CONFLICT (key_id, deployment_id, hour) DO UPDATE SET
    requests = deployments_keyusage.requests + EXCLUDED.requests,
    refused = deployments_keyusage.refused + EXCLUDED.refused,
    prompt_tokens = deployments_keyusage.prompt_tokens + EXCLUDED.prompt_tokens,
    completion_tokens = deployments_keyusage.completion_tokens + EXCLUDED.completion_tokens
"""


@dataclass(frozen=True)
class Use:
    """What one key used of one deployment since the last report."""

    key_id: int
    deployment_id: int
    requests: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def ask(authorization_header: str, namespace: str, name: str) -> Admission | Refusal:
    """Whether this one request passes: who may, and within the limits of the key that asks."""
    verdict = invoke.admit(authorization_header, namespace, name)
    if not isinstance(verdict, Admission):
        return verdict
    return take(verdict, counters())


def take(admission: Admission, counting: Counters) -> Admission | Refusal:
    """The admission, counted; a refusal with 429 where a limit of its key is used up."""
    key = admission.key
    if key is None or not key.limited:
        return admission
    taken = counting.take(key.counted_with or key.key_id, key.requests_per_minute or 0, key.tokens_per_minute or 0)
    if not taken.limit:
        return admission
    most = key.requests_per_minute if taken.limit == "requests" else key.tokens_per_minute
    wait = max(1, math.ceil(taken.wait))
    words = f"This key may use {most:,} {taken.limit} per minute, and has. Try again in {wait} s."
    where = {"key_id": key.key_id, "deployment_id": admission.deployment_id}
    return Refusal(429, "rate_limit_exceeded", words, limit=taken.limit, retry_after=wait, **where)


def report(uses: Iterable[Use], counting: Counters | None = None) -> int:
    """Keep what gateways counted, and take tokens out of the keys' buckets; the number of rows that were kept.

    What names no key, or a deployment of another team, is left out.
    """
    merged = _merged(uses)
    kept = _add(merged) if merged else 0
    if spent := _spent(merged):
        limited = EndpointKey.objects.filter(pk__in=spent, tokens_per_minute__isnull=False)
        for key_id, first, tokens in limited.values_list("pk", "counted_with", "tokens_per_minute"):
            (counting or counters()).spend(first or key_id, tokens or 0, spent[key_id])
    return kept


@dataclass(frozen=True)
class Total:
    """What a key used in a span of time."""

    requests: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


NOTHING = Total()


def totals(key_ids: Iterable[int], *, since: datetime) -> dict[int, Total]:
    """What each of these keys used since then, in one query; keys without use are not in it."""
    rows = (
        KeyUsage.objects.filter(key__in=list(key_ids), hour__gte=hour_of(since))
        .order_by()
        .values("key")
        .annotate(
            asked=Sum("requests"), over=Sum("refused"), prompts=Sum("prompt_tokens"), answers=Sum("completion_tokens")
        )
    )
    return {row["key"]: Total(row["asked"], row["over"], row["prompts"], row["answers"]) for row in rows}


def hour_of(moment: datetime) -> datetime:
    """The hour, in which `moment` lies, by its beginning."""
    return moment.replace(minute=0, second=0, microsecond=0)


def days_ago(days: int) -> datetime:
    """The moment so many days before now."""
    return timezone.now() - timedelta(days=days)


@in_transaction
def _add(uses: list[Use]) -> int:
    columns = [
        [getattr(use, name) for use in uses]
        for name in ("key_id", "deployment_id", "requests", "refused", "prompt_tokens", "completion_tokens")
    ]
    with connection.cursor() as cursor:
        cursor.execute(ADD, [hour_of(timezone.now()), *columns])
        return int(cursor.rowcount)


def _merged(uses: Iterable[Use]) -> list[Use]:
    """One row per key and deployment: PostgreSQL takes none twice in a statement."""
    sums: dict[tuple[int, int], list[int]] = {}
    for use in uses:
        row = sums.setdefault((use.key_id, use.deployment_id), [0, 0, 0, 0])
        counted = (use.requests, use.refused, use.prompt_tokens, use.completion_tokens)
        for index, number in enumerate(counted):
            row[index] += min(max(0, number), MOST_COUNTED)
    return [Use(*where, *row) for where, row in sorted(sums.items())]


def _spent(uses: Iterable[Use]) -> dict[int, int]:
    spent: dict[int, int] = {}
    for use in uses:
        if tokens := use.prompt_tokens + use.completion_tokens:
            spent[use.key_id] = spent.get(use.key_id, 0) + tokens
    return spent
