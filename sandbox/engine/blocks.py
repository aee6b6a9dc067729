"""The KV cache as vLLM keeps it: blocks, shared by prefix, kept until their room is needed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass
class Holding:
    """The blocks of one request: hashed ones may be shared, the others are its own."""

    hashed: list[int] = field(default_factory=list)
    own: int = 0

    @property
    def blocks(self) -> int:
        """All blocks held."""
        return len(self.hashed) + self.own


class BlockPool:
    """Counts blocks. A hash stands for a full block and everything before it."""

    def __init__(self, blocks: int, *, caching: bool = True) -> None:
        self.total = blocks
        self.caching = caching
        self._shared: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._own = 0

    @property
    def free(self) -> int:
        """Blocks that a request could get, idle cached ones included."""
        return self.total - self._own - len(self._shared)

    @property
    def usage(self) -> float:
        """Share of the blocks held by requests."""
        return 1.0 - self.free / self.total if self.total else 0.0

    def cached(self, hashes: list[int]) -> int:
        """How many leading blocks are in the cache."""
        if not self.caching:
            return 0
        found = 0
        for value in hashes:
            if value not in self._shared and value not in self._idle:
                break
            found += 1
        return found

    def start(self, hashes: list[int], blocks: int) -> Holding | None:
        """Take `blocks` for a prompt, sharing what is cached; None when there is not room enough."""
        hashes = hashes[:blocks] if self.caching else []
        fresh = [value for value in hashes if value not in self._shared]
        needed = len(fresh) + blocks - len(hashes)
        if needed > self.free:
            return None
        for value in hashes:
            self._shared[value] = self._shared.get(value, 0) + 1
            self._idle.pop(value, None)
        holding = Holding(list(hashes))
        self._take(holding, blocks - len(hashes))
        self._evict()
        return holding

    def grow(self, holding: Holding, blocks: int) -> bool:
        """Bring a holding to `blocks`; False when there is not room enough."""
        more = blocks - holding.blocks
        if more <= 0:
            return True
        if more > self.free:
            return False
        self._take(holding, more)
        self._evict()
        return True

    def release(self, holding: Holding) -> None:
        """Give everything back; hashed blocks stay findable until their room is needed."""
        self._own -= holding.own
        for value in reversed(holding.hashed):
            left = self._shared[value] - 1
            if left:
                self._shared[value] = left
            else:
                del self._shared[value]
                self._idle[value] = None
        holding.hashed, holding.own = [], 0
        self._evict()

    def _take(self, holding: Holding, blocks: int) -> None:
        holding.own += blocks
        self._own += blocks

    def _evict(self) -> None:
        while len(self._idle) > self.free:
            self._idle.popitem(last=False)
