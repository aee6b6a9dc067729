"""Asking for a model: checks, resolution, rendered objects and digest become a revision that somebody approves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from deployments import preflight as rules
from deployments.engine.facts import ModelFacts
from deployments.engine.flags import guarded_args
from deployments.engine.lora import lora_rank
from deployments.engine.options import Option
from deployments.engine.sizing import Fit
from deployments.findings import Finding, Severity, error
from deployments.manifests.adapters import BY_TOKEN
from deployments.manifests.cache import gib_for
from deployments.manifests.common import Resolution
from deployments.manifests.images import ImageMode, mode_of
from deployments.manifests.scaling import available
from deployments.models import Cluster, Deployment, Principal, Revision, Team, Wanted
from deployments.preflight import Facts
from deployments.preflight.cluster import surge_of
from deployments.preflight.sources import unseen_server
from deployments.preflight.storage import chosen
from deployments.services import (
    adapter_checks,
    approvals,
    asks,
    credential_facts,
    engines,
    events,
    facts,
    holds,
    impartial,
    model_checks,
    rendering,
    states,
    unknown_models,
)
from deployments.services.asks import Ask
from deployments.services.errors import (
    ConflictError,
    InvalidError,
    MissingError,
    NotAllowedError,
    RefusedError,
    StaleError,
)
from deployments.services.holds import Usage
from deployments.services.teams import SLUG
from deployments.services.text import line_of
from deployments.services.transactions import in_transaction
from deployments.sources import Scheme, Source, SourceCheck, SourceCode, SourceError, parse
from deployments.sources.pinned import file_of, pinned
from deployments.spec import MAX_NOTE, DeploymentSpec, Role

MOST_PENDING = 20
NOT_PINNED = "source_not_pinned"


@dataclass(frozen=True)
class PreflightResult:
    """Everything a form shows beside a wish: findings, memory fit and other ways, quota, and who would approve."""

    findings: tuple[Finding, ...]
    spec: DeploymentSpec | None = None
    # What each role runs, in the memory of its GPUs; None while something of it is not known.
    fits: Mapping[Role, Fit | None] = field(default_factory=dict)
    # Changes with which what a role runs fits, where they were asked for.
    ways: Mapping[Role, Sequence[Option]] = field(default_factory=dict)
    model_facts: ModelFacts | None = None
    check: SourceCheck | None = None
    quota: Usage | None = None
    # GPUs at the most replicas, and what a rollout takes on top: both are charged.
    gpus: int = 0
    surge: int = 0
    asks: tuple[Ask, ...] = ()
    approval: str = ""
    # Numbers without which nobody can say whether the model fits, by name.
    missing: tuple[str, ...] = ()
    # What the findings were made with.
    known: Facts = field(default_factory=Facts)

    @property
    def ok(self) -> bool:
        """True when the wish could be submitted as it is."""
        return self.spec is not None and not rules.has_errors(self.findings)


def preflight(
    *,
    principal: Principal,
    team: Team | None,
    name: str,
    spec: object,
    note: object = "",
    deployment: Deployment | None = None,
    numbers: Mapping[str, int] | None = None,
    with_ways: bool = False,
) -> PreflightResult:
    """Check a wish without storing it; `deployment` when it would be an edit of that. May ask the hub once.

    `spec` is a DeploymentSpec, or decoded JSON that may be anything. `numbers` are those of a model that nobody could
    look up: the estimate and the ways to make it fit are made with them. To try those through all rules costs more than
    the rest, so that they are looked for where somebody asks (`with_ways`).
    """
    parsed, problems = (spec, []) if isinstance(spec, DeploymentSpec) else engines.parse_spec(spec)
    findings = [problem.as_finding() for problem in problems]
    try:
        _note(note)
    except InvalidError as wrong:
        findings.append(error(wrong.code, wrong.pointer, wrong.message))
    own = team if team is not None and _may_ask(principal, team) else None
    if own is None:
        findings.append(no_such_team())
    if parsed is None:
        return PreflightResult(tuple(findings))
    check = look_up(parsed, own)
    usages = holds.usage(own) if own else []
    known = facts.gather(team=own, name=name, deployment=deployment, check=check, usages=usages, spec=parsed)
    check = known.source_check
    found = _check(parsed, name, own, known, check)
    if own is None:
        found = [item for item in found if not item.code.startswith(("quota_", "credential_"))]
    usage = next((row for row in usages if row.flavor.slug == parsed.flavor), None)
    within = usage is not None and _more(parsed, usage, deployment) <= usage.free
    why = _asks(own, parsed, known, within=within) if own else ()
    if own and not why:
        rule = impartial.own_rule({principal.user.pk}, own, usage.flavor if usage else None)
        why = (rule,) if rule else ()
    model = unknown_models.as_known(parsed, known.model, check)
    guess = replace(known, model=unknown_models.completed(model, numbers)) if numbers else known
    return PreflightResult(
        findings=(*findings, *found),
        spec=parsed,
        fits=rules.estimates(parsed, guess),
        ways=rules.ways(parsed, name, own.slug if own else "", guess) if with_ways else {},
        missing=unknown_models.missing_of(model),
        model_facts=known.model,
        check=check,
        quota=usage,
        gpus=parsed.gpus,
        surge=surge_of(parsed),
        asks=why,
        approval=asks.in_words(why) if own else "",
        known=known,
    )


def submit(*, principal: Principal, team: Team, name: str, spec: DeploymentSpec, note: str = "") -> Deployment:
    """Ask for a new deployment: its revision 1 waits for approval, or is approved at once by policy.

    Raises RefusedError with all findings when preflight finds an error.
    """
    if not _may_ask(principal, team):
        raise RefusedError([no_such_team()])
    text = _note(note)
    # The hub is asked before the transaction: nothing is locked while somebody else's server thinks.
    check = look_up(spec, team)
    return _submit(principal, team, name, spec, text, check)


def revise(
    *, principal: Principal, deployment: Deployment, spec: DeploymentSpec, base_revision: int, note: str = ""
) -> Revision:
    """Ask for a change: a new revision, which needs its own approval; what runs goes on until then.

    Raises StaleError when `base_revision` is not the newest any more.
    """
    text = _note(note)
    _editable(principal, deployment)
    check = look_up(spec, deployment.team)
    return _revise(principal, deployment, spec, base_revision, text, check)


def look_up(spec: DeploymentSpec, team: Team | None) -> SourceCheck | None:
    """What is known of the model and the adapters of a wish; may ask their servers, and where its credential leads."""
    source = spec.source
    credential_facts.look_up(team, spec)
    adapter_checks.look_up(spec)
    return model_checks.look_up(source.uri, source.revision, credential=source.credential is not None)


def team_called(principal: Principal, slug: object) -> Team:
    """The principal's own team with this slug; the same RefusedError for a foreign one and for none."""
    if isinstance(slug, str) and SLUG.fullmatch(slug):
        team = Team.objects.writable_by(principal).filter(slug=slug).first()
        if team is not None:
            return team
    raise RefusedError([no_such_team()])


