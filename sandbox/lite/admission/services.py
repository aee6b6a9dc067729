"""Cluster addresses of Services."""

from __future__ import annotations

import random

from sandbox.lite import errors
from sandbox.lite.admission.change import Change

_PREFIX = "10.96"


def give_address(change: Change) -> None:
    """Give a Service a free cluster address. 500 when none is left."""
    if change.resource.storage_key != "/services":
        return
    spec = change.obj["spec"]
    if spec["type"] == "ExternalName":
        return
    if not spec.get("clusterIP"):
        taken = {service["spec"].get("clusterIP") for service in change.cluster.read_all("/services")}
        free = (f"{_PREFIX}.{random.randrange(1, 255)}.{random.randrange(1, 255)}" for _ in range(1000))  # noqa: S311
        address = next((candidate for candidate in free if candidate not in taken), None)
        if address is None:
            raise errors.internal("failed to allocate IP: range is full")
        spec["clusterIP"] = address
    spec["clusterIPs"] = [spec["clusterIP"]]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
