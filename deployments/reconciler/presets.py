"""The empty presets of a team's namespace: there before the first service that KServe would lay others under."""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from django.db.models.functions import Now

from deployments.manifests.presets import KIND, NAMES
from deployments.models import AppliedObject, Deployment, Revision, Team
from deployments.spec import Strategy


def wanted_by(team: Team) -> bool:
    """True while the team has a deployment that is built on presets."""
    rows = Deployment.objects.filter(team=team, deleted_at=None)
    across_nodes = Q(approved__spec__nodes__gt=1)
    return rows.filter(across_nodes | Q(approved__spec__strategy=Strategy.DISAGGREGATED.value)).exists()


def stand_for(revision: Revision) -> bool:
    """True when this revision may be applied; else the team is due, which makes what is missing."""
    if not _needs_presets(revision.spec):
        return True
    team = revision.deployment.team_id
    if AppliedObject.objects.filter(team=team, kind=KIND).count() >= len(NAMES):
        return True
    Team.objects.filter(pk=team).update(next_reconcile_at=Now())
    return False


def _needs_presets(spec: dict[str, Any]) -> bool:
    """True for what becomes an LLMInferenceService."""
    return spec.get("strategy") == Strategy.DISAGGREGATED or spec.get("nodes", 1) > 1
