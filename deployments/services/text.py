"""Text that people type into single fields: cleaned of what a database or a page cannot hold, and bounded."""

from __future__ import annotations

import unicodedata

from deployments.services.errors import InvalidError


def line_of(value: object, *, field: str, longest: int, required: bool = True) -> str:
    """One line of text of at most `longest` characters; raises InvalidError naming `field` otherwise."""
    pointer = f"/{field}"
    if not isinstance(value, str):
        raise InvalidError("Must be text.", field=field, pointer=pointer)
    if len(value) > longest:
        raise InvalidError(f"At most {longest} characters, this has {len(value):,}.", field=field, pointer=pointer)
    # Controls break logs, lone surrogates cannot be encoded, and NUL is nothing that PostgreSQL stores.
    kept = "".join(" " if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} else char for char in value)
    # What nobody sees turns the reading order around, or hides in what somebody decides about.
    kept = "".join(char for char in kept if unicodedata.category(char) != "Cf")
    text = " ".join(kept.split())
    if required and not text:
        raise InvalidError("This field is required.", field=field, pointer=pointer, code="required")
    return text


def gpus_in_words(count: int) -> str:
    """The words for a number of GPUs: "1 GPU", "2 GPUs"."""
    return f"{count} GPU" if count == 1 else f"{count} GPUs"
