"""What stands beside the request form: whether it fits, other ways to run it, quota and who decides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deployments import preflight
from deployments.engine.facts import ModelFacts
from deployments.engine.weights import weights_bytes
from deployments.forms.engine_fields import FIELDS
from deployments.forms.roles import ROLES
from deployments.services import unknown_models
from deployments.services.asks import OVER_QUOTA, Ask
from deployments.services.holds import Usage
from deployments.services.requests import PreflightResult
from deployments.services.text import gpus_in_words
from deployments.sources.formats import MEANING, WeightFormat
from deployments.spec import DeploymentSpec, Role
from deployments.views.fits import RoleFit, fits_of, per_replica
from deployments.views.numbers import Asked, asked_for
from deployments.views.ways import Way, other_ways

IMPOSSIBLE = frozenset({"heads_not_divisible", "stages_over_layers", "gpus_per_node"})
SET_BY_WAYS = frozenset({"flavor", "kv_cache_dtype", "tensor_parallel_size"})
SET_BY_WAYS |= {f"{role}_tensor_parallel_size" for role in ROLES}
REPLICAS = frozenset({"replicas_min", "replicas_max"})
ROLE_REPLICAS = frozenset(f"{role}_{name}" for role in ROLES for name in REPLICAS)
FIT_FIELDS = SET_BY_WAYS | {"args", *(f"{role}_args" for role in ROLES)}
FIT_FIELDS |= {field.name for field in FIELDS if field.fits}


@dataclass(frozen=True)
class Advice:
    """Everything in the side panel; empty before a model is named."""

    fits: tuple[RoleFit, ...] = ()
    model: ModelFacts | None = None
    weights_bytes: int | None = None
    # GPUs of a replica, and the same in words; of two roles in words alone.
    gpus: int = 0
    per_replica: str = ""
    roles: bool = False
    flavor: str = ""
    numbers: tuple[Asked, ...] = ()
    ways: list[Way] = field(default_factory=list)
    quota: Usage | None = None
    # What is charged: GPUs at the most replicas and, among them, those that only a rollout takes.
    needed: int = 0
    surge: int = 0
    approval: str = ""
    asks: tuple[Ask, ...] = ()
    impossible: bool = False
    unclear: bool = False
    gated: bool = False
    replicas_wrong: bool = False

    @property
    def known(self) -> bool:
        """True when there is something to say."""
        return bool(self.fits) or self.model is not None or bool(self.approval)

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
    numbers, model = _completed(result, spec, typed or {})
    known = replace(result.known, model=model)
    estimates = result.fits
    if spec is not None and model is not None and None in estimates.values():
        estimates = preflight.estimates(spec, known)
    # A split that cannot be made, or a share of 90, has no memory to speak of.
    fits = fits_of(spec, estimates) if spec and not impossible and not unclear else ()
    roles = spec is not None and Role.BOTH not in spec.by_role()
    chosen = known.flavors.get(spec.flavor) if spec else None
    sizer = preflight.sizer(spec, known) if spec and not unclear - SET_BY_WAYS else None
    return Advice(
        fits=fits,
        model=result.model_facts,
        weights_bytes=weights_bytes(model) if model else None,
        gpus=spec.gpus_per_replica if spec and not roles else 0,
        per_replica=per_replica(spec) if spec else "",
        roles=roles,
        flavor=chosen.label if chosen else "",
        numbers=numbers,
        ways=other_ways(sizer, spec, known.flavors, priced=not replicas_wrong) if sizer and spec else [],
        quota=result.quota,
        needed=result.gpus + result.surge,
        surge=result.surge,
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
