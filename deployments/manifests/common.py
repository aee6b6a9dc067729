"""What every builder shares: the wish, names, labels, hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from deployments.labels import (
    ANNOTATION_HASH,
    LABEL_COMPONENT,
    LABEL_DEPLOYMENT,
    LABEL_INSTALL,
    LABEL_REVISION,
    LABEL_TEAM,
    MANAGED_BY,
)
from deployments.spec import DeploymentSpec, canonical

Object: TypeAlias = dict[str, Any]
# Fields of a resolution that JSON holds as lists.
_LISTS = ("secret_names", "tolerations", "adapters")


@dataclass(frozen=True)
class Resolution:
    """What a spec was resolved to at submission; part of what an approval signs."""

    commit: str
    image: str
    product: str
    resource_name: str = "nvidia.com/gpu"
    gpus_per_replica: int = 1
    weights_bytes: int | None = None
    storage_uri: str = ""
    engine_version: str = ""
    secret_names: tuple[str, ...] = ()
    # What the cluster can scale by: KServe's class of autoscaler, empty while it is not known.
    autoscaler: str = ""
    # How weights in an image come into the pods (deployments.manifests.images); empty where they are in none.
    image_mode: str = ""
    # Of a model that is one file: its name, and where its tokenizer lies beside it (empty: in the file).
    file: str = ""
    tokenizer: str = ""
    # A server of an operator that the pods fetch the weights from.
    endpoint: str = ""
    # The claim that weights are fetched into ahead: its size, and of the cluster's storage class and access mode.
    claim_gib: int = 0
    claim_class: str = ""
    claim_mode: str = ""
    # LoRA adapters, each {"name", "uri"} with its commit, and the rank that the engine makes room for.
    adapters: tuple[Mapping[str, str], ...] = field(default=(), hash=False)
    lora_rank: int = 0
    # Of the flavor, on top of its product and the taint of GPU nodes.
    node_selector: Mapping[str, str] = field(default_factory=dict, hash=False)
    tolerations: tuple[Mapping[str, str], ...] = field(default=(), hash=False)

    def as_json(self) -> dict[str, Any]:
        """This resolution as plain JSON values; what came later only where it says something."""
        lists = {name: list(getattr(self, name)) for name in _LISTS}
        later = {"autoscaler", "image_mode", "file", "tokenizer", "endpoint", "adapters", "lora_rank"}
        later |= {"claim_gib", "claim_class", "claim_mode"}
        return {name: value for name, value in {**asdict(self), **lists}.items() if name not in later or value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Resolution:
        """A resolution from stored JSON."""
        lists = {name: tuple(data.get(name, ())) for name in _LISTS}
        return cls(**{**data, **lists})


@dataclass(frozen=True)
class Platform:
    """Where Slipway's own parts stand on the cluster, as its operator configured them."""

    gateway_name: str = "kserve-ingress-gateway"
    gateway_namespace: str = "kserve"
    # The proxies of that Gateway: where they run, and the labels that tell them from other pods there.
    gateway_pods_namespace: str = ""
    gateway_pods_labels: tuple[tuple[str, str], ...] = ()
    monitoring_namespace: str = "monitoring"
    # Where KEDA reads the series that it scales by.
    prometheus_url: str = "http://prometheus-operated.monitoring.svc:9090"
    portal_namespace: str = "slipway-system"
    worker_account: str = "worker"
    live_account: str = "live"
    watcher_account: str = "watcher"
    cluster_cidrs: tuple[str, ...] = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    storage_container: str = "slipway-hf"
    # The one that asks S3 servers without keys.
    public_storage_container: str = "slipway-s3-public"
    initializer_image: str = ""
    # The most that a container which fetches weights may take: its hub library keeps parts of several files in memory.
    fetch_memory: str = "8Gi"
    # Of llm-d, beside disaggregated engines; empty for those that come with Slipway.
    sidecar_image: str = ""
    picker_image: str = ""
    tokenizer_image: str = ""
    scrape_interval_seconds: int = 15
    # Of Workload Identity, with {team} for the team; empty where the cluster has none.
    google_account: str = ""


