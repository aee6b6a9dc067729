"""Every wish there can be: each kind of source with each strategy on each GPU of the demo, and what becomes of it.

One table for both halves of a promise: what is refused is followed by `deployments/test_every_wish.py`, what is
admitted is run by `scenarios/aside/test_every_wish_runs.py`. Where a source lies each of them says for its own world.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations, product

from portal.management.demo import DATA

PLAN = json.loads(DATA.read_text(encoding="utf-8"))
FLAVORS: list[str] = [row["slug"] for row in PLAN["flavors"]]
STRATEGIES: dict[str, dict[str, str]] = {
    "standard": {},
    "disaggregated": {"strategy": "disaggregated"},
    "oci-volume": {"strategy": "oci-volume"},
    "multi-node": {"nodes": "2", "args": "--pipeline-parallel-size=2"},
}
EVERYWHERE = frozenset({"standard", "disaggregated", "multi-node"})
# By kind of source the strategies that take it as it stands; with any other it is refused.
SOURCES: dict[str, frozenset[str]] = {
    "hf": EVERYWHERE,
    "hf fetched ahead": EVERYWHERE,
    "hf gated": frozenset(),
    "hf gated, with its token": EVERYWHERE,
    "hf of 70B": frozenset({"multi-node"}),
    "hf of 405B": frozenset(),
    "hf of GGUF": frozenset(),
    "s3": EVERYWHERE,
    "s3 fetched ahead": EVERYWHERE,
    "s3 GGUF": frozenset({"standard"}),
    "gs": frozenset({"standard"}),
    "pvc": EVERYWHERE,
    "pvc GGUF": frozenset({"standard"}),
    "oci": frozenset({"disaggregated", "oci-volume", "multi-node"}),
    "oci by tag": frozenset(),
    "https": frozenset({"standard"}),
    "https GGUF": frozenset({"standard"}),
    "mlflow": EVERYWHERE,
    "mlflow to gs": frozenset({"standard"}),
    "mlflow, none": frozenset(),
    "model registry": EVERYWHERE,
}
# Of these the engine of the newest version reads none, and the older one all.
GGUFS = {"s3 GGUF", "pvc GGUF", "https GGUF"}
OLDER = "vllm-0.20.0"
# What is known of models that large.
LARGE = {
    "weights_bytes": 141_107_412_992,
    "params": 70_553_706_496,
    "layers": 80,
    "heads": 64,
    "kv_heads": 8,
    "head_dim": 128,
    "hidden": 8192,
    "intermediate": 28_672,
    "vocab": 128_256,
    "max_position": 131_072,
}
GIANT = {**LARGE, "weights_bytes": 811_706_974_208, "params": 405_853_388_800, "layers": 126, "heads": 128}
# Two GPUs hold it where each holds half.
ONLY_ON = {"hf of 70B": {"h100-80gb"}}


@dataclass(frozen=True)
class Wish:
    """One cell of the product."""

    source: str
    strategy: str
    flavor: str

    def __str__(self) -> str:
        return f"{self.source}, {self.strategy} on {self.flavor}"

    @property
    def admitted(self) -> bool:
        """Whether the request form takes it as it stands."""
        return self.strategy in SOURCES[self.source] and self.flavor in ONLY_ON.get(self.source, {self.flavor})

    @property
    def gpus(self) -> int:
        """The fewest that it runs on: where there are two roles or two nodes, one of each."""
        return 2 if self.strategy in ("disaggregated", "multi-node") else 1

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """What two of its parts are together."""
        return frozenset(combinations((self.source, self.strategy, self.flavor), 2))

    def typed(self, source: Mapping[str, str], **more: str) -> dict[str, str]:
        """What a person types for it, where the source is given by the fields of the form that name it."""
        wish = {"team": "search", "name": "chat", "flavor": self.flavor, "max_model_len": "8192"}
        wish |= {"profile": OLDER} if self.source in GGUFS else {}
        return wish | STRATEGIES[self.strategy] | source | more


WISHES = [Wish(*parts) for parts in product(SOURCES, STRATEGIES, FLAVORS)]


def covering(wishes: Iterable[Wish]) -> list[Wish]:
    """A few of the wishes, always the same, in which every pair of parts stands that stands in any of them."""
    left = list(wishes)
    open_pairs = {pair for wish in left for pair in wish.pairs}
    chosen = []
    while open_pairs:
        best = max(left, key=lambda wish: len(wish.pairs & open_pairs))  # of equals the first
        chosen.append(best)
        open_pairs -= best.pairs
    return chosen
