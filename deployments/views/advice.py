"""What stands beside the request form: whether it fits, other ways to run it, quota and who decides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments import preflight
from deployments.engine.defaults import Defaults, defaults_of
from deployments.engine.facts import ModelFacts
from deployments.engine.gpus import FP8_CAPABILITY
from deployments.engine.options import splits, splits_beside, splits_by
from deployments.engine.sizing import Fit, FitState, UnknownShapeError, fit
from deployments.engine.weights import weights_bytes
from deployments.forms.engine_fields import FIELDS
from deployments.forms.roles import ROLES
from deployments.preflight import Facts
from deployments.preflight.facts import FlavorFacts
from deployments.services import unknown_models
from deployments.services.asks import OVER_QUOTA, Ask
from deployments.services.holds import Usage
from deployments.services.requests import PreflightResult
from deployments.services.text import gpus_in_words
from deployments.sources.formats import MEANING, WeightFormat
from deployments.spec import DeploymentSpec
from deployments.views.numbers import Asked, asked_for

IMPOSSIBLE = frozenset({"heads_not_divisible", "stages_over_layers", "gpus_per_node"})
SET_BY_WAYS = frozenset({"flavor", "tensor_parallel_size", "kv_cache_dtype"})
REPLICAS = frozenset({"replicas_min", "replicas_max"})
ROLE_REPLICAS = frozenset(f"{role}_{name}" for role in ROLES for name in REPLICAS)
FIT_FIELDS = SET_BY_WAYS | {"decode_tensor_parallel_size", "decode_args", "args"}
FIT_FIELDS |= {field.name for field in FIELDS if field.fits}
HOURS_A_MONTH = 730
WORDS = {
    FitState.FITS: ("fits", "green", "dot"),
    FitState.TIGHT: ("tight", "yellow", "triangle"),
    FitState.NO: ("does not fit", "red", "cross"),
}
# Parts of the bar: the colour, what people call them, and the part of the estimate.
BAR = (
    ("weights", "weights", "weights"),
    ("act", "activations", "activation"),
    ("over", "overhead", "overhead"),
    ("kv", "KV cache", "kv"),
    ("left", "left free", "left"),
)


@dataclass(frozen=True)
class Way:
    """Another way to run the same model: what to set, whether it fits, and what it costs a month."""

    label: str
    word: str
    tone: str
    shape: str
    at_once: int
    free: int | None
    month: float | None
    sets: str = ""
    current: bool = False


@dataclass(frozen=True)
class Advice:
    """Everything in the side panel; empty before a model is named."""

    fit: Fit | None = None
    model: ModelFacts | None = None
    weights_bytes: int | None = None
    word: str = ""
    tone: str = "grey"
    shape: str = "ring"
    gpus: int = 0
    flavor: str = ""
    parts: list[dict[str, Any]] = field(default_factory=list)
    numbers: tuple[Asked, ...] = ()
    ways: list[Way] = field(default_factory=list)
    quota: Usage | None = None
    needed: int = 0
    approval: str = ""
    asks: tuple[Ask, ...] = ()
    impossible: bool = False
    unclear: bool = False
    gated: bool = False
    replicas_wrong: bool = False

    @property
    def known(self) -> bool:
        """True when there is something to say."""
        return self.fit is not None or self.model is not None or bool(self.approval)

    @property
    def stored_as(self) -> str:
        """How the weights are stored, and what that means for who serves them; empty where nobody knows."""
        return MEANING.get(WeightFormat(self.model.format), "") if self.model and self.model.format else ""

    @property
    def waits(self) -> str:
        """What it waits for once it is approved, as far as the quota is too small; empty where it starts at once."""
        limit = self.quota.limit if self.quota else 0
        if not any(ask.code == OVER_QUOTA for ask in self.asks):
            return ""
        if self.needed <= limit:
            return "Approved, it waits in line until the team has GPUs free."
        return f"Approved, it waits for quota: {gpus_in_words(self.needed - limit)} more than the team may hold."

    @property
    def reasons(self) -> list[Ask]:
        """Why somebody decides, without what `approval` says already."""
        return [ask for ask in self.asks if ask.message != self.approval]

    @property
    def bar_label(self) -> str:
        """The bar in words."""
        return "GPU memory: " + ", ".join(f"{part['name']} {part['value']:.3g} GiB" for part in self.parts)


def advice_of(
    result: PreflightResult,
    spec: DeploymentSpec | None,
    *,
    wrong: Collection[str] = (),
    typed: Mapping[str, Any] | None = None,
) -> Advice:
    """The side panel for one answer of preflight; `wrong` names the form's fields that hold mistakes.

    `typed` are the form's values: numbers of the model that nobody could look up stand among them. No query.
    """
    impossible = any(finding.code in IMPOSSIBLE for finding in result.findings)
    unclear = FIT_FIELDS.intersection(wrong)
    replicas_wrong = not (REPLICAS | ROLE_REPLICAS).isdisjoint(wrong)
    # Of two roles decode is measured: it holds the KV cache while answers are made.
    *_, own = spec.by_role().values() if spec else [None]
    numbers, model = _completed(result, spec, typed or {})
    rows = result.flavors
    estimate = result.fit
    if estimate is None and spec is not None and model is not None:
        estimate = preflight.estimate(spec, Facts(flavors=rows, model=model))
    if impossible or unclear:
        estimate = None  # A split that cannot be made, or a share of 90, has no memory to speak of.
    word, tone, shape = WORDS[estimate.state] if estimate else ("", "grey", "ring")
    chosen = rows.get(spec.flavor) if spec else None
    return Advice(
        fit=estimate,
        model=result.model_facts,
        weights_bytes=weights_bytes(model) if model else None,
        word=word,
        tone=tone,
        shape=shape,
        gpus=own.gpus_per_replica if own else 0,
        flavor=chosen.label if chosen else "",
        parts=bar_parts(estimate) if estimate else [],
        numbers=numbers,
        ways=other_ways(model, spec, rows, priced=not replicas_wrong)
        if model and spec and own is spec and not unclear - SET_BY_WAYS
        else [],
        quota=result.quota,
        needed=result.gpus,
        approval=result.approval,
        asks=result.asks,
        impossible=impossible,
        unclear=bool(unclear),
        gated=any(finding.code == "source_gated" for finding in result.findings),
        replicas_wrong=replicas_wrong,
    )


def _completed(
    result: PreflightResult, spec: DeploymentSpec | None, typed: Mapping[str, Any]
) -> tuple[tuple[Asked, ...], ModelFacts | None]:
    """The numbers to ask for, and the model with those that somebody typed; None where there is none to ask about."""
    model = result.model_facts
    wrong = any(finding.is_error and finding.field == "source_uri" for finding in result.findings)
    if model is None and spec is not None and not wrong:
        model = unknown_models.as_known(spec, None, result.check)
    return asked_for(model, typed) if model is not None else ((), None)


def bar_parts(estimate: Fit) -> list[dict[str, Any]]:
    """The memory of one GPU from left to right: what the engine takes, the KV cache, and what vLLM leaves alone."""
    return [
        {"kind": kind, "name": name, "value": estimate.bar[part], "label": f"{name}: {estimate.bar[part]:.3g} GiB"}
        for kind, name, part in BAR
    ]


def other_ways(
    model: ModelFacts, spec: DeploymentSpec, rows: Mapping[str, FlavorFacts], *, priced: bool = True
) -> list[Way]:
    """The same model on every flavor, by the fewest GPUs that hold it; and with a smaller KV cache.

    `priced` is False while the number of replicas is not known. A split that cannot be made is no way.
    """
    defaults = defaults_of(spec.engine.profile.removeprefix("vllm-"))
    ways: list[Way] = []
    for slug, row in rows.items():
        if not row.enabled:
            continue
        asked = spec.tensor_parallel
        possible = slug == spec.flavor and splits_by(model, asked) and spec.gpus_per_replica <= row.gpus_per_node
        size = asked if possible else _fewest(model, spec, row, defaults)
        for cache in ("", "fp8") if row.compute_capability >= FP8_CAPABILITY else ("",):
            if cache and (spec.engine.args.get("kv-cache-dtype") or slug != spec.flavor):
                continue
            price = row.price_per_hour if priced else None
            way = _way(model, spec, row, size, cache, price, defaults)
            if way:
                ways.append(way)
    return sorted(ways, key=lambda way: (not way.current, way.word == "does not fit", way.month or 0))[:7]


def _fewest(model: ModelFacts, spec: DeploymentSpec, row: FlavorFacts, defaults: Defaults) -> int:
    """The smallest tensor-parallel size that fits on this flavor; the largest possible where none does."""
    sizes = splits(model, max(1, row.gpus_per_node // splits_beside(spec.engine.args))) or [1]
    for size in sizes:
        try:
            split = {**spec.engine.args, "tensor-parallel-size": size}
            if fit(model, row.gpu, split, defaults=defaults).state is not FitState.NO:
                return size
        except UnknownShapeError:
            return 1
    return sizes[-1]


def _way(
    model: ModelFacts,
    spec: DeploymentSpec,
    row: FlavorFacts,
    size: int,
    cache: str,
    price: float | None,
    defaults: Defaults,
) -> Way | None:
    args = {**spec.engine.args, "tensor-parallel-size": size, **({"kv-cache-dtype": cache} if cache else {})}
    try:
        estimate = fit(model, row.gpu, args, defaults=defaults)
    except UnknownShapeError:
        return None
    if estimate.gpus > max(1, row.gpus_per_node):
        return None
    current = row.slug == spec.flavor and size == spec.tensor_parallel and not cache
    sets = {"flavor": row.slug, "tensor_parallel_size": str(size), **({"kv_cache_dtype": cache} if cache else {})}
    word, tone, shape = WORDS[estimate.state]
    return Way(
        label=f"{estimate.gpus} × {row.label}" + (", fp8 KV" if cache else ""),
        word=word,
        tone=tone,
        shape=shape,
        at_once=int(estimate.at_once) if estimate.state is not FitState.NO else 0,
        free=row.free,
        month=None if price is None else price * estimate.gpus * spec.replicas.max * HOURS_A_MONTH,
        sets="" if current else "&".join(f"{name}={value}" for name, value in sets.items()),
        current=current,
    )
