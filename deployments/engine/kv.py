"""The KV cache in bytes: of a token, of a request, and what a given memory holds of them.

Everything is per GPU. vLLM hands out blocks of one size from one pool: layers that keep the same tokens take theirs
together; where layers keep different things, each kind is put into groups of equally many layers, and a request takes
blocks for each group (v1/core/kv_cache_utils.py: `get_kv_cache_groups`, `get_max_concurrency_for_kv_cache_config`).
Layers without attention (linear attention, Mamba) keep a constant that is left out here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from deployments.engine.defaults import NEWEST, Defaults
from deployments.engine.facts import ModelFacts
from deployments.engine.kv_layers import Keeps, Layers, layers_of, whole
from deployments.spec import ArgValue

BLOCK = 16
# More tokens than any context has.
MANY = 10**12
# Methods whose proposals the GPU makes by itself, so that the next step can be planned ahead.
PLANNED = frozenset({"mtp", "eagle", "eagle3", "draft_model", "ngram_gpu"})


@dataclass(frozen=True)
class Group:
    """Groups of layers that keep the same: how many, the tokens in one of their blocks, and what they keep."""

    count: int
    block: int
    layers: Layers

    def blocks(self, length: int, flying: int) -> int:
        """Blocks of one request of `length` tokens; `flying` are the tokens of the steps under way."""
        reach, block = self.layers.reach, self.block
        if self.layers.keeps is Keeps.WINDOW:
            # A window may begin within a block.
            return self.count * (math.ceil(min(reach - 1 + flying, length) / block) + 1)
        kept = min(reach + flying, length) if self.layers.keeps is Keeps.CHUNK else length
        return self.count * math.ceil(kept / block)


@dataclass(frozen=True)
class Pool:
    """The blocks of one GPU: the bytes of each, the groups of layers that take them, and how the engine counts them.

    `token_bytes` are those of one token over all layers of the rank that has most; `block` is what a block of the
    smallest kind holds; `flying` are the tokens of all steps that may be under way at once.
    """

    token_bytes: int
    block_bytes: float
    groups: tuple[Group, ...]
    block: int
    flying: int
    by_requests: bool = True

    @property
    def alike(self) -> bool:
        """True where all layers keep the same tokens."""
        return len(self.groups) <= 1

    def request(self, length: int) -> float:
        """Bytes of one request of `length` tokens, in whole blocks."""
        return self.block_bytes * self._blocks(length)

    def tokens(self, available: float, length: int) -> int:
        """Tokens that `available` bytes hold, as the engine reports them.

        Where layers keep different things, these are the tokens of the requests of `length` that fit; older engines
        count what each group of layers could hold for itself.
        """
        if available <= 0 or not self.groups:
            return 0
        blocks = int(available // self.block_bytes)
        if self.alike and self.groups[0].layers.keeps is Keeps.ALL:
            return blocks * self.block
        if self.by_requests:
            return int(blocks / self._blocks(length) * length)
        return blocks // sum(group.count for group in self.groups) * self.block

    def longest(self, available: float, most: int) -> int:
        """The largest context of one request in `available` bytes, in whole blocks and at most `most`."""
        blocks = int(max(0.0, available) // self.block_bytes) if self.block_bytes else 0
        if self.groups and not blocks:
            return 0
        growing = [group for group in self.groups if group.layers.keeps is Keeps.ALL]
        others = [group for group in self.groups if group.layers.keeps is not Keeps.ALL]
        # Beyond some length only these need more; what the others need stays what it is.
        kept = sum(group.blocks(MANY, self.flying) for group in others)
        if len(growing) == 1 and blocks > kept:
            longest = (blocks - kept) // growing[0].count * growing[0].block
            if longest >= max((group.layers.reach + self.flying for group in others), default=0):
                return min(longest, most) // self.block * self.block
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if self._blocks(middle) <= blocks:
                low = middle
            else:
                high = middle - 1
        return low // self.block * self.block

    def _blocks(self, length: int) -> int:
        return sum(group.blocks(length, self.flying) for group in self.groups)


def pool_of(model: ModelFacts, args: Mapping[str, ArgValue], batch: int = 0, defaults: Defaults = NEWEST) -> Pool:
    """The blocks that vLLM makes for the layers of this model; `batch` tokens are one step."""
    kinds, block = layers_of(model, args), block_of(args)
    stages, flying = whole(args, "pipeline-parallel-size", 1), in_flight(args, batch, defaults)
    token = sum(math.ceil(kind.count / stages) * kind.each for kind in kinds)
    if len({(kind.keeps, kind.reach) for kind in kinds}) <= 1:
        # All need the same number of tokens: one group, whatever each of them keeps of a token.
        one = tuple(Group(1, block, kind) for kind in kinds[:1])
        return Pool(round(token), block * token, one, block, flying, defaults.tokens_by_requests)
    page = max(kind.each for kind in kinds)
    counts = [kind.count for kind in kinds]
    size = max(counts) if max(counts) < min(counts) * defaults.group_slack else min(counts)
    groups = tuple(Group(math.ceil(kind.count / size), _longer(block, page, kind.each), kind) for kind in kinds)
    each = block * page * math.ceil(size / stages)
    return Pool(round(token), each, groups, block, flying, defaults.tokens_by_requests)


def in_flight(args: Mapping[str, ArgValue], batch: int, defaults: Defaults = NEWEST) -> int:
    """Tokens of all steps that may be under way at once, `batch` of them in each.

    As `VllmConfig.max_in_flight_tokens` (config/vllm.py): a step for each stage, and one more that is planned ahead.
    """
    if not defaults.windows_in_flight:
        return batch
    method, ahead = args.get("spec-method"), args.get("async-scheduling")
    if ahead is None:
        ahead = args.get("runner") != "pooling" and (method is None or method in PLANNED)
    return batch * (whole(args, "pipeline-parallel-size", 1) + (ahead is True))


def block_of(args: Mapping[str, ArgValue]) -> int:
    """Tokens in one block of the cache."""
    return whole(args, "block-size", BLOCK)


def _longer(block: int, page: float, each: float) -> int:
    """Tokens in a block of layers that keep less of each: as many times more as make it as large, else the same."""
    times = page / each
    return block * int(times) if times == int(times) else block
