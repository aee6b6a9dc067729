"""What the hub says about LoRA adapters, asked through the one outbound door and remembered as models are."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from django.utils import timezone

from deployments.models import ModelCheck
from deployments.services import model_checks
from deployments.sources import Reply, Scheme, SourceCode, SourceError, parse
from deployments.sources.adapters import AdapterFacts, check_adapter
from deployments.spec import Adapter, DeploymentSpec

# Beside models of the same name, which have other facts.
PREFIX = "lora:"


def look_up(spec: DeploymentSpec, *, max_age: timedelta = model_checks.FRESH) -> None:
    """Ask about each adapter of a spec whose answer is older than `max_age`; nobody's answer changes what is known."""
    for adapter in spec.adapters:
        name = _hub_name(adapter)
        if name is None:
            continue
        row = _row(adapter)
        fresh = model_checks.FRESH_UNREACHABLE if row and row.result == SourceCode.UNREACHABLE else model_checks.FRESH
        if row is None or timezone.now() - row.checked_at >= min(max_age, fresh):
            _store(adapter, check_adapter(name, adapter.revision, _get), row)


def known_of(spec: DeploymentSpec) -> Mapping[str, AdapterFacts]:
    """What is known of each adapter, by its name in the spec (no outbound call)."""
    found: dict[str, AdapterFacts] = {}
    for adapter in spec.adapters:
        row = _row(adapter)
        if row is not None:
            facts = AdapterFacts.from_json(row.facts) if row.facts else AdapterFacts(adapter.uri)
            found[adapter.name] = facts if facts.found else AdapterFacts(facts.id, row.result, row.message, facts.sha)
    return found


def _get(path: str) -> Reply:
    return model_checks._get(path)


def _hub_name(adapter: Adapter) -> str | None:
    try:
        source = parse(adapter.uri)
    except SourceError:
        return None
    return source.id if source.scheme is Scheme.HF else None


def _row(adapter: Adapter) -> ModelCheck | None:
    return ModelCheck.objects.filter(uri=PREFIX + adapter.uri, revision=adapter.revision or "").first()


def _store(adapter: Adapter, found: AdapterFacts, known: ModelCheck | None) -> None:
    values: dict[str, object] = {
        "result": found.code,
        "message": found.message[:500],
        "remedy": "",
        "checked_at": timezone.now(),
    }
    if found.code != SourceCode.UNREACHABLE or known is None:
        values |= {"facts": found.as_json(), "commit": found.sha}
    ModelCheck.objects.update_or_create(uri=PREFIX + adapter.uri, revision=adapter.revision or "", defaults=values)
