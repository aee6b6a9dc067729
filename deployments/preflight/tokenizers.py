"""The rule about the tokenizer: Python code of the repository needs to be allowed, as that of the model does."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.engine.architectures import Known
from deployments.findings import Finding, arg_pointer, error, info, warning
from deployments.preflight.architecture import ALLOW, SOURCE, TRUST, elsewhere, looked_up
from deployments.preflight.rules import Case, Rules

rules = Rules()

# Whose tokenizers vLLM reads by code of its own.
OWN_READERS = frozenset({"MoonshotKimiaForCausalLM"})


@rules.rule
def tokenizer_runs(case: Case) -> Iterator[Finding]:
    """Transformers must have the tokenizer, or something in its place; else it is code of the repository."""
    model, known = looked_up(case)
    if model is None or known is None or case.arg(TRUST) is True or OWN_READERS & set(model.architectures):
        return
    if model.own_tokenizer is None and model.format:
        yield info(
            "tokenizer_unread",
            SOURCE,
            f"Whether the tokenizer of {model.id} is Python code of its repository is not known: its "
            "tokenizer_config.json was not read.",
            "If it is, the engine stops at its start without trust-remote-code.",
        )
        return
    if not model.own_tokenizer:
        return
    own_type, name, file = model.model_type or "", model.tokenizer_class, model.tokenizer_json

    def reads(other: Known, _: tuple[str, ...]) -> bool | None:
        return other.reads_tokenizer(own_type, name, file=file)

    can, named = reads(known, ()), f" ({name})" if name else ""
    lacks = f"transformers {known.transformers} of vLLM {case.version} has no such class"
    if can is False:
        another = elsewhere(case, model, reads, "reads it without") or "Or choose a model that needs none."
        yield error(
            "remote_code_tokenizer",
            arg_pointer(TRUST),
            f"The tokenizer of {model.id}{named} is Python code of its repository, and {lacks}. Without "
            "trust-remote-code the engine stops at once.",
            f"{ALLOW.removesuffix(', or')}. {another}",
            True,
        )
    elif can is None:
        yield warning(
            "remote_code_tokenizer_left_out",
            arg_pointer(TRUST),
            f"The tokenizer of {model.id}{named} is Python code of its repository, and {lacks}. Without "
            "trust-remote-code the engine makes one of the other files: it may stop at its start, or split text "
            "otherwise.",
            f"{ALLOW.removesuffix(', or')}.",
            True,
        )