def no_such_team() -> Finding:
    """What a stranger hears of a team, whether it exists or not."""
    return error("team_unknown", "/team", "You do not belong to a team of this name.", "Choose one of your teams.")


@in_transaction
def _submit(
    principal: Principal, team: Team, name: str, spec: DeploymentSpec, note: str, check: SourceCheck | None
) -> Deployment:
    # One request of a team at a time: name, quota and number of pending requests stay as they were checked.
    row = Team.objects.active().select_for_update(no_key=True).filter(pk=team.pk).first()
    if row is None:
        raise RefusedError([no_such_team()])  # Archived meanwhile.
    team = row
    if Revision.objects.pending().filter(deployment__team=team).count() >= MOST_PENDING:
        raise ConflictError(f"{MOST_PENDING} requests of the team wait for a decision. Have some decided first.")
    known = facts.gather(team=team, name=name, check=check, spec=spec)
    check = known.source_check
    findings = _accepted(spec, name, team, known, check)
    try:
        with transaction.atomic():
            deployment = Deployment.objects.create(
                team=team, name=name, cluster=_cluster(), created_by=principal.user, wanted=Wanted.RUNNING
            )
    except IntegrityError:
        raise RefusedError([error("name_taken", "/name", f"The team already has a deployment “{name}”.")]) from None
    revision = _add_revision(principal, deployment, spec, note, known, findings, number=1)
    events.record(
        kind="requested",
        message=f"Revision 1 asked for by {principal.user.username}" + (f": {note}" if note else ""),
        deployment=deployment,
        actor=principal.user,
        data={"revision": 1, "digest": revision.digest, "after": spec.to_json()},
    )
    if approvals.by_policy(deployment=deployment, revision=revision) is None:
        states.refresh(deployment.pk)
    deployment.refresh_from_db()
    return deployment


