"""What `live` tells the meter (`portal.meter`) of a caller, in a header that the gateway puts on the request.

Every answer that admits sets it, whoever asks, and the gateway puts that over whatever the caller sent. It is signed
all the same: on a route that somebody opened to all, where `live` is not asked, a caller could write it and leave the
bill to another key.
"""

from __future__ import annotations

from typing import NamedTuple

from django.core import signing

from deployments.services.invoke import Admission

HEADER = "x-slipway-key"
NO_KEY = "none"
SALT = "slipway.metered"
SECONDS = 60  # from the question to the meter, clocks that differ included


class Metered(NamedTuple):
    """The key whose tokens are counted, and the deployment that it calls."""

    key_id: int
    deployment_id: int


def told(admission: Admission) -> str:
    """The header's value: which key calls which deployment, or that no key does."""
    if admission.key is None:
        return NO_KEY
    return signing.TimestampSigner(salt=SALT).sign(f"{admission.key.key_id}.{admission.deployment_id}")


def metered(value: str) -> Metered | None:
    """Who is named there; None for nobody, and for what `live` did not sign just now."""
    try:
        text = signing.TimestampSigner(salt=SALT).unsign(value, max_age=SECONDS)
    except signing.BadSignature:
        return None
    key_id, _, deployment_id = text.partition(".")
    return Metered(int(key_id), int(deployment_id))
