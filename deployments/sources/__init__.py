"""Where models come from: addresses, and what is known about what they name."""

from deployments.sources.checks import Reply, SourceCheck, SourceCode
from deployments.sources.uris import Scheme, Source, SourceError, check_uri, parse

__all__ = [
    "Reply",
    "Scheme",
    "Source",
    "SourceCheck",
    "SourceCode",
    "SourceError",
    "check_uri",
    "parse",
]
