"""The cause that a container's log or last words name."""

from __future__ import annotations

from deployments.kube import download_causes, engine_causes
from deployments.kube.reasons import Reason


def from_log(text: str) -> Reason | None:
    """The cause that a log names; None when it names none that is known."""
    return engine_causes.patterns.first(text) or download_causes.patterns.first(text)
