"""The number format that an engine computes in: the one asked for, else the model's own as far as the GPU has it.

As vLLM chooses with `dtype` at “auto”: float32 is taken down to 16 bits, and what a GPU lacks falls back to the first
format that it has and that the model's family can bear. Only a format asked for by name is ever refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from deployments.engine.facts import ModelFacts
from deployments.spec import ArgValue

BF16_CAPABILITY = 8.0
FLOAT16, BFLOAT16, FLOAT32 = "float16", "bfloat16", "float32"
SPELLED = {"half": FLOAT16, "float": FLOAT32}
# Families that overflow in 16 bits with a short exponent; vLLM does not start them in it.
NO_HALF = ("Gemma2", "Gemma3For", "Gemma3Text", "Glm4For", "Plamo2")


def bears_half(model: ModelFacts) -> bool:
    """False for families that vLLM does not compute in float16."""
    return not model.architecture.startswith(NO_HALF)


def has_bfloat16(capability: float) -> bool:
    """True where a GPU of this compute capability computes in bfloat16; taken for granted where it is not known."""
    return not capability or capability >= BF16_CAPABILITY


def asked_dtype(args: Mapping[str, ArgValue]) -> str:
    """The format that the flags ask for, by its full name; “auto” where they leave it to the engine."""
    asked = str(args.get("dtype", "auto"))
    return SPELLED.get(asked, asked)


def dtype_of(model: ModelFacts, capability: float, args: Mapping[str, ArgValue]) -> str:
    """The format that the engine computes in on a GPU of this compute capability."""
    if (asked := asked_dtype(args)) != "auto":
        return asked
    takes = [BFLOAT16] if has_bfloat16(capability) else []
    takes += [FLOAT16] if bears_half(model) else []
    takes.append(FLOAT32)
    stored = SPELLED.get(model.dtype, model.dtype)
    return stored if stored in takes and stored != FLOAT32 else takes[0]
