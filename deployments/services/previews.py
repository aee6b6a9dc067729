"""What a wish would become on the cluster, before anybody has asked for it. Nothing is stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from deployments.manifests import build, build_service_account
from deployments.models import Deployment, Principal, Team
from deployments.preflight.request import proposed_name
from deployments.services import facts, rendering, requests
from deployments.services.errors import InvalidError, RefusedError
from deployments.spec import DeploymentSpec

# Until it is asked for it has no number and, where the hub does not answer, no commit.
NO_NUMBER = 0
NO_COMMIT = "0" * 40
NO_NAME = "name"


@dataclass(frozen=True)
class Preview:
    """Account and objects as they would be applied; `pinned` is False while zeros stand for the model's commit."""

    account: dict[str, Any]
    objects: list[dict[str, Any]]
    revision: int
    pinned: bool


def preview(
    *, principal: Principal, team: Team, name: str, spec: DeploymentSpec, deployment: Deployment | None = None
) -> Preview:
    """The objects of a wish, or of an edit of `deployment`. May ask the hub once.

    Raises RefusedError for a team that is not the principal's, InvalidError for a spec that cannot be built.
    """
    if not Team.objects.writable_by(principal).filter(pk=team.pk).exists():
        raise RefusedError([requests.no_such_team()])
    check = requests.look_up(spec, team)
    known = facts.gather(team=team, name=name, deployment=deployment, check=check, spec=spec)
    if spec.flavor not in known.flavors:
        raise InvalidError(f"“{spec.flavor}” is not offered here.", field="flavor", pointer="/spec/flavor")
    if spec.engine.profile not in known.profiles:
        message = f"“{spec.engine.profile}” is not offered here."
        raise InvalidError(message, field="profile", pointer="/spec/engine/profile")
    resolution = requests.resolve(spec, known)
    if not resolution.storage_uri and not spec.source.uri.startswith("hf://"):
        message = "What would be loaded is not known: the address names no digest, or its registry did not answer."
        raise InvalidError(message, field="source_uri", pointer="/spec/source/uri")
    pinned = bool(resolution.commit) or not spec.source.uri.startswith("hf://")
    if not pinned:
        resolution = replace(resolution, commit=NO_COMMIT, storage_uri="")
    row = deployment or Deployment(pk=NO_NUMBER, team=team, name=proposed_name(name) or NO_NAME)
    number = deployment.latest.number + 1 if deployment and deployment.latest else 1
    wish = rendering.wish_of(row, number=number, spec=spec, resolution=resolution)
    try:
        return Preview(build_service_account(wish), build(wish), number, pinned)
    except ValueError as error:
        raise InvalidError(str(error), field="args", pointer="/spec/engine/args") from error
