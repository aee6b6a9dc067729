"""Writing the children of an LLMInferenceService as KServe's controller does, with its events and its words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.client import ApiError, Client, Obj
from sandbox.lite.controllers.events import Recorder
from sandbox.lite.controllers.meta import annotations_of, controller_uid, deleting, key_of, uid_of
from sandbox.lite.controllers.resources import OLD_INFERENCE_POOLS, Resource
from sandbox.lite.controllers.runtime import Informer

SOURCE = "LLMInferenceServiceController"
OWNER = "v1alpha2.LLMInferenceService"
_KEPT = "deployment.kubernetes.io/"


class Failure(Exception):
    """The work cannot go on; the text is what KServe says of it."""


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Say what was being done when something fails inside."""
    try:
        yield
    except Failure as failure:
        raise Failure(f"{what}: {failure}") from failure


class Writer:
    """Creates, updates and deletes children; one of another owner is neither changed nor removed."""

    def __init__(self, client: Client, recorder: Recorder, informers: Mapping[Resource, Informer]) -> None:
        self._client = client
        self._recorder = recorder
        self._informers = informers
        self._sent: dict[tuple[str, str, str, str], tuple[str, int]] = {}

    def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        """Return a child as it is known."""
        return self._informers[resource].get(namespace, name)

    async def put(self, owner: Obj, resource: Resource, wanted: Obj) -> Obj:
        """Make a child agree with what is wanted. Failure when the API server refuses it."""
        key = key_of(wanted)
        where = f"{spelled(resource)} {key[0]}/{key[1]}"
        there = self._informers[resource].get(*key)
        if there is None:
            with _told(f"failed to create {where}"):
                made = await self._client.create(resource.path(key[0]), wanted)
            await self.say(owner, "Normal", "Created", f"Created {where}")
        else:
            if resource.namespaced and controller_uid(there) != uid_of(owner):
                meta = owner["metadata"]
                text = f"it is not controlled by {OWNER} {meta['namespace']}/{meta['name']}"
                raise Failure(f"failed to update {where}: {text}")
            if self._agrees(resource, there, wanted):
                return there
            with _told(f"failed to update {where}"):
                made = await self._client.update(resource.of(wanted), _replacing(there, wanted))
            if made["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
                await self.say(owner, "Normal", "Updated", f"Updated {where}")
        self._informers[resource].remember(made)
        self._sent[(resource.api_version, resource.plural, *key)] = (_digest(wanted), _generation(made))
        return made

    async def remove(self, owner: Obj, resource: Resource, name: str) -> None:
        """Delete a child that does not apply (any more)."""
        namespace = owner["metadata"]["namespace"] if resource.namespaced else ""
        there = self._informers[resource].get(namespace, name)
        if there is None or deleting(there):
            return
        where, meta = f"{spelled(resource)} {namespace}/{name}", owner["metadata"]
        if resource.namespaced and controller_uid(there) != uid_of(owner):
            text = f"not owned by {OWNER} {meta['namespace']}/{meta['name']}"
            raise Failure(f"cannot delete {where}: {text}")
        options = {"preconditions": {"uid": uid_of(there)}, "propagationPolicy": "Background"}
        try:
            await self._client.delete(resource.of(there), options)
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            await self.say(owner, "Normal", "Deleted", f"Deleted {where}")

    async def say(self, owner: Obj, kind: str, reason: str, message: str) -> None:
        """Record an event on the service."""
        await self._recorder.record(owner, kind, reason, message, SOURCE)

    def _agrees(self, resource: Resource, there: Obj, wanted: Obj) -> bool:
        generation = _generation(there)
        if not generation:
            return _within(wanted, there)
        sent = self._sent.get((resource.api_version, resource.plural, *key_of(wanted)))
        return sent == (_digest(wanted), generation)


def spelled(resource: Resource) -> str:
    """Return a kind as Go prints it: the package's name and the type's."""
    package = "v1alpha2pool" if resource == OLD_INFERENCE_POOLS else resource.api_version.rpartition("/")[2]
    return f"{package}.{resource.kind}"


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn a refusal into a Failure; conflicts and faults of the server are tried again as they are."""
    try:
        yield
    except ApiError as error:
        if error.status == 409 or error.status >= 500:
            raise
        raise Failure(f"{what}: {error.body.get('message', error)}") from error


def _replacing(there: Obj, wanted: Obj) -> Obj:
    """Return the body of an update: ours, on the identity and the bookkeeping that are there."""
    meta = {**there["metadata"], "labels": wanted["metadata"].get("labels") or {}}
    kept = {name: text for name, text in annotations_of(there).items() if _KEPT in name}
    meta["annotations"] = {**kept, **(wanted["metadata"].get("annotations") or {})}
    if "ownerReferences" in wanted["metadata"]:
        meta["ownerReferences"] = wanted["metadata"]["ownerReferences"]
    body = {**there, **{name: value for name, value in wanted.items() if name not in ("metadata", "spec")}}
    if "spec" in wanted:
        spec = dict(wanted["spec"])
        for name in ("replicas", "clusterIP", "clusterIPs"):  # an autoscaler's, or the server's
            if name not in spec and name in there["spec"]:
                spec[name] = there["spec"][name]
        body["spec"] = spec
    return {**body, "metadata": meta}


def _within(wanted: Any, there: Any) -> bool:
    """Tell whether everything that is wanted is there; the time a certificate ends does not count."""
    if isinstance(wanted, dict):
        if not isinstance(there, dict):
            return not wanted
        ignored = ("certificates.kserve.io/expiration",)
        return all(name in ignored or _within(value, there.get(name)) for name, value in wanted.items())
    if isinstance(wanted, list):
        same_length = isinstance(there, list) and len(there) == len(wanted)
        return not wanted or (same_length and all(map(_within, wanted, there)))
    return bool(wanted == there or wanted in (None, ""))


def _digest(wanted: Obj) -> str:
    return json.dumps(wanted, sort_keys=True)


def _generation(obj: Obj) -> int:
    return int(obj["metadata"].get("generation") or 0)