@in_transaction
def _revise(
    principal: Principal,
    deployment: Deployment,
    spec: DeploymentSpec,
    base_revision: int,
    note: str,
    check: SourceCheck | None,
) -> Revision:
    row = Deployment.objects.hold(deployment.pk, "team", "latest", "applied")
    assert row is not None
    latest = row.latest
    assert latest is not None
    if row.wanted == Wanted.DELETED:
        raise ConflictError("This deployment is being deleted.")
    if base_revision != latest.number:
        raise StaleError(f"Revision {latest.number} is the newest now. Look at it, then change it.")
    known = facts.gather(team=row.team, name=row.name, deployment=row, check=check, spec=spec)
    check = known.source_check
    findings = _accepted(spec, row.name, row.team, known, check)
    open_verdicts = {Revision.Verdict.PENDING, Revision.Verdict.APPROVED}
    same = latest.spec == spec.to_json() and _address(spec, check) == latest.resolution.get("storage_uri")
    if latest.verdict in open_verdicts and same:
        raise ConflictError("This is what the newest revision asks for already.", code="unchanged")
    row.revisions.filter(verdict=Revision.Verdict.PENDING).update(verdict=Revision.Verdict.SUPERSEDED)
    revision = _add_revision(principal, row, spec, note, known, findings, number=latest.number + 1)
    events.record(
        kind="revised",
        message=f"Revision {revision.number} asked for by {principal.user.username}" + (f": {note}" if note else ""),
        deployment=row,
        actor=principal.user,
        data={
            "revision": revision.number,
            "digest": revision.digest,
            **events.changed(_flat(latest.spec), _flat(spec.to_json())),
        },
    )
    if approvals.by_policy(deployment=row, revision=revision) is None:
        states.refresh(row.pk)
    return revision


def _add_revision(
    principal: Principal,
    deployment: Deployment,
    spec: DeploymentSpec,
    note: str,
    known: Facts,
    findings: list[Finding],
    *,
    number: int,
) -> Revision:
    return rendering.store(
        deployment,
        number=number,
        spec=spec,
        resolution=resolve(spec, known),
        author=principal.user,
        note=note,
        guarded=_guarded(spec, known),
        findings=findings,
    )


def resolve(spec: DeploymentSpec, known: Facts) -> Resolution:
    """What a spec means on this platform now: commit, image and flavor as they are signed."""
    flavor, profile = known.flavors[spec.flavor], known.profiles[spec.engine.profile]
    commit, address = _pin(spec, known.source_check), _address(spec, known.source_check)
    return Resolution(
        commit=commit,
        image=profile.image,
        product=flavor.product,
        resource_name=flavor.resource_name,
        gpus_per_replica=spec.gpus_per_replica,
        weights_bytes=known.model.weights_bytes if known.model else None,
        storage_uri=address,
        engine_version=profile.version,
        node_selector=flavor.node_selector,
        tolerations=flavor.tolerations,
        autoscaler=available(known.cluster.groups),
        image_mode=_image_mode(spec, known),
        adapters=tuple(_adapters(spec, known)),
        lora_rank=lora_rank(known.adapters) if spec.adapters else 0,
        file=(known.model.file if known.model else "") or (file_of(address, spec.source.folder) if address else ""),
        tokenizer=known.model.tokenizer if known.model else "",
        endpoint=_endpoint(spec, known),
        **_claim(spec, known),
    )


def _claim(spec: DeploymentSpec, known: Facts) -> dict[str, Any]:
    """The claim that weights are fetched into ahead: its size, class and access mode; empty where there is none."""
    size = known.model.download_bytes if known.model else None
    storage = chosen(known.cluster.storage or ())
    if spec.source.cache is None or not size or storage is None:
        return {}
    return {"claim_gib": gib_for(size), "claim_class": storage.name, "claim_mode": storage.mode}


def _endpoint(spec: DeploymentSpec, known: Facts) -> str:
    """The server of an operator that the pods have to reach for their weights; empty where it is a public one."""
    credential = known.credentials.get(spec.source.credential or "")
    if credential is not None and credential.endpoint in settings.OBJECT_STORES:
        return credential.endpoint
    address = _address(spec, known.source_check)
    return next((origin for origin in settings.DOWNLOAD_SERVERS if address.startswith(f"{origin.rstrip('/')}/")), "")


def _adapters(spec: DeploymentSpec, known: Facts) -> Iterator[dict[str, str]]:
    """The adapters by name, each with the address of its commit; those that nobody could pin are left out.

    What was not given to everybody is fetched with the credential.
    """
    for adapter in spec.adapters:
        facts = known.adapters.get(adapter.name)
        commit = (facts.sha if facts else "") or adapter.revision or parse(adapter.uri).revision or ""
        if model_checks.COMMIT.fullmatch(commit):
            by_token = spec.source.credential is not None and not (facts is not None and facts.is_public)
            yield {"name": adapter.name, "uri": pinned(adapter.uri, commit)} | (BY_TOKEN if by_token else {})


def _image_mode(spec: DeploymentSpec, known: Facts) -> str:
    """How weights in an image get into the pods of this cluster; empty for other sources."""
    source = _loaded(spec, known)
    image = source is not None and source.scheme is Scheme.OCI
    return mode_of(mounts_images=known.cluster.mounts_images).value if image else ""


def _loaded(spec: DeploymentSpec, known: Facts) -> Source | None:
    """What the cluster loads, also where that is an entry of a registry; None for what preflight refuses."""
    check = known.source_check
    try:
        return parse(check.loads if check is not None and check.loads else spec.source.uri)
    except SourceError:
        return None


