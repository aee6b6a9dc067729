"""What the rules of preflight may look at: rows the watcher and the services keep, as plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from deployments.engine.facts import GpuFacts, ModelFacts
from deployments.engine.gpus import gpu_facts
from deployments.engine.profiles import EngineProfile, seeded_profiles
from deployments.preflight.storage import StorageFacts
from deployments.sources.adapters import AdapterFacts
from deployments.sources.checks import SourceCheck
from deployments.spec import Strategy

# Image volumes are on by default from the second on; from the first on an operator may have switched them on.
IMAGE_VOLUMES_FROM, IMAGE_VOLUMES = (1, 33), (1, 35)
RELEASE = re.compile(r"v?(\d{1,4})\.(\d{1,4})")


@dataclass(frozen=True)
class FlavorFacts:
    """One kind of GPU on the cluster. Free counts are None when the cluster has not been seen."""

    slug: str
    product: str
    memory_mib: int
    compute_capability: float
    gpus_per_node: int
    title: str = ""
    resource_name: str = "nvidia.com/gpu"
    total: int | None = None
    free: int | None = None
    largest_free_block: int | None = None
    nodes: int | None = None
    enabled: bool = True
    node_selector: Mapping[str, str] = field(default_factory=dict, hash=False)
    tolerations: tuple[Mapping[str, str], ...] = field(default=(), hash=False)
    # Of one GPU; no rule looks at it, but whoever compares flavors does.
    price_per_hour: float = 0.0

    @cached_property
    def gpu(self) -> GpuFacts:
        """What the fit estimate needs of this GPU."""
        return gpu_facts(self.product, self.memory_mib, self.compute_capability)

    @property
    def is_slice(self) -> bool:
        """True when what pods get is a part of a GPU: a MIG slice, or a share of its time."""
        by_name = self.resource_name.endswith(".shared") or "/mig-" in self.resource_name
        return by_name or self.product.endswith("-SHARED") or "-MIG-" in self.product

    @property
    def is_time_shared(self) -> bool:
        """True when several pods take turns on one GPU, whose memory nobody divides among them."""
        return self.resource_name.endswith(".shared") or self.product.endswith("-SHARED")

    @property
    def label(self) -> str:
        """The name people know it by."""
        return self.title or self.slug


@dataclass(frozen=True)
class QuotaFacts:
    """A team's allowance of one flavor, in GPUs. `held` is what the edited deployment already holds.

    `queued` is the number of other deployments of the team that wait for GPUs of it, and are served first.
    """

    limit: int
    reserved: int = 0
    held: int = 0
    queued: int = 0

    @property
    def available(self) -> int:
        """GPUs that this request may take."""
        return max(0, self.limit - self.reserved + self.held)


@dataclass(frozen=True)
class ClusterFacts:
    """What the cluster can do, as last seen. `missing` names absent parts (KServe, the gateway, …).

    `groups` are the API groups it serves with their versions, empty while they are not known; `version` is that of
    Kubernetes; `claims` names the volume claims of the team's namespace, None while nobody looked; `claims_age` is how
    many seconds ago somebody did. `image_volumes`: its operator has switched them on where they are off by default.
    `grows`: nodes are added when pods wait for them. `fetch_limits` are the memory limits of its storage containers by
    name, None while nobody looked, and `fetch_memory` what an operator says that they need.
    """

    seen: bool = True
    sandbox: bool = False
    missing: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    version: str = ""
    claims: frozenset[str] | None = None
    # Those of them that Slipway made, to fetch weights ahead: each belongs to a deployment and goes with it.
    own_claims: frozenset[str] = frozenset()
    claims_age: int | None = None
    fetch_limits: Mapping[str, str] | None = field(default=None, hash=False)
    fetch_memory: str = ""
    image_volumes: bool = False
    grows: bool = False
    # None while nobody has listed them.
    storage: tuple[StorageFacts, ...] | None = None

    @property
    def mounts_images(self) -> bool:
        """True where pods can mount images as volumes; taken for granted while the version is not known."""
        release = self.release
        if release is None or release >= IMAGE_VOLUMES:
            return True
        return self.image_volumes and release >= IMAGE_VOLUMES_FROM

    @property
    def release(self) -> tuple[int, int] | None:
        """Major and minor version of Kubernetes; None while they are not known."""
        match = RELEASE.match(self.version)
        return (int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True)
class CredentialFacts:
    """A credential of the team: its kind ("" where nobody said), whether its value is on the cluster or on its way.

    `refused`: its server did not accept it when it was tested last. `asked`: the source was looked up with it, and so
    were `adapters`. `inside`: why nobody calls its `endpoint`, as far as the name's addresses tell. `server`: the
    registry that a login is for. `answered`: its server has said something, whatever it was, when it was tested last.
    """

    kind: str = "hf"
    stored: bool = True
    waiting: bool = False
    refused: bool = False
    asked: bool = False
    answered: bool = True
    endpoint: str = ""
    inside: str = ""
    server: str = ""
    adapters: tuple[AdapterFacts, ...] = ()


@dataclass(frozen=True)
class Serving:
    """What serves now, as far as it tells how a change replaces it: its strategy, nodes, fewest replicas and surge."""

    strategy: str
    nodes: int = 1
    fewest: int = 1
    surge: int = 0

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Serving:
        """Of a spec as it is stored; roles count by themselves, and none of them is replaced in place."""
        replicas = spec.get("replicas") or {}
        nodes, surge = int(spec.get("nodes", 1)), int(spec.get("surge", 0))
        return cls(str(spec["strategy"]), nodes, int(replicas.get("min", 1)), surge)

    @property
    def kind(self) -> str:
        """Which workload it is; one of another kind takes its place, and is made when it is gone."""
        if self.nodes > 1:
            return "groups"
        return "roles" if self.strategy == Strategy.DISAGGREGATED else "service"

    @property
    def replaced_alone(self) -> bool:
        """True where the only replica goes before its successor comes: no surge of its own, and none of roles."""
        return self.kind != "roles" and self.fewest == 1 and not self.surge


@dataclass(frozen=True)
class Facts:
    """Everything the rules may know. `model` is None until the source was looked up."""

    flavors: Mapping[str, FlavorFacts] = field(default_factory=dict)
    quotas: Mapping[str, QuotaFacts] = field(default_factory=dict)
    profiles: Mapping[str, EngineProfile] = field(default_factory=seeded_profiles)
    model: ModelFacts | None = None
    source_check: SourceCheck | None = None
    credentials: Mapping[str, CredentialFacts] = field(default_factory=dict)
    # What is known of the LoRA adapters of the wish, by their names in it.
    adapters: Mapping[str, AdapterFacts] = field(default_factory=dict)
    name_taken: bool = False
    # Nodes of a replica of the edited deployment as it was approved; None for a new one.
    nodes_before: int | None = None
    # What the edited deployment runs now; None for a new one, and for one that serves nothing.
    serving: Serving | None = None
    namespace: str = ""
    cluster: ClusterFacts = field(default_factory=ClusterFacts)
    # Where images with weights may come from, as hosts or places below them; None where nobody said (no site is asked).
    registries: tuple[str, ...] | None = None
    # Servers of downloads and buckets that an operator configured: they may have private addresses, others must not.
    origins: tuple[str, ...] = ()
