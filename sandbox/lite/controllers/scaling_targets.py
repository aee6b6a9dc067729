"""What autoscalers scale: finding a kind's collection, reading and writing its `/scale`."""

from __future__ import annotations

from sandbox.client import ApiError, Client, Obj
from sandbox.lite.controllers.resources import DEPLOYMENTS, REPLICA_SETS, Resource

STATEFUL_SETS = Resource("apps/v1", "statefulsets", "StatefulSet")
_KNOWN = {(item.api_version, item.kind): item for item in (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS)}
CONFLICTS = 5  # tries of one resize while others write


class Targets:
    """The scale subresources of all kinds, as one controller under its own name writes them."""

    def __init__(self, client: Client, manager: str) -> None:
        self._client = client
        self._manager = manager

    async def find(self, api_version: str, kind: str) -> Resource | None:
        """Return where objects of a kind live, None when this cluster does not serve it."""
        if (api_version, kind) in _KNOWN:
            return _KNOWN[api_version, kind]
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            listing = await self._client.get(root)
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        for item in listing["resources"]:
            if item["kind"] == kind and "/" not in item["name"]:
                return Resource(api_version, item["name"], kind, bool(item["namespaced"]))
        return None

    async def scale(self, resource: Resource, namespace: str, name: str) -> Obj:
        """Return the Scale of an object. ApiError 404 when there is no such object or scale."""
        return await self._client.get(f"{resource.path(namespace, name)}/scale")

    async def resize(self, resource: Resource, scale: Obj, replicas: int) -> None:
        """Set the size; a Scale somebody else has written since is read again. ApiError when refused."""
        path = f"{resource.path(scale['metadata']['namespace'], scale['metadata']['name'])}/scale"
        for last in [False] * (CONFLICTS - 1) + [True]:
            body = {**scale, "spec": {"replicas": replicas}}
            try:
                await self._client.update(path, body, fieldManager=self._manager)
            except ApiError as error:
                if error.status != 409 or last:
                    raise
                scale = await self._client.get(path)
            else:
                return


def said(error: ApiError) -> str:
    """Return the words of a refusal."""
    return str(error.body.get("message", error))
