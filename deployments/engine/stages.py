"""Stages of a model (pipeline-parallel-size): the layers of each, and what the first and the last have besides."""

from __future__ import annotations


def layers_of_stages(layers: int, stages: int) -> list[int]:
    """Layers of each stage; what is left over goes to those before the last (vLLM: `get_pp_indices`)."""
    found = [layers // stages] * stages
    for at in range(2, layers % stages + 2):
        found[-at] += 1
    return found


def heaviest_stage(body: float, table: float, layers: int, stages: int) -> float:
    """Bytes of the stage that has most: of `body` for all layers, with a `table` on the first stage and on the last.

    The first has the embeddings, and the last the output layer, which is a copy of them where both are one.
    """
    counts = layers_of_stages(layers, stages)
    ends = {0, stages - 1}
    return max(body * count / layers + (table if at in ends else 0.0) for at, count in enumerate(counts))
