"""Files beside a model's `config.json` that say more of it; what cannot be read is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deployments.sources.checks import Reply
from deployments.sources.contexts import sentence_config
from deployments.sources.identity import TOKENIZER_CONFIG, asks_for_tokenizer
from deployments.sources.stored import BESIDE, asks_for_file, with_file


def with_files(config: Any, sizes: Mapping[str, int], read: Callable[[str], Reply]) -> tuple[Any, Any, Any]:
    """The configuration with what ModelOpt's own file says, that of the tokenizer, and that of sentences."""

    def said(name: str | None) -> Any:
        reply = read(name) if name else None
        return reply.json if reply is not None and reply.status == 200 else None

    if asks_for_file(config, sizes):
        config = with_file(config, said(BESIDE))
    tokenizer = said(TOKENIZER_CONFIG if asks_for_tokenizer(sizes) else None)
    return config, tokenizer, said(sentence_config(sizes))
