"""Entity tags of a deployment: the number of its newest revision, and the digest that an approval of it signs.

One tag serves both: an edit binds to the number, a decision to the digest. A digest alone, as `revisions/{n}/` answers
with, is read by decisions, and a number alone by edits.
"""

from __future__ import annotations

import re

from deployments.services.errors import StaleError

DIGEST = "[0-9a-f]{64}"
TAG = re.compile(rf"r?(?P<number>[0-9]{{1,9}})(?:\.(?P<digest>{DIGEST}))?")
HOW = "Send the tag as GET of the deployment answers with it (ETag)"


def tag_of(number: int, digest: str) -> str:
    """`r3.<digest>`."""
    return f"r{number}.{digest}"


def number_in(tag: str) -> int:
    """The number of the revision that an edit is based on; StaleError for a tag that holds none."""
    found = TAG.fullmatch(tag)
    if found is None:
        raise StaleError(f"If-Match names no revision. {HOW}, or “base_revision” in the body.")
    return int(found["number"])


def digest_in(tag: str) -> str:
    """The digest that a decision signs; StaleError for a tag that holds none."""
    if re.fullmatch(DIGEST, tag):
        return tag
    found = TAG.fullmatch(tag)
    if found is None or found["digest"] is None:
        raise StaleError(f"If-Match holds no digest, and a decision signs one. {HOW}, or the digest itself.")
    return found["digest"]
