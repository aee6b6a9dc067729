"""What preflight may know of the credential that a wish names, and of the model that was tested with it."""

from __future__ import annotations

from dataclasses import replace

from deployments.engine.facts import ModelFacts
from deployments.models import Credential, Team
from deployments.preflight.facts import CredentialFacts
from deployments.sources import SourceCheck, SourceCode, SourceError, parse
from deployments.spec import DeploymentSpec


def known_of(
    team: Team | None, spec: DeploymentSpec, check: SourceCheck | None
) -> tuple[dict[str, CredentialFacts], SourceCheck | None]:
    """The named credential as facts, and the check as it is with it; without a name nothing is asked of the database.

    `check` was made without a token. What a worker learnt with it when it was entered counts more.
    """
    name = spec.source.credential
    if not name or team is None:
        return {}, check
    row = Credential.objects.kept().told().filter(team=team, name=name).first()
    if row is None:
        return {}, check
    asked = row.kind == Credential.Kind.HF and bool(row.test_uri) and _is_same(row.test_uri, spec)
    known = CredentialFacts(
        kind=row.kind,
        stored=row.current_id is not None,
        waiting=row.state == Credential.State.PENDING,
        refused=row.test_code == SourceCode.BAD_TOKEN,
        asked=asked and row.test_code not in {SourceCode.UNREACHABLE, SourceCode.BAD_TOKEN},
    )
    return {name: known}, _with_token(row, check) if known.asked else check


def _with_token(row: Credential, check: SourceCheck | None) -> SourceCheck:
    model = ModelFacts.from_json(row.test_facts) if row.test_facts else None
    anonymous = check.model if check is not None else None
    if model is not None and anonymous is not None and anonymous.sha:
        # Everybody may see which commit is the newest; the token was needed for what is in it.
        model = replace(model, sha=anonymous.sha, weights_bytes=anonymous.weights_bytes or model.weights_bytes)
    return SourceCheck(SourceCode(row.test_code), row.test_message, row.test_remedy, model or anonymous)


def _is_same(uri: str, spec: DeploymentSpec) -> bool:
    try:
        tested, wanted = parse(uri), parse(spec.source.uri)
    except SourceError:
        return False
    return tested.scheme is wanted.scheme and tested.id == wanted.id
