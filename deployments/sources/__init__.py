"""Where models come from: addresses, and what is known about what they name."""

from deployments.sources.checks import Ask, Reply, SourceCheck, SourceCode
from deployments.sources.uris import RESOLVED, Scheme, Source, SourceError, check_uri, parse

__all__ = [
    "RESOLVED",
    "Ask",
    "Reply",
    "Scheme",
    "Source",
    "SourceCheck",
    "SourceCode",
    "SourceError",
    "check_uri",
    "parse",
]
