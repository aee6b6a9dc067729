"""The catalogue: what it offers to whom, with settings that fit and what the quota covers now; and how it changes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max

from deployments.engine.facts import ModelFacts
from deployments.engine.gpus import gpu_facts
from deployments.engine.options import Choice
from deployments.engine.proposals import Preset, propose
from deployments.engine.sizing import Fit, FitState, UnknownShapeError, fit
from deployments.engine.weights import parameter_count
from deployments.models import CatalogEntry, Flavor, Principal, Team
from deployments.models.catalog import may_edit as may_edit
from deployments.services import events, holds, model_checks
from deployments.services.errors import Checks, ConflictError, InvalidError, MissingError, NotAllowedError
from deployments.services.text import line_of
from deployments.services.transactions import in_transaction
from deployments.sources import Scheme, SourceCheck, SourceCode, SourceError, parse

# What a model is good at, as filters name it, and as people read it.
CAPABILITIES = {
    "chat": "Chat",
    "code": "Code",
    "tools": "Tool calls",
    "reasoning": "Reasoning",
    "vision": "Pictures",
    "multilingual": "Many languages",
    "long-context": "Long context",
    "embedding": "Embeddings",
}
# What the columns hold; beyond it a hub tells nonsense.
MOST_BILLION, MOST_TOKENS = Decimal("99999.99"), 10**9
LONGEST = {"uri": 300, "revision": 128, "name": 80, "summary": 300}


@dataclass(frozen=True)
class Place:
    """One preset of a model on a flavor that is offered: how it fits, and what the quota leaves of that flavor.

    `left` and `team` are of the asking team that has most of it free; None where nobody may ask. `fit` is None while
    the model's shape is not known.
    """

    preset: Preset
    flavor: Flavor
    fit: Fit | None
    left: int | None = None
    team: str = ""

    @property
    def covered(self) -> bool:
        """True when the quota of that team takes it now."""
        return self.left is not None and self.preset.gpus <= self.left

    @property
    def context(self) -> int | None:
        """Tokens of one request at most."""
        length = self.preset.args.get("max-model-len")
        return length if isinstance(length, int) else None


@dataclass(frozen=True)
class Offer:
    """A model of the catalogue and the places where it runs here, the suggested one first."""

    entry: CatalogEntry
    places: tuple[Place, ...]

    @property
    def covered(self) -> bool:
        """True when the quota takes one of its presets now."""
        return any(place.covered for place in self.places)

    @property
    def best(self) -> Place | None:
        """The preset to begin with: the first that the quota takes now, else the suggested one."""
        return next((place for place in self.places if place.covered), self.places[0] if self.places else None)


def offers(entries: Iterable[CatalogEntry], teams: Iterable[Team]) -> list[Offer]:
    """These models with their places, measured against the quota of `teams` together (four queries)."""
    left = _left(list(teams))
    flavors = {row.slug: row for row in Flavor.objects.filter(active=True)}
    return [Offer(entry, _places(entry, flavors, left)) for entry in entries]


def add(
    *,
    principal: Principal,
    uri: object,
    revision: object = "",
    name: object = "",
    summary: object = "",
    capabilities: object = (),
) -> CatalogEntry:
    """Recommend a model: looked up at its source (at most once, outside of the transaction), with presets that fit.

    InvalidError names the field: an address that is none, a model that is not there or that nobody can serve. Gated
    models may be added: their shape is often not known, and then whoever asks chooses the settings.
    """
    needs_admin(principal)
    checks = Checks()
    texts = {"uri": uri, "revision": revision, "name": name, "summary": summary}
    clean = {field: checks.of(partial(line_for, field, value), "") for field, value in texts.items()}
    nothing: list[str] = []
    can = checks.of(partial(capabilities_of, capabilities), nothing)
    if clean["uri"]:
        checks.of(partial(_on_hub, clean["uri"]), None)
    checks.done()
    found = model_checks.look_up(clean["uri"], clean["revision"] or None)
    model = usable(found)
    pin = model_checks.commit_of(clean["uri"], clean["revision"] or None, found) or clean["revision"]
    return _store(principal, {**clean, "revision": pin}, can, model)


@in_transaction
def change(*, principal: Principal, slug: str, active: bool | None = None, pinned: bool | None = None) -> CatalogEntry:
    """Hide a model or show it again, pin it to the top or let it go; None leaves as it is."""
    needs_admin(principal)
    rows = CatalogEntry.objects.editable_by(principal).select_for_update(no_key=True)
    row = rows.filter(slug=slug).first() if "\0" not in slug else None
    if row is None:
        raise MissingError("There is no such model in the catalogue.")
    before = _state(row)
    row.active = row.active if active is None else active
    row.pinned = row.pinned if pinned is None else pinned
    changed = events.changed(before, _state(row))
    if not changed["after"]:
        return row
    row.save(update_fields=["active", "pinned"])
    words = [_said(name, value) for name, value in changed["after"].items()]
    events.record(
        kind="catalogue_changed",
        message=f"{row.name} is {' and '.join(words)} in the catalogue",
        actor=principal.user,
        data={"model": row.slug, **changed},
    )
    return row


def needs_admin(principal: Principal) -> None:
    """Raise NotAllowedError for everybody else."""
    if not may_edit(principal):
        raise NotAllowedError("Only an admin changes the catalogue.")


def line_for(field: str, value: object) -> str:
    """A field's text; InvalidError names the field."""
    return line_of(value, field=field, longest=LONGEST[field], required=field == "uri")


