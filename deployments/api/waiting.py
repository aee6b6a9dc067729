"""How a deployment waits for quota, as the API shows it."""

from __future__ import annotations

from typing import Any

from deployments.services.waits import Waiting


def waiting(found: Waiting | None) -> dict[str, Any] | None:
    """How a deployment waits for quota, as the API shows it."""
    if found is None:
        return None
    return {
        "flavor": found.flavor.slug,
        "place": found.place,
        "of": found.of,
        "needs": found.needs,
        "apart": found.apart,
        "fits_apart": found.fits_apart,
        "more": found.more,
        "ask_for": found.ask_for,
        "beyond": found.beyond,
        "free": found.free,
        "limit": found.limit,
        "frees": [
            {"kind": item.kind, "gpus": item.gpus, "name": item.name, "deployment": item.deployment, "at": item.at}
            for item in found.frees
        ],
        "alternatives": [{"text": item.text, "set": dict(item.sets), "gpus": item.gpus} for item in found.alternatives],
    }
