"""Prompts as the simulator sees them: token counts and prefix hashes, estimated from the text."""

from __future__ import annotations

from typing import Any

from sandbox.model.llm import content_text

CHARS = 4  # of English text to one token, about the same for all the models here
FILLER_TEXT = (
    "the request was served by a simulated engine so that queues caches and charts behave as they would with real "
    "load while nobody reads these words and no language model has to make them"
)
FILLER = FILLER_TEXT.split()


def chat_prompt(messages: list[dict[str, Any]]) -> str:
    """Join messages in the common chat template."""
    turns = [f"<|im_start|>{message.get('role')}\n{content_text(message)}<|im_end|>\n" for message in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def count(prompt: str | list[int]) -> int:
    """Tokens of a prompt: exact for token ids, estimated for text."""
    return max(1, len(prompt) if isinstance(prompt, list) else -(-len(prompt) // CHARS))


def block_hashes(prompt: str | list[int], block_size: int) -> list[int]:
    """One hash for each full block, each covering everything before it."""
    size = block_size * (1 if isinstance(prompt, list) else CHARS)
    hashes: list[int] = []
    previous = 0
    for start in range(0, len(prompt) - size + 1, size):
        piece = prompt[start : start + size]
        previous = hash((previous, tuple(piece) if isinstance(piece, list) else piece))
        hashes.append(previous)
    return hashes


def filler(start: int, tokens: int) -> str:
    """`tokens` words for background traffic, continuing at word number `start`."""
    words = (FILLER[(start + number) % len(FILLER)] for number in range(tokens))
    return "".join(f" {word}" for word in words)