def capabilities_of(value: object) -> list[str]:
    """What a model is good at, in our order; InvalidError for what is no such list."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise InvalidError("Must be a list of names.", field="capabilities", pointer="/capabilities")
    for item in value:
        if item not in CAPABILITIES:
            words = f"“{item[:60]}” is none of: {', '.join(CAPABILITIES)}."
            raise InvalidError(words, field="capabilities", pointer="/capabilities")
    return [name for name in CAPABILITIES if name in value]


def _on_hub(uri: str) -> None:
    try:
        source = parse(uri)
    except SourceError as error:
        raise InvalidError(error.finding.message, field="uri", pointer="/uri") from None
    if source.scheme is not Scheme.HF:
        words = "Name a model of the hub, as hf://owner/name: other sources belong to one team."
        raise InvalidError(words, field="uri", pointer="/uri")


def usable(found: SourceCheck | None, *, field: str = "uri") -> ModelFacts:
    """What was found, where it can be served by somebody who may load it; InvalidError at `field` otherwise."""
    if found is not None and found.model is not None and found.code in {SourceCode.FOUND, SourceCode.GATED}:
        return found.model
    words = f"{found.message} {found.remedy}".strip() if found else "Nobody can say what is there."
    raise InvalidError(words, field=field, pointer=f"/{field}", code=found.code.value if found else "")


def looked_up(model: ModelFacts) -> dict[str, Any]:
    """What the row of a model has from its source: its facts, and settings for the kinds of GPU offered."""
    presets = propose(model, [_choice(row) for row in Flavor.objects.filter(active=True)])
    params = model.params if not model.quantization else parameter_count(model) or model.params
    return {
        "licence": model.license[:60],
        "gated": model.gated,
        "parameters_billion": min(round(Decimal(params or 0) / 10**9, 2), MOST_BILLION),
        "context": model.max_position if (model.max_position or 0) <= MOST_TOKENS else None,
        "flavor": presets[0].flavor if presets else "",
        "presets": [preset.as_json() for preset in presets],
        "facts": {name: v for name, v in model.as_json().items() if v and name not in {"id", "sha", "gated"}},
    }


@in_transaction
def _store(principal: Principal, text: Mapping[str, str], can: list[str], model: ModelFacts) -> CatalogEntry:
    if CatalogEntry.objects.filter(uri=text["uri"]).exists():
        raise ConflictError("The catalogue has this model already.", field="uri", pointer="/uri", code="exists")
    row = CatalogEntry(
        slug=_free_slug(model.id),
        name=text["name"] or model.id.rpartition("/")[2][:80],
        uri=text["uri"],
        revision=text["revision"],
        summary=text["summary"],
        capabilities=can,
        **looked_up(model),
        position=(CatalogEntry.objects.aggregate(last=Max("position"))["last"] or 0) + 1,
    )
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        raise ConflictError("Somebody adds it just now.", field="uri", pointer="/uri", code="exists") from None
    after = {name: getattr(row, name) for name in ("uri", "revision", "name", "summary", "capabilities", "presets")}
    events.record(
        kind="catalogue_added",
        message=f"{row.name} is in the catalogue",
        actor=principal.user,
        data={"model": row.slug, "after": after},
    )
    return row


def _free_slug(model_id: str) -> str:
    plain = re.sub(r"[^a-z0-9.-]+", "-", model_id.rpartition("/")[2].lower()).strip("-.")[:50] or "model"
    taken = set(CatalogEntry.objects.filter(slug__startswith=plain).values_list("slug", flat=True))
    names = (plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 2)))
    return next(name for name in names if name not in taken)


def _state(row: CatalogEntry) -> dict[str, Any]:
    return {"active": row.active, "pinned": row.pinned}


def _said(name: str, value: bool) -> str:
    if name == "active":
        return "shown" if value else "hidden"
    return "pinned" if value else "no longer pinned"


def _choice(row: Flavor) -> Choice:
    gpu = gpu_facts(row.product, row.memory_mib, float(row.compute_capability))
    return Choice(row.slug, gpu, row.gpus_per_node, price=float(row.price_per_hour))


def _left(teams: list[Team]) -> dict[str, tuple[int, str]] | None:
    """Free GPUs by flavor, of the team that has most of it, and which that is; under "" the first; None without one."""
    if not teams:
        return None
    found: dict[str, tuple[int, str]] = {"": (0, teams[0].slug)}
    usages = holds.usage_of(teams)
    for team in teams:
        for usage in usages[team.pk]:
            if usage.free > found.get(usage.flavor.slug, found[""])[0]:
                found[usage.flavor.slug] = (usage.free, team.slug)
    return found


def _places(
    entry: CatalogEntry, flavors: Mapping[str, Flavor], left: Mapping[str, tuple[int, str]] | None
) -> tuple[Place, ...]:
    """The presets on flavors that are offered, the suggested one first, then by the fewest GPUs and the cheapest.

    One that does not fit the flavor as it is now is left out.
    """
    places = []
    for preset in entry.choices:
        row = flavors.get(preset.flavor)
        if row is None or preset.per_replica > row.gpus_per_node:
            continue
        estimate = _fit(entry.model, row, preset)
        if estimate is None or estimate.state is not FitState.NO:
            free, team = (None, "") if left is None else left.get(row.slug, left[""])
            places.append(Place(preset, row, estimate, free, team))
    return tuple(places[:1] + sorted(places[1:], key=lambda each: _choice(each.flavor).rank(each.preset.gpus)))


def _fit(model: ModelFacts | None, row: Flavor, preset: Preset) -> Fit | None:
    if model is None:
        return None
    try:
        return fit(model, _choice(row).gpu, preset.args)
    except UnknownShapeError:
        return None
