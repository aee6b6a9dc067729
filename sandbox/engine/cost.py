"""How long one step of the engine takes on a GPU, and what it moves and computes.

A roofline: the shares and latencies below are assumptions in the range that is usual for vLLM, not measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.engine.args import EngineArgs
from sandbox.engine.memory import compute_dtype, kv_bytes_per_token
from sandbox.engine.shape import DTYPE_BYTES, ModelShape
from sandbox.nodes import Gpu

BANDWIDTH_SHARE = 0.72  # of the datasheet's, as decode kernels reach it
FLOPS_SHARE = 0.5  # of the dense peak, as prefill reaches it
STEP_SECONDS = 0.0012  # scheduling, sampling, launch
EAGER_SECONDS = 0.003  # more without CUDA graphs
ALLREDUCE_SECONDS = 0.000011  # latency of one, two per layer


@dataclass(frozen=True)
class Step:
    """One engine step: wall time, and per GPU the operations, bytes read and bytes written."""

    seconds: float
    flops: float
    read: float
    written: float


class CostModel:
    """Roofline of one model on one kind of GPU."""

    def __init__(self, args: EngineArgs, shape: ModelShape, gpu: Gpu) -> None:
        self.ranks = args.tensor_parallel * args.pipeline_parallel
        self.tensor_parallel = args.tensor_parallel
        self.shape = shape
        self.kv_bytes = kv_bytes_per_token(args, shape)
        self.weights = shape.weight_bytes / self.ranks * shape.active_parameters / max(1, shape.parameters)
        self.all_weights = shape.weight_bytes / self.ranks
        self.bandwidth = gpu.bandwidth * BANDWIDTH_SHARE
        eight_bit = (shape.quantization or args.quantization or "") in ("fp8", "compressed-tensors", "modelopt")
        self.flops = (gpu.flops_8 if eight_bit else gpu.flops_16) * FLOPS_SHARE
        self.link = gpu.link
        self.width = DTYPE_BYTES.get(compute_dtype(args, shape), 2)
        self.fixed = STEP_SECONDS + (EAGER_SECONDS if args.enforce_eager else 0.0)

    def step(self, new_tokens: int, sequences: int, context_tokens: int) -> Step:
        """Cost of a step over `new_tokens` of `sequences`, which together hold `context_tokens` in the cache."""
        shape = self.shape
        attention = 4.0 * shape.layers * shape.heads * shape.head_dim * new_tokens * context_tokens / max(1, sequences)
        flops = (2.0 * shape.active_parameters * new_tokens + attention) / self.ranks
        # A mixture of experts reads more of its weights the more tokens there are.
        weights = min(self.all_weights, self.weights * max(1.0, new_tokens**0.7))
        read = weights + self.kv_bytes * context_tokens
        written = self.kv_bytes * new_tokens
        seconds = self.fixed + max(flops / self.flops, (read + written) / self.bandwidth)
        if self.tensor_parallel > 1:
            moved = 2.0 * shape.layers * new_tokens * shape.hidden * self.width
            seconds += 2 * shape.layers * ALLREDUCE_SECONDS + moved / self.link
        return Step(seconds, flops, read, written)
