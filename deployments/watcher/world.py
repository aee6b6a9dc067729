"""The cluster as it is known now: one writer feeds it, everything is found by the place of a service. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

from deployments.kube.kinds import Ref
from deployments.kube.observe import FETCH, EventView, Observed, PodView, WorkloadView
from deployments.kube.reflector import Changed, Key, Listed
from deployments.watcher.seen import ClaimSeen, NodeSeen, OwnedSeen, ServiceSeen, followed, service_name_of

Place = tuple[str, str]  # namespace and name of a service, and so of a deployment

MOST_EVENTS = 30
CLAIM = "PersistentVolumeClaim"
EVENTS_LIVE = timedelta(hours=1)
LONGEST_TAIL = 24 * 1024
PROGRESS_TAIL = 1024

_API = {item.kind.kind: item.kind.api_version for item in followed()}


@dataclass(frozen=True, slots=True)
class Crash:
    """A container that died, whose last words are wanted; or, `running`, one that says how far it has come."""

    namespace: str
    pod: str
    uid: str
    container: str
    restarts: int
    previous: bool
    running: bool = False


@dataclass
class World:
    """Everything seen. `dirty`, `suspects`, `nodes_changed` and `claims_changed` are what nobody has looked at yet.

    `install` is this installation: objects that its label names are its own.
    """

    install: str = ""
    services: dict[Key, ServiceSeen] = field(default_factory=dict)
    llm_services: dict[Key, ServiceSeen] = field(default_factory=dict)
    pods: dict[Key, PodView] = field(default_factory=dict)
    workloads: dict[Key, WorkloadView] = field(default_factory=dict)
    events: dict[Key, EventView] = field(default_factory=dict)
    nodes: dict[Key, NodeSeen] = field(default_factory=dict)
    owned: dict[Ref, OwnedSeen] = field(default_factory=dict)
    claims: dict[Key, ClaimSeen] = field(default_factory=dict)
    tails: dict[Key, tuple[Crash, str]] = field(default_factory=dict)
    # Kinds that are followed now, and when each was last listed in full.
    synced: set[str] = field(default_factory=set)
    listed: dict[str, datetime] = field(default_factory=dict)
    dirty: set[Place] = field(default_factory=set)
    suspects: dict[Ref, str] = field(default_factory=dict)
    nodes_changed: bool = False
    claims_changed: bool = False
    _pods_at: dict[Place, set[Key]] = field(default_factory=lambda: defaultdict(set))
    _workloads_at: dict[Place, set[Key]] = field(default_factory=lambda: defaultdict(set))
    _events_at: dict[Place, set[Key]] = field(default_factory=lambda: defaultdict(set))

    def take(self, signal: Listed[Any] | Changed[Any]) -> None:
        """Take in a complete list or one change."""
        if isinstance(signal, Changed):
            self._put(signal.source, signal.key, signal.item)
            return
        for key in [key for key in self._keys(signal.source) if key not in signal.items]:
            self._put(signal.source, key, None)
        for key, item in signal.items.items():
            self._put(signal.source, key, item)
        self.claims_changed |= signal.source == CLAIM and signal.source not in self.synced
        self.synced.add(signal.source)
        self.listed[signal.source] = signal.begun

    def lose(self, source: str) -> None:
        """A kind cannot be followed: what is known of it is old until its next full list."""
        self.claims_changed |= source == CLAIM and source in self.synced
        self.synced.discard(source)

    def observed(self, place: Place, deployment: str, *, complete: bool) -> Observed:
        """Everything seen of one deployment; pods that another deployment of that name left behind are not its own."""
        service = self._service(place, deployment)
        pods = [pod for pod in self._in(self._pods_at, place, self.pods) if pod.deployment in {"", deployment}]
        events = sorted(self._in(self._events_at, place, self.events), key=_last_seen)[-MOST_EVENTS:]
        keys = [(pod.namespace, pod.name) for pod in pods]
        return Observed(
            service=service.view if service else None,
            workloads=tuple(sorted(self._in(self._workloads_at, place, self.workloads), key=lambda work: work.name)),
            pods=tuple(sorted(pods, key=lambda pod: pod.name)),
            events=tuple(events),
            log_tails={key[1]: self.tails[key][1] for key in keys if key in self.tails},
            complete=complete,
        )

    def places(self) -> set[Place]:
        """Every place at which something was seen."""
        return {*self.services, *self.llm_services, *self._pods_at, *self._workloads_at}

    def _service(self, place: Place, deployment: str) -> ServiceSeen | None:
        """The service of a deployment; of two, while one strategy follows another, that of the newer revision."""
        both = (self.services.get(place), self.llm_services.get(place))
        mine = [seen for seen in both if seen is not None and seen.view.deployment in {"", deployment}]
        return max(mine, key=lambda seen: seen.view.revision or 0, default=None)

    def crashes(self, places: Iterable[Place]) -> list[Crash]:
        """Containers that died at these places and whose last words were not read yet."""
        found = []
        for place in places:
            for key in self._pods_at.get(place, ()):
                crash = _crash(self.pods[key])
                known = self.tails.get(key)
                if crash is not None and (known is None or known[0] != crash):
                    found.append(crash)
        return found

    def fetching(self) -> list[Crash]:
        """Containers that fetch weights ahead, which say in their logs how far they have come."""
        return [
            Crash(pod.namespace, pod.name, pod.uid, container.name, container.restarts, previous=False, running=True)
            for pod in self.pods.values()
            if pod.role == FETCH
            for container in pod.containers
            if container.state == "running"
        ]

    def hear(self, crash: Crash, text: str) -> None:
        """Keep the last words of a container, while its pod is there."""
        key = (crash.namespace, crash.pod)
        pod = self.pods.get(key)
        if pod is not None and pod.uid == crash.uid:
            self.tails[key] = (crash, text[-(PROGRESS_TAIL if crash.running else LONGEST_TAIL) :])
            self.dirty.add(_place_of_pod(pod))

    def gpu_pods(self) -> list[PodView]:
        """Every pod, ours or not, that holds GPUs of a node."""
        return [pod for pod in self.pods.values() if pod.gpus and pod.node and pod.holds_gpus]

    def forget_old_events(self, now: datetime) -> None:
        """Drop events older than an hour, as the API server does."""
        for key, event in list(self.events.items()):
            if _last_seen(event) < now - EVENTS_LIVE:
                self._put("Event", key, None)

    def claims_in(self, namespaces: Iterable[str], *, ours: bool = False) -> dict[str, list[str]] | None:
        """The names of volume claims by namespace, or of those alone that Slipway makes; None while not followed."""
        if CLAIM not in self.synced:
            return None
        found: dict[str, list[str]] = {namespace: [] for namespace in namespaces}
        for (namespace, name), item in sorted(self.claims.items(), key=itemgetter(0)):
            # Another installation's goes with a deployment too.
            if namespace in found and (item.install or not ours):
                found[namespace].append(name)
        return found

    def _keys(self, source: str) -> list[Key]:
        store = self._stores().get(source)
        if store is not None:
            return list(store)
        return [(ref.namespace, ref.name) for ref in self.owned if ref.kind == source]

    def _put(self, source: str, key: Key, item: Any) -> None:
        match source:
            case "InferenceService":
                self._put_service(source, self.services, key, item)
            case "LLMInferenceService":
                self._put_service(source, self.llm_services, key, item)
            case "Pod":
                self._put_pod(key, item)
            case "Deployment":
                self._index(self._workloads_at, self.workloads, key, item, _place_of_workload)
            case "Event":
                self._index(self._events_at, self.events, key, item, _place_of_event)
            case "Node":
                if self.nodes.get(key) != item:
                    self.nodes_changed = True
                _store(self.nodes, key, item)
            case "PersistentVolumeClaim":
                self.claims_changed |= (item is None) != (key not in self.claims)
                _store(self.claims, key, item)
                self._put_owned(source, key, item.owned if item and self._is_ours(item) else None)
            case _:
                self._put_owned(source, key, item)

    def _is_ours(self, claim: ClaimSeen) -> bool:
        return bool(claim.install) and claim.install == self.install

    def _put_service(self, kind: str, known: dict[Key, ServiceSeen], key: Key, item: ServiceSeen | None) -> None:
        if known.get(key) != item:
            self.dirty.add(key)
        _store(known, key, item)
        self._put_owned(kind, key, item.owned if item else None)

    def _put_pod(self, key: Key, item: PodView | None) -> None:
        before = self.pods.get(key)
        if item is None or (before is not None and before.uid != item.uid):
            self.tails.pop(key, None)
        if _holding(before) != _holding(item):
            self.nodes_changed = True
        self._index(self._pods_at, self.pods, key, item, _place_of_pod)

    def _put_owned(self, kind: str, key: Key, item: OwnedSeen | None) -> None:
        """Remember an object of ours; one that went or whose fields changed hands is suspect."""
        ref = Ref(_API[kind], kind, *key)
        before = self.owned.get(ref)
        if item is None:
            if self.owned.pop(ref, None) is not None:
                self.suspects[ref] = "gone"
            return
        if before != item:
            self.suspects[ref] = f"{item.uid}/{item.managed}"
        self.owned[ref] = item

    def _index(self, index: dict[Place, set[Key]], store: dict[Key, Any], key: Key, item: Any, place_of: Any) -> None:
        before = store.get(key)
        if before == item:
            return
        for view in (before, item):
            if view is not None and (place := place_of(view))[1]:
                self.dirty.add(place)
        if before is not None:
            index[place_of(before)].discard(key)
            if not index[place_of(before)]:
                del index[place_of(before)]
        if item is not None:
            index[place_of(item)].add(key)
        _store(store, key, item)

    def _stores(self) -> Mapping[str, dict[Key, Any]]:
        return {
            "InferenceService": self.services,
            "LLMInferenceService": self.llm_services,
            "Pod": self.pods,
            "Deployment": self.workloads,
            "Event": self.events,
            "Node": self.nodes,
            CLAIM: self.claims,
        }

    @staticmethod
    def _in(index: Mapping[Place, set[Key]], place: Place, store: Mapping[Key, Any]) -> list[Any]:
        return [store[key] for key in index.get(place, ())]


def slimmed(observed: Observed) -> Observed:
    """The same without what only says when it was read: equal ones need not be written again."""
    service = observed.service
    return replace(observed, service=replace(service, resource_version="") if service else None, seen_at=None)


def _store(store: dict[Key, Any], key: Key, item: Any) -> None:
    if item is None:
        store.pop(key, None)
    else:
        store[key] = item


def _place_of_pod(pod: PodView) -> Place:
    return pod.namespace, pod.service or service_name_of("Pod", pod.name)


def _place_of_workload(work: WorkloadView) -> Place:
    return work.namespace, work.service or service_name_of("Deployment", work.name)


def _place_of_event(event: EventView) -> Place:
    return event.namespace, service_name_of(event.kind, event.name)


def _holding(pod: PodView | None) -> tuple[str, int, bool]:
    """What rows of nodes say of a pod: where it holds how many GPUs, and whether it serves with them."""
    holds = pod is not None and pod.node and pod.gpus and pod.holds_gpus
    return (pod.node, pod.gpus, pod.ready) if pod is not None and holds else ("", 0, False)


def _last_seen(event: EventView) -> datetime:
    return event.last_seen or datetime.min.replace(tzinfo=UTC)


def _crash(pod: PodView) -> Crash | None:
    for container in pod.containers:
        if container.state == "terminated" and container.exit_code:
            return Crash(pod.namespace, pod.name, pod.uid, container.name, container.restarts, previous=False)
        if container.last_exit_code and not container.ready and container.state != "terminated":
            return Crash(pod.namespace, pod.name, pod.uid, container.name, container.restarts, previous=True)
    return None
