"""How a wish sits in GPU memory, as people see it: a bar for what each role runs, and a word for how it fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.engine.sizing import Fit, FitState
from deployments.preflight.roles import TITLES
from deployments.services.text import gpus_in_words
from deployments.spec import DeploymentSpec, Role

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
class RoleFit:
    """What one role runs on one of its GPUs; `title` names the role, and is empty where there is only one.

    `gpus` are those of a replica, which spans `nodes` nodes.
    """

    title: str
    fit: Fit
    gpus: int
    nodes: int = 1

    @property
    def word(self) -> str:
        """How it fits, in a word."""
        return WORDS[self.fit.state][0]

    @property
    def tone(self) -> str:
        """The colour of that word."""
        return WORDS[self.fit.state][1]

    @property
    def shape(self) -> str:
        """The shape beside it."""
        return WORDS[self.fit.state][2]

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The memory of one GPU from left to right: what the engine takes, the KV cache, and what vLLM leaves alone."""
        bar = self.fit.bar
        return [
            {"kind": kind, "name": name, "value": bar[part], "label": f"{name}: {bar[part]:.3g} GiB"}
            for kind, name, part in BAR
        ]

    @property
    def bar_label(self) -> str:
        """The bar in words."""
        of = f"GPU memory of {self.title.lower()}" if self.title else "GPU memory"
        return f"{of}: " + ", ".join(f"{part['name']} {part['value']:.3g} GiB" for part in self.parts)


def fits_of(spec: DeploymentSpec, estimates: Mapping[Role, Fit | None]) -> tuple[RoleFit, ...]:
    """The bars of a wish: one for each role of which the estimate is known."""
    roles = spec.by_role()
    return tuple(
        RoleFit(TITLES.get(role, ""), estimate, roles[role].gpus_per_replica, spec.nodes)
        for role, estimate in estimates.items()
        if estimate is not None
    )


def per_replica(spec: DeploymentSpec) -> str:
    """How many GPUs a replica takes, of each role where there are two."""
    roles = spec.by_role()
    if Role.BOTH in roles:
        over = f" on {spec.nodes} nodes" if spec.nodes > 1 else ""
        return f"{gpus_in_words(spec.gpus_per_replica)} per replica{over}"
    each = ", ".join(f"{role} {gpus_in_words(own.gpus_per_replica)}" for role, own in roles.items())
    return f"{each[0].upper()}{each[1:]} per replica"
