"""What preflight may know of the credential that a wish names, and of the model that was tested with it."""

from __future__ import annotations

from dataclasses import replace

from deployments.engine.facts import ModelFacts
from deployments.models import Credential, Team
from deployments.preflight.facts import CredentialFacts
from deployments.services import source_checks
from deployments.sources import Scheme, SourceCheck, SourceCode, SourceError, parse
from deployments.sources.adapters import AdapterFacts
from deployments.spec import DeploymentSpec

# How a test may end without a word of the server; "": there was none yet.
NO_ANSWER = frozenset({"", SourceCode.UNREACHABLE})
# How a test may end of which nothing follows for what it was made with.
NOTHING_LEARNT = frozenset({SourceCode.UNREACHABLE, SourceCode.BAD_TOKEN})


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
    wanted = check.loads if check is not None and check.loads else spec.source.uri
    adapters = tuple(map(AdapterFacts.from_json, row.test_facts.get("adapters", ())))
    # Among the addresses of a test those of adapters say nothing of the model.
    models = [uri for uri in row.test_uri.split() if parse(uri).id not in {each.id for each in adapters}]
    asked = any(_is_same(uri, wanted) for uri in models)
    endpoint = _setting(row, "endpoint")
    known = CredentialFacts(
        kind=row.kind,
        stored=row.current_id is not None,
        waiting=row.state == Credential.State.PENDING,
        refused=row.test_code == SourceCode.BAD_TOKEN,
        asked=asked and row.test_code not in NOTHING_LEARNT,
        answered=row.test_code not in NO_ANSWER,
        endpoint=endpoint,
        server=_setting(row, "server"),
        inside=source_checks.why_inside(endpoint),
        adapters=tuple(each for each in adapters if each.code not in NOTHING_LEARNT),
    )
    if known.asked:
        return {name: known}, _with_token(row, check)
    return {name: known}, check if row.kind == Credential.Kind.HF else _without_it(check)


def look_up(team: Team | None, spec: DeploymentSpec) -> None:
    """Where the named credential's server is, asked of the resolver before anything is locked."""
    name = spec.source.credential
    row = Credential.objects.kept().filter(team=team, name=name).first() if name and team is not None else None
    if row is not None:
        source_checks.why_inside(_setting(row, "endpoint"))


def _setting(row: Credential, name: str) -> str:
    """What was entered beside the secret of the value in use, or of the newest."""
    version = row.current or row.versions.order_by("-number").first()
    return str(version.settings.get(name, "")) if version is not None else ""


def _with_token(row: Credential, check: SourceCheck | None) -> SourceCheck:
    model = ModelFacts.from_json(row.test_facts) if "id" in row.test_facts else None
    anonymous = check.model if check is not None else None
    if model is not None and anonymous is not None and anonymous.sha:
        # Everybody may see which commit is the newest; the token was needed for what is in it.
        sizes = {name: getattr(anonymous, name) or getattr(model, name) for name in ("weights_bytes", "download_bytes")}
        model = replace(model, sha=anonymous.sha, **sizes)
    loads = str(row.test_facts.get("loads", "")) or (check.loads if check is not None else "")
    return SourceCheck(SourceCode(row.test_code), row.test_message, row.test_remedy, model or anonymous, loads)


def _without_it(check: SourceCheck | None) -> SourceCheck | None:
    """What is known without the credential: nothing of what it opens, but where an entry of a registry leads."""
    if check is None or not check.loads or check.code is SourceCode.UNUSABLE:
        return check
    return SourceCheck(SourceCode.FOUND, check.message, "", None, check.loads)


def _is_same(uri: str, wanted: str) -> bool:
    try:
        tested, asked = parse(uri), parse(wanted)
    except SourceError:
        return False
    if tested.scheme is Scheme.OCI:
        return tested.uri == asked.uri  # of another tag or digest nothing was learnt
    return tested.scheme is asked.scheme and tested.id == asked.id
