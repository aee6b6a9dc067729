"""What an engine itself reports at its start: the measured counterpart of the estimate."""

from __future__ import annotations

import re
from dataclasses import dataclass

NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
LOADED = re.compile(rf"Model loading took (?P<gib>{NUMBER}) Gi?B(?: memory)?(?: and (?P<seconds>{NUMBER}) seconds)?")
AVAILABLE = re.compile(rf"Available KV cache memory: (?P<gib>-?{NUMBER}) GiB")
TOKENS = re.compile(r"KV cache size: (?P<tokens>\d[\d,]{0,17}) tokens")
CONCURRENCY = re.compile(
    rf"Maximum concurrency for (?P<length>\d[\d,]{{0,17}}) tokens per request: (?P<times>{NUMBER})x"
)
GRAPHS = re.compile(rf"Graph capturing finished in (?P<seconds>{NUMBER}) secs?, took (?P<gib>{NUMBER}) GiB")
# One sentence of older engines: "model weights take 14.96GiB; non_torch_memory takes 0.10GiB; PyTorch activation …".
TAKES = re.compile(
    rf"weights take (?P<weights>{NUMBER})GiB; non_torch_memory takes (?P<other>-?{NUMBER})GiB; "
    rf"PyTorch activation peak memory takes (?P<peak>{NUMBER})GiB; .{{0,80}}?KV Cache is (?P<kv>-?{NUMBER})GiB"
)


@dataclass(frozen=True)
class Measured:
    """Figures of one start, per GPU; None where the log does not say."""

    weights_gib: float | None = None
    load_seconds: float | None = None
    kv_gib: float | None = None
    kv_tokens: int | None = None
    max_model_len: int | None = None
    concurrency: float | None = None
    graphs_gib: float | None = None
    activation_gib: float | None = None
    non_torch_gib: float | None = None

    @property
    def complete(self) -> bool:
        """True once the engine has sized its KV cache."""
        return self.kv_tokens is not None


def measured(log: str) -> Measured:
    """The figures in a log; of several ranks or starts the last ones count."""
    loaded, available, tokens = _last(LOADED, log), _last(AVAILABLE, log), _last(TOKENS, log)
    concurrency, graphs, takes = _last(CONCURRENCY, log), _last(GRAPHS, log), _last(TAKES, log)
    return Measured(
        weights_gib=float(loaded["gib"]) if loaded else float(takes["weights"]) if takes else None,
        load_seconds=float(loaded["seconds"]) if loaded and loaded["seconds"] else None,
        kv_gib=float(available["gib"]) if available else float(takes["kv"]) if takes else None,
        kv_tokens=_whole(tokens["tokens"]) if tokens else None,
        max_model_len=_whole(concurrency["length"]) if concurrency else None,
        concurrency=float(concurrency["times"]) if concurrency else None,
        graphs_gib=float(graphs["gib"]) if graphs else None,
        activation_gib=float(takes["peak"]) if takes else None,
        non_torch_gib=float(takes["other"]) if takes else None,
    )


def _last(pattern: re.Pattern[str], log: str) -> re.Match[str] | None:
    return max(pattern.finditer(log), key=lambda match: match.start(), default=None)


def _whole(text: str) -> int:
    return int(text.replace(",", ""))