@dataclass(frozen=True)
class Wish:
    """One approved revision of a deployment, with everything its objects are built from."""

    install_id: str
    deployment_id: str
    name: str
    namespace: str
    team: str
    revision: int
    spec: DeploymentSpec
    resolution: Resolution
    platform: Platform = field(default_factory=Platform)


@dataclass(frozen=True)
class TeamWish:
    """A team's namespace: who it belongs to, and the GPUs of each resource name it may hold."""

    install_id: str
    team: str
    namespace: str
    gpus: Mapping[str, int] = field(default_factory=dict)
    platform: Platform = field(default_factory=Platform)
    # True where the team has a deployment that KServe would lay its presets under.
    presets: bool = False


def labels_of(wish: Wish) -> dict[str, str]:
    """The labels every object of a deployment carries."""
    return {
        "app.kubernetes.io/managed-by": MANAGED_BY,
        LABEL_INSTALL: wish.install_id,
        LABEL_TEAM: wish.team,
        LABEL_DEPLOYMENT: wish.deployment_id,
        LABEL_REVISION: str(wish.revision),
    }


def metadata_of(wish: Wish, name: str) -> dict[str, Any]:
    """The metadata of one of a deployment's objects."""
    return {"name": name, "namespace": wish.namespace, "labels": labels_of(wish)}


def selector_of(wish: Wish) -> dict[str, dict[str, str]]:
    """Selects every pod of a deployment."""
    return {"matchLabels": {LABEL_DEPLOYMENT: wish.deployment_id}}


def engines_of(wish: Wish) -> dict[str, Any]:
    """Selects the pods that serve, where a deployment has others for a while."""
    if not wish.resolution.claim_gib:
        return dict(selector_of(wish))
    return {**selector_of(wish), "matchExpressions": [{"key": LABEL_COMPONENT, "operator": "DoesNotExist"}]}


def storage_uri(wish: Wish) -> str:
    """The address the storage initializer loads from, pinned to the resolved commit."""
    if wish.resolution.storage_uri:
        return wish.resolution.storage_uri
    # A revision that the address names itself gives way to the commit that it was resolved to.
    scheme, _, model = wish.spec.source.uri.partition("://")
    return f"{scheme}://{model.partition(':')[0]}:{wish.resolution.commit}"


def engine_version(wish: Wish) -> str:
    """The vLLM version whose flags count: what was resolved, else what the profile's name says."""
    return wish.resolution.engine_version or wish.spec.engine.profile.removeprefix("vllm-")


def route_prefix(namespace: str, name: str) -> str:
    """The path below the gateway where a deployment answers; only the OpenAI API beneath it is open."""
    return f"/{namespace}/{name}"


def object_hash(obj: Mapping[str, Any]) -> str:
    """A short hash of a rendered object: equal hashes mean that nothing needs to be written."""
    return hashlib.sha256(canonical(obj)).hexdigest()[:16]


def short_hash(*parts: str) -> str:
    """Ten hex digits that name these parts together."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:10]


def sealed(objects: Iterable[Object]) -> list[Object]:
    """The same objects, each with the hash of its own content as an annotation."""
    result: list[Object] = []
    for obj in objects:
        metadata = obj["metadata"]
        annotations = {**metadata.get("annotations", {}), ANNOTATION_HASH: object_hash(obj)}
        result.append({**obj, "metadata": {**metadata, "annotations": annotations}})
    return result


def key_of(obj: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """(apiVersion, kind, namespace, name) of an object; the namespace is empty for cluster objects."""
    metadata = obj["metadata"]
    return str(obj["apiVersion"]), str(obj["kind"]), str(metadata.get("namespace", "")), str(metadata["name"])
