"""Models of which not enough is known to say whether they fit: which numbers are missing, and the model with them.

Numbers that somebody gives serve the estimate alone: they are kept nowhere, and a request is sent without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from deployments.engine.facts import ModelFacts
from deployments.engine.sizing import missing_numbers
from deployments.sources import SourceCheck, SourceCode
from deployments.spec import DeploymentSpec

# Whatever can be missing, and the most that is taken for any of it.
MOST = 10**15
NUMBERS = ("weights_bytes", "layers", "heads", "kv_heads", "head_dim")


def as_known(spec: DeploymentSpec, model: ModelFacts | None, check: SourceCheck | None) -> ModelFacts | None:
    """What is known of the model of a wish, however little; None where there is none at all."""
    if model is not None:
        return model
    may_exist = check is None or check.code in {SourceCode.GATED, SourceCode.UNREACHABLE}
    return ModelFacts(id=spec.source.uri) if may_exist else None


def missing_of(model: ModelFacts | None) -> tuple[str, ...]:
    """The numbers to ask for, by name."""
    return missing_numbers(model) if model is not None else ()


def completed(model: ModelFacts | None, numbers: Mapping[str, int]) -> ModelFacts | None:
    """The model with those of the numbers that it lacks; what was looked up stays."""
    given = {name: numbers[name] for name in missing_of(model) if name in numbers}
    return dataclasses.replace(model, **given) if model is not None and given else model  # type: ignore[arg-type]
