"""Every kind the API server offers, kept up to date as CRDs come and go: garbage and namespaces span them all."""

from __future__ import annotations

from sandbox.client import ApiError, Client, Obj
from sandbox.lite.controllers.resources import Resource

_UNOWNED = {"events", "leases", "bindings", "componentstatuses"}  # many of them, and nobody owns or is owned


async def discover(client: Client) -> list[Resource]:
    """Return every kind that can be listed, watched and deleted, once: in the preferred version that has it."""
    found = _usable("v1", await client.get("/api/v1"))
    for group in (await client.get("/apis"))["groups"]:
        preferred = group.get("preferredVersion", group["versions"][0])
        known: set[str] = set()
        for version in [preferred, *(item for item in group["versions"] if item != preferred)]:
            try:
                listing = await client.get(f"/apis/{version['groupVersion']}")
            except ApiError as error:
                if error.status != 404:  # a group may go while we ask
                    raise
                continue
            fresh = [item for item in _usable(version["groupVersion"], listing) if item.plural not in known]
            known |= {item.plural for item in fresh}
            found.extend(fresh)
    return found


def _usable(version: str, listing: Obj) -> list[Resource]:
    return [
        Resource(version, item["name"], item["kind"], bool(item["namespaced"]))
        for item in listing["resources"]
        if "/" not in item["name"]
        and {"list", "watch", "delete"} <= set(item["verbs"])
        and item["name"] not in _UNOWNED
    ]
