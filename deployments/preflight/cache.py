"""Rules about weights that are fetched ahead into a claim: whether there is anything to fetch, and where to keep it."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.findings import Finding, error, info, warning
from deployments.manifests.cache import gib_for
from deployments.preflight.rollout import IN_PLACE
from deployments.preflight.rules import Case, Rules
from deployments.preflight.storage import StorageFacts, chosen
from deployments.sources import Scheme

rules = Rules()

POINTER = "/spec/source/cache"
FETCHED = frozenset({Scheme.HF, Scheme.S3, Scheme.GS, Scheme.HTTPS})
BY_REPLICA = "Leave it out: each replica then downloads by itself."


@rules.rule
def nothing_to_fetch(case: Case) -> Iterator[Finding]:
    """A claim or an image is mounted as it is: a copy of it would only take longer."""
    if case.spec.source.cache is None or case.loads is None:
        return
    scheme = case.loads.scheme
    if scheme is Scheme.PVC:
        yield error(
            "cache_of_claim", POINTER, "A volume claim is mounted as it is: nothing is fetched.", "Leave it out."
        )
    elif scheme is Scheme.OCI:
        yield error("cache_of_image", POINTER, "Nodes keep images themselves: nothing is fetched.", "Leave it out.")


@rules.rule
def size_of_claim(case: Case) -> Iterator[Finding]:
    """A claim is made as large as what is fetched into it, so that has to be known."""
    if not _fetches(case):
        return
    size = case.model.download_bytes if case.model else None
    if not size:
        yield error(
            "cache_size_unknown",
            POINTER,
            "How large the download is, is not known, so no claim can be made for it.",
            f"Where a credential opens it, test that with this model under Credentials. Else: {BY_REPLICA}",
        )
        return
    storage = _storage(case)
    if storage is not None:
        yield info(
            "cache_takes",
            POINTER,
            f"Takes a volume claim of {gib_for(size):,} GiB in the storage class “{storage.name}” for as long as the "
            "deployment is there, and twice that while another version of the model rolls out.",
        )


@rules.rule
def place_for_claim(case: Case) -> Iterator[Finding]:
    """Without a storage class a claim waits for a volume for ever."""
    known = case.facts.cluster.storage
    if not _fetches(case):
        return
    if known is None:
        yield error(
            "cache_storage_unknown",
            POINTER,
            "Which storage classes the cluster has is not known.",
            f"An admin must let the watcher list them (k8s/portal/rbac.yaml), or set SLIPWAY_CACHE_CLASS. {BY_REPLICA}",
        )
    elif not known:
        yield error(
            "cache_no_storage",
            POINTER,
            "The cluster has no storage class that a claim for the weights could be made of.",
            f"An admin has to add one. {BY_REPLICA}",
        )


@rules.rule
def one_node_alone(case: Case) -> Iterator[Finding]:
    """Volumes of most classes are mounted by one node at a time: replicas elsewhere would wait for ever."""
    storage = _storage(case)
    if storage is None or storage.shared:
        return
    pods = sum(role.replicas.max for role in case.roles.values()) * case.spec.nodes
    nodes = case.flavor.nodes if case.flavor else None
    said = f"Volumes of the storage class “{storage.name}” are mounted by one node at a time (ReadWriteOnce)"
    if pods > 1 and nodes != 1:
        yield error(
            "cache_one_node",
            POINTER,
            f"{said}, and up to {pods:,} pods would run on several nodes.",
            f"Ask an admin for a storage class of a shared file system, or for one replica at most. {BY_REPLICA}",
        )
    elif case.spec.surge and nodes != 1:
        yield error(
            "cache_one_node",
            "/spec/surge",
            f"{said}, and the new pod of a change may come to another than the old one's.",
            f"{IN_PLACE}, or ask an admin for a storage class of a shared file system.",
            0,
        )
    else:
        yield warning(
            "cache_ties",
            POINTER,
            f"{said}: this deployment stays where its volume is.",
            "When that node is full or away, it waits. A storage class of a shared file system avoids that.",
        )


def _fetches(case: Case) -> bool:
    return case.spec.source.cache is not None and case.loads is not None and case.loads.scheme in FETCHED


def _storage(case: Case) -> StorageFacts | None:
    """The class that the claim is made of; None where none is wanted or known."""
    return chosen(case.facts.cluster.storage or ()) if _fetches(case) else None
