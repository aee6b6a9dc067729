"""What the hub says about a model, asked through the one outbound door and remembered for a while."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from deployments.engine.facts import ModelFacts
from deployments.models import ModelCheck
from deployments.sources import Reply, Scheme, Source, SourceCheck, SourceCode, SourceError, huggingface, parse
from deployments.sources.oci import digest_of
from portal.lib import outbound

FRESH = timedelta(minutes=10)
FRESH_UNREACHABLE = timedelta(seconds=15)
FORGET = timedelta(days=1)
SECONDS = 4.0
# The hub's own hosts, to which it redirects for files.
HUB_HOSTS = (".huggingface.co", ".hf.co")
COMMIT = re.compile(r"[0-9a-f]{40}")


def look_up(uri: str, revision: str | None = None, *, max_age: timedelta = FRESH) -> SourceCheck | None:
    """What is known about a model, asking the hub when that is older than `max_age`; None for other sources.

    A hub that cannot be reached leaves what was known before in place, with the code *unreachable*.
    """
    source = _hub_model(uri)
    if source is None:
        return None
    at = revision or source.revision or ""
    row = ModelCheck.objects.filter(uri=uri, revision=at).first()
    if row is not None and timezone.now() - row.checked_at < min(max_age, _freshness(row)):
        return _from_row(row)
    found = huggingface.check(source.id, at or None, _get)
    return _from_row(_store(uri, at, found, row))


def commit_of(uri: str, revision: str | None, check: SourceCheck | None) -> str:
    """What to pin a model to: a commit's 40 hex digits, or the digest of an image; empty when nobody knows them."""
    if digest := digest_of(uri):
        return digest
    if check is not None and check.model is not None and COMMIT.fullmatch(check.model.sha):
        return check.model.sha
    source = _hub_model(uri)
    named = revision or (source.revision if source else None) or ""
    return named if COMMIT.fullmatch(named) else ""


def _hub_model(uri: str) -> Source | None:
    try:
        source = parse(uri)
    except SourceError:
        return None
    return source if source.scheme is Scheme.HF else None


def _freshness(row: ModelCheck) -> timedelta:
    return FRESH_UNREACHABLE if row.result == SourceCode.UNREACHABLE else FRESH


def _get(path: str) -> Reply:
    try:
        status, body = outbound.get_json(
            f"{settings.HUB_URL.rstrip('/')}{path}",
            operator_origins=[settings.HUB_URL],
            redirect_hosts=HUB_HOSTS,
            seconds=SECONDS,
        )
    except outbound.OutboundError as error:
        return Reply(0, error=error.message)
    return Reply(status, body)


def _store(uri: str, revision: str, found: SourceCheck, known: ModelCheck | None) -> ModelCheck:
    now = timezone.now()
    values: dict[str, Any] = {
        "result": found.code.value,
        "message": found.message[:500],
        "remedy": found.remedy[:500],
        "checked_at": now,
    }
    if found.code is not SourceCode.UNREACHABLE:
        facts = found.model.as_json() if found.model else {}
        values |= {"facts": facts, "commit": str(facts.get("sha", ""))[:64]}
    if known is None:
        # Half-typed names are looked up too; what was not found is not worth keeping.
        ModelCheck.objects.filter(result=SourceCode.NOT_FOUND, checked_at__lt=now - FORGET).delete()
    row, _ = ModelCheck.objects.update_or_create(uri=uri, revision=revision, defaults=values)
    return row


def _from_row(row: ModelCheck) -> SourceCheck:
    model = ModelFacts.from_json(row.facts) if row.facts else None
    return SourceCheck(SourceCode(row.result), row.message, row.remedy, model)
