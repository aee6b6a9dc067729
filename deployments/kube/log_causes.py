"""The cause that a container's log or last words name."""

from __future__ import annotations

from deployments.kube import download_causes, engine_causes, store_causes
from deployments.kube.reasons import Reason


def from_log(text: str) -> Reason | None:
    """The cause that a log names; None when it names none that is known."""
    known = (engine_causes.patterns, store_causes.patterns, download_causes.patterns)
    return next((found for patterns in known if (found := patterns.first(text))), None)
