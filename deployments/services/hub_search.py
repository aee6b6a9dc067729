"""Models of the hub by words, each with whether it fits the flavor and the quota at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from deployments.engine.defaults import NEWEST, Defaults, defaults_of
from deployments.engine.facts import GIB, ModelFacts
from deployments.engine.gpus import gpu_facts
from deployments.engine.options import Choice
from deployments.engine.proposals import Preset, propose
from deployments.engine.weights import weights_bytes
from deployments.models import CatalogEntry, Flavor, ModelCheck
from deployments.services import source_checks
from deployments.services.text import line_of
from deployments.sources.hub_search import Hit, hits_of, search_path
from deployments.spec import ArgValue

SHORTEST, LONGEST = 2, 100


@dataclass(frozen=True)
class Judged:
    """A hit beside a flavor and a quota. `gpus` hold it at least; None where its size is not known or none hold it.

    `closely`: the memory estimate says so, of a shape that was looked up before, with the settings of `preset`;
    otherwise the weights alone do. `left` is what the team's quota has free of the flavor; None without a team.
    """

    hit: Hit
    weights_gib: float | None = None
    gpus: int | None = None
    preset: Preset | None = None
    closely: bool = False
    left: int | None = None

    @property
    def context(self) -> int | None:
        """The longest request with which it fits."""
        length = self.preset.args.get("max-model-len") if self.preset else None
        return length if isinstance(length, int) else None

    @property
    def uri(self) -> str:
        """The address to ask for it by."""
        return f"hf://{self.hit.id}"

    @property
    def too_large(self) -> bool:
        """True when one node of this flavor does not hold it."""
        return self.gpus is None and (self.closely or self.weights_gib is not None)

    @property
    def covered(self) -> bool:
        """True when the quota takes as many GPUs as hold it."""
        return self.gpus is not None and self.left is not None and self.gpus <= self.left


@dataclass(frozen=True)
class Answer:
    """What came of a search: hits, or the words for people why there are none."""

    hits: tuple[Hit, ...] = ()
    trouble: str = ""


def search(words: str) -> Answer:
    """Ask the hub, as anybody, through the outbound door; nothing is stored. InvalidError for words that are none."""
    clean = line_of(words, field="hub", longest=LONGEST, required=False).removeprefix("hf://")
    if len(clean) < SHORTEST:
        return Answer()
    reply = source_checks.hub_get()(search_path(clean))
    hits = hits_of(reply)
    if hits is None:
        said = f"status {reply.status}" if reply.status else (reply.error or "no answer")
        return Answer(trouble=f"The hub could not be searched ({said[:120]}). What you typed is kept; try again soon.")
    return Answer(tuple(hits))


def judged(
    hits: Iterable[Hit],
    flavor: Flavor | None,
    left: int | None,
    *,
    version: str = "",
    beside: Mapping[str, ArgValue] | None = None,
) -> list[Judged]:
    """Each hit beside a flavor (two queries); of shapes that are known from before the estimate speaks.

    It speaks of an engine of this vLLM version, with the flags `beside`.
    """
    rows = list(hits)
    known = _known([f"hf://{hit.id}" for hit in rows])
    seat = _Seat(flavor, left, defaults_of(version) if version else NEWEST, beside or {})
    return [_judge(hit, known.get(f"hf://{hit.id}"), seat) for hit in rows]


@dataclass(frozen=True)
class _Seat:
    """What hits are held against."""

    flavor: Flavor | None
    left: int | None
    defaults: Defaults
    beside: Mapping[str, ArgValue]


def _known(uris: list[str]) -> dict[str, ModelFacts]:
    found = {row.uri: row.model for row in CatalogEntry.objects.filter(uri__in=uris) if row.model is not None}
    for uri, facts in ModelCheck.objects.filter(uri__in=uris, revision="").values_list("uri", "facts"):
        if "id" in facts:
            found[uri] = ModelFacts.from_json(facts)
    return {uri: model for uri, model in found.items() if model.has_shape and weights_bytes(model)}


def _judge(hit: Hit, model: ModelFacts | None, seat: _Seat) -> Judged:
    size = (weights_bytes(model) if model else None) or hit.weights_bytes
    gib = size / GIB if size else None
    flavor, left = seat.flavor, seat.left
    if flavor is None:
        return Judged(hit, gib)
    gpu = gpu_facts(flavor.product, flavor.memory_mib, float(flavor.compute_capability))
    if model is not None:
        choice = Choice(flavor.slug, gpu, flavor.gpus_per_node)
        preset = next(iter(propose(model, [choice], seat.defaults, seat.beside)), None)
        return Judged(hit, gib, preset.gpus if preset else None, preset, closely=True, left=left)
    # Weights alone: fewer GPUs than these cannot do; whether these do is looked at once the model is chosen.
    least = ceil(gib / (gpu.visible_gib * seat.defaults.utilization)) if gib and gpu.visible_gib else None
    return Judged(hit, gib, least if least and least <= flavor.gpus_per_node else None, left=left)