def _accepted(spec: DeploymentSpec, name: str, team: Team, known: Facts, check: SourceCheck | None) -> list[Finding]:
    findings = _check(spec, name, team, known, check)
    if rules.has_errors(findings):
        raise RefusedError(findings)
    return findings


def _check(
    spec: DeploymentSpec, name: str, team: Team | None, known: Facts, check: SourceCheck | None
) -> list[Finding]:
    findings = rules.check(spec, name, team.slug if team else "", known)
    if not rules.has_errors(findings) and not _address(spec, check):
        findings.append(_not_pinned(spec))
    if not rules.has_errors(findings):
        findings += _adapters_not_pinned(spec, known)
    order = list(Severity)
    return sorted(findings, key=lambda item: order.index(item.severity))


def _adapters_not_pinned(spec: DeploymentSpec, known: Facts) -> Iterator[Finding]:
    done = {each["name"] for each in _adapters(spec, known)}
    for place, adapter in enumerate(spec.adapters):
        if adapter.name in done:
            continue
        facts = known.adapters.get(adapter.name)
        hidden = facts is not None and facts.code != SourceCode.UNREACHABLE
        yield error(
            NOT_PINNED,
            f"/spec/adapters/{place}/revision" if hidden else "/spec/adapters",
            f"Which commit of {adapter.name} is meant is told only to a token that may read it."
            if hidden
            else "An adapter cannot be pinned to a commit while the hub does not answer.",
            f"Enter the token again and have it tested with {adapter.uri}, or give the commit (40 hex digits)."
            if hidden
            else "Try again later, or give its revision as a commit (40 hex digits).",
        )


def _not_pinned(spec: DeploymentSpec) -> Finding:
    if parse(spec.source.uri).scheme is Scheme.OCI:
        return error(
            NOT_PINNED,
            "/spec/source/uri",
            "Without a digest an image may be another one tomorrow: what is approved is what a digest names.",
            "Write the digest that your registry shows: oci://registry/repository@sha256:…",
        )
    return error(
        NOT_PINNED,
        "/spec/source/revision",
        "The model cannot be pinned to a commit while the hub does not answer.",
        "Try again later, or enter the commit (40 hex digits).",
    )


def _more(spec: DeploymentSpec, usage: Usage, deployment: Deployment | None) -> int:
    """GPUs that this wish would take beyond what the deployment holds: `approvals.cost_of`, before it is rendered."""
    old = deployment.applied if deployment else None
    same = old if old is not None and old.flavor_id == usage.flavor.pk else None
    gpus, surge = max(spec.gpus, same.gpus if same else 0), max(surge_of(spec), same.surge if same else 0)
    return max(0, gpus + surge - (holds.held_by(deployment, usage.flavor) if deployment else 0))


def _asks(team: Team, spec: DeploymentSpec, known: Facts, *, within: bool) -> tuple[Ask, ...]:
    return asks.reasons(team, gpus=spec.gpus, guarded=_guarded(spec, known), within=within)


def _guarded(spec: DeploymentSpec, known: Facts) -> list[str]:
    profile = known.profiles.get(spec.engine.profile)
    if profile is None:
        return []
    # Flags of each role are laid over those of both.
    roles = spec.by_role().values()
    found = [name for own in roles for name in guarded_args(profile.version, own.engine.args)]
    if _image_mode(spec, known) == ImageMode.MODELCAR:
        # The image's own shell runs in the pod: a program that nobody here has read.
        found.append(ImageMode.MODELCAR.value)
    source = _loaded(spec, known)
    if source is not None and unseen_server(source, spec, known):
        found.append(asks.UNSEEN)
    return list(dict.fromkeys(found))


def _pin(spec: DeploymentSpec, check: SourceCheck | None) -> str:
    return model_checks.commit_of(spec.source.uri, spec.source.revision, check)


def _address(spec: DeploymentSpec, check: SourceCheck | None) -> str:
    return model_checks.address_of(spec.source.uri, spec.source.revision, check)


def _flat(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in spec.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _cluster() -> Cluster:
    return facts.main_cluster() or Cluster.objects.get_or_create(name="main")[0]


def _note(note: object) -> str:
    return line_of(note, field="note", longest=MAX_NOTE, required=False)


def _may_ask(principal: Principal, team: Team) -> bool:
    return Team.objects.writable_by(principal).filter(pk=team.pk).exists()


def _editable(principal: Principal, deployment: Deployment) -> None:
    if Deployment.objects.writable_by(principal).filter(pk=deployment.pk).exists():
        return
    if Deployment.objects.alive().visible_to(principal).filter(pk=deployment.pk).exists():
        raise NotAllowedError("Only members of the team change it, and tokens with the scope “write”.")
    raise MissingError("There is no such deployment.")
