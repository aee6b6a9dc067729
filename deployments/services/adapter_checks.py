"""What the hub says about LoRA adapters, asked through the one outbound door and remembered as models are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from django.utils import timezone

from deployments.models import ModelCheck
from deployments.preflight.facts import CredentialFacts
from deployments.services import model_checks
from deployments.sources import Reply, Scheme, Source, SourceCode, SourceError, parse
from deployments.sources.adapters import AdapterFacts, check_adapter, opened
from deployments.spec import Adapter, DeploymentSpec

# Beside models of the same name, which have other facts.
PREFIX = "lora:"


def look_up(spec: DeploymentSpec, *, max_age: timedelta = model_checks.FRESH) -> None:
    """Ask about each adapter of a spec whose answer is older than `max_age`; nobody's answer changes what is known."""
    for adapter in spec.adapters:
        source = _of_hub(adapter)
        if source is None:
            continue
        row = _row(adapter)
        fresh = model_checks.FRESH_UNREACHABLE if row and row.result == SourceCode.UNREACHABLE else model_checks.FRESH
        if row is None or timezone.now() - row.checked_at >= min(max_age, fresh):
            _store(adapter, check_adapter(source.id, adapter.revision or source.revision, _get), row)


def known_of(spec: DeploymentSpec, credential: CredentialFacts | None = None) -> Mapping[str, AdapterFacts]:
    """What is known of each adapter, by its name in the spec (no outbound call).

    What was learnt with the wish's credential when it was entered counts where everybody may not see enough.
    """
    found: dict[str, AdapterFacts] = {}
    for adapter in spec.adapters:
        source = _of_hub(adapter)
        if source is None:
            continue
        tested = [each for each in credential.adapters if each.id == source.id] if credential is not None else []
        known = opened(_as_anybody(adapter), tested, adapter.revision or source.revision)
        if known is not None:
            found[adapter.name] = known
    return found


def _as_anybody(adapter: Adapter) -> AdapterFacts | None:
    row = _row(adapter)
    if row is None:
        return None
    facts = AdapterFacts.from_json(row.facts) if row.facts else AdapterFacts(adapter.uri)
    return facts if facts.found else replace(facts, code=row.result, message=row.message, remedy=row.remedy)


def _get(path: str) -> Reply:
    return model_checks._get(path)


def _of_hub(adapter: Adapter) -> Source | None:
    try:
        source = parse(adapter.uri)
    except SourceError:
        return None
    return source if source.scheme is Scheme.HF else None


def _row(adapter: Adapter) -> ModelCheck | None:
    return ModelCheck.objects.filter(uri=PREFIX + adapter.uri, revision=adapter.revision or "").first()


def _store(adapter: Adapter, found: AdapterFacts, known: ModelCheck | None) -> None:
    values: dict[str, object] = {
        "result": found.code,
        "message": found.message[:500],
        "remedy": found.remedy[:500],
        "checked_at": timezone.now(),
    }
    if found.code != SourceCode.UNREACHABLE or known is None:
        values |= {"facts": found.as_json(), "commit": found.sha}
    ModelCheck.objects.update_or_create(uri=PREFIX + adapter.uri, revision=adapter.revision or "", defaults=values)
