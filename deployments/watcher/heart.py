"""The cluster's own row: whether it answers, which one it is, and what it can do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db.models.functions import Now

from deployments.kube.cluster import KUBE_SYSTEM
from deployments.kube.cluster import Cluster as Door
from deployments.kube.errors import ClusterError
from deployments.kube.kinds import Kind, kind_of
from deployments.models import Cluster, Team
from deployments.preflight.fetching import limits_in
from deployments.preflight.storage import classes_in

logger = logging.getLogger(__name__)

STORAGE_CLASS = kind_of("storage.k8s.io/v1", "StorageClass")
STORAGE_CONTAINER = kind_of("serving.kserve.io/v1alpha1", "ClusterStorageContainer")
BEAT_SECONDS = 5.0
TROUBLE_SECONDS = 1.0
LOOK_EVERY = 12  # beats between looks at identity and API groups
ANSWER_SECONDS = 4.0


@dataclass(frozen=True)
class Beat:
    """One look at the API server; `uid` and `groups` are empty when they were not asked for."""

    trouble: str = ""
    version: str = ""
    uid: str = ""
    groups: dict[str, list[str]] = field(default_factory=dict)
    # The storage classes as they are kept; None where this account may not list them.
    storage: list[dict[str, Any]] | None = None
    # The most memory of each storage container; None where this account may not list them, or KServe is not there.
    fetching: dict[str, str] | None = None


class Heart:
    """Asks the API server for a sign of life every five seconds, in trouble each second, in a thread of its own."""

    def __init__(self, door: Door, emit: Callable[[Beat], None]) -> None:
        self._door = door
        self._emit = emit
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Stop beating."""
        self._stop.set()

    def join(self, timeout: float = 1.0) -> None:
        """Wait for the thread."""
        self._thread.join(timeout)

    def _run(self) -> None:
        beats = 0
        while not self._stop.is_set():
            beat = look(self._door, closely=beats % LOOK_EVERY == 0)
            # After trouble the identity is looked at again: another cluster may answer now.
            beats = 0 if beat.trouble else beats + 1
            self._emit(beat)
            self._stop.wait(TROUBLE_SECONDS if beat.trouble else BEAT_SECONDS)


def look(door: Door, *, closely: bool) -> Beat:
    """Ask for the version, and `closely` also for identity and API groups."""
    try:
        version = door.version(timeout=ANSWER_SECONDS)
        if not closely:
            return Beat(version=version)
        system = door.read(KUBE_SYSTEM, timeout=ANSWER_SECONDS)
        uid = system["metadata"]["uid"] if system else ""
        groups = door.groups(timeout=ANSWER_SECONDS)
        return Beat(version=version, uid=uid, groups=groups, storage=_storage(door), fetching=_fetching(door))
    except ClusterError as error:
        return Beat(trouble=error.message)


def _storage(door: Door) -> list[dict[str, Any]] | None:
    """What claims can be made of."""
    listed = _listed(door, STORAGE_CLASS)
    return None if listed is None else classes_in(listed)


def _fetching(door: Door) -> dict[str, str] | None:
    """What containers that fetch weights may take at most."""
    listed = _listed(door, STORAGE_CONTAINER)
    return None if listed is None else limits_in(listed)


def _listed(door: Door, kind: Kind) -> list[Any] | None:
    """All of a kind. An account from before there was a use for it may not ask, and nothing is wrong."""
    try:
        return list(door.list_all(kind, timeout=ANSWER_SECONDS))
    except ClusterError as error:
        if error.code in {"permission", "kind_missing"}:
            return None
        raise


def main_cluster() -> Cluster:
    """The row of the cluster that this installation works on, made at first use."""
    row = Cluster.objects.order_by("pk").first()
    return row if row is not None else Cluster.objects.get_or_create(name="main")[0]


def record(row: Cluster, beat: Beat, *, blind: str) -> str:
    """Store what a beat said; `blind` says what cannot be seen though the server answers. Returns the trouble."""
    trouble = beat.trouble or blind
    values: dict[str, Any] = {"trouble": trouble}
    if not beat.trouble and beat.uid:
        values |= _identity(row, beat)
    if stranger := row.capabilities.get("stranger"):
        trouble = values["trouble"] = f"Another cluster answers at the configured address (uid {stranger})."
    if not trouble:
        values["seen_at"] = Now()
        if beat.version:
            values["version"] = row.version = beat.version
    Cluster.objects.filter(pk=row.pk).update(**values)
    if trouble != row.trouble:
        logger.warning("cluster: %s", trouble or "all is well")
    row.trouble = trouble
    return trouble


def team_namespaces() -> list[str]:
    """Where teams' own volume claims may lie."""
    return list(Team.objects.values_list("namespace", flat=True))


def write_claims(row: Cluster, claims: dict[str, list[str]] | None, ours: dict[str, list[str]] | None = None) -> None:
    """Keep the names of volume claims by namespace, and which of them are Slipway's; None while nobody may see them."""
    row.capabilities = {**row.capabilities, "claims": claims, "own_claims": ours}
    Cluster.objects.filter(pk=row.pk).update(capabilities=row.capabilities)


def _identity(row: Cluster, beat: Beat) -> dict[str, Any]:
    """The uid of the first contact stays: a server with another one is a stranger, and nothing is written to it."""
    if not row.uid:
        row.uid = beat.uid
    stranger = {"stranger": beat.uid} if beat.uid != row.uid else {}
    kept = {name: value for name, value in row.capabilities.items() if name != "stranger"}
    row.capabilities = {**kept, "groups": beat.groups, "storage": beat.storage, "fetching": beat.fetching, **stranger}
    return {"uid": row.uid, "capabilities": row.capabilities}
