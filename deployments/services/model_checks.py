"""What sources say about a model, asked through the one outbound door and remembered for a while."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.utils import timezone

from deployments.engine.facts import ModelFacts
from deployments.models import ModelCheck
from deployments.services import source_checks
from deployments.sources import (
    RESOLVED,
    Reply,
    Scheme,
    Source,
    SourceCheck,
    SourceCode,
    SourceError,
    huggingface,
    parse,
)
from deployments.sources.oci import digest_of
from deployments.sources.pinned import as_loaded, pinned

FRESH = timedelta(minutes=10)
FRESH_UNREACHABLE = timedelta(seconds=15)
FORGET = timedelta(days=1)
# In place of a revision: an entry that was resolved, and nothing behind it looked up.
RESOLVED_ALONE = "(resolved)"
COMMIT = re.compile(r"[0-9a-f]{40}")


def look_up(
    uri: str, revision: str | None = None, *, max_age: timedelta = FRESH, credential: bool = False
) -> SourceCheck | None:
    """What is known about a model, asking its source when that is older than `max_age`; None where nobody can say.

    It is asked as anybody: with a `credential` to open it only hubs and registries tell something that way. A source
    that cannot be reached leaves what was known before in place, with the code *unreachable*.
    """
    source = _parsed(uri)
    if source is None or source.scheme is Scheme.PVC:
        return None
    if credential and source.scheme is not Scheme.HF and source.scheme not in RESOLVED:
        return None
    at = revision or (source.revision if source.scheme is Scheme.HF else "") or ""
    alone = credential and source.scheme in RESOLVED
    if alone:
        at = RESOLVED_ALONE
    row = ModelCheck.objects.filter(uri=uri, revision=at).first()
    if row is not None and timezone.now() - row.checked_at < min(max_age, _freshness(row)):
        return _from_row(row)
    if source.scheme is Scheme.HF:
        found: SourceCheck | None = huggingface.check(source.id, at or None, _get)
    else:
        found = source_checks.check(source, follow=not alone)
    return _from_row(_store(uri, at, found, row)) if found is not None else None


def commit_of(uri: str, revision: str | None, check: SourceCheck | None) -> str:
    """What to pin a model to: a commit's 40 hex digits, or the digest of an image; empty when nobody knows them."""
    source = _parsed(_loaded(uri, check))
    if source is None:
        return ""
    if source.scheme is Scheme.OCI:
        return digest_of(source.uri)
    if source.scheme is not Scheme.HF:
        return ""
    if check is not None and check.model is not None and COMMIT.fullmatch(check.model.sha):
        return check.model.sha
    named = revision or source.revision or ""
    return named if COMMIT.fullmatch(named) else ""


def address_of(uri: str, revision: str | None, check: SourceCheck | None) -> str:
    """The address that the cluster loads, pinned where its kind can be; empty while that is not known."""
    loaded = _loaded(uri, check)
    source = _parsed(loaded)
    if source is None or source.scheme in RESOLVED:
        return ""
    if source.scheme in {Scheme.HF, Scheme.OCI}:
        pin = commit_of(uri, revision, check)
        return pinned(loaded, pin) if pin else ""
    return as_loaded(loaded)


def _loaded(uri: str, check: SourceCheck | None) -> str:
    return check.loads if check is not None and check.loads else uri


def _parsed(uri: str) -> Source | None:
    try:
        return parse(uri)
    except SourceError:
        return None


def _freshness(row: ModelCheck) -> timedelta:
    return FRESH_UNREACHABLE if row.result == SourceCode.UNREACHABLE else FRESH


def _get(path: str) -> Reply:
    return source_checks.hub_get()(path)


def _store(uri: str, revision: str, found: SourceCheck, known: ModelCheck | None) -> ModelCheck:
    now = timezone.now()
    values: dict[str, Any] = {
        "result": found.code.value,
        "message": found.message[:500],
        "remedy": found.remedy[:500],
        "checked_at": now,
    }
    if found.code is SourceCode.UNREACHABLE and found.loads:
        # The registry has answered, and what it names has not.
        values["facts"] = {**(known.facts if known else {}), "loads": found.loads}
    if found.code is not SourceCode.UNREACHABLE:
        facts = found.model.as_json() if found.model else {}
        values |= {"facts": {**facts, "loads": found.loads}, "commit": str(facts.get("sha", ""))[:64]}
    if known is None:
        # Half-typed names are looked up too; what was not found is not worth keeping.
        ModelCheck.objects.filter(result=SourceCode.NOT_FOUND, checked_at__lt=now - FORGET).delete()
    row, _ = ModelCheck.objects.update_or_create(uri=uri, revision=revision, defaults=values)
    return row


def _from_row(row: ModelCheck) -> SourceCheck:
    model = ModelFacts.from_json(row.facts) if "id" in row.facts else None
    return SourceCheck(SourceCode(row.result), row.message, row.remedy, model, str(row.facts.get("loads", "")))
