"""Rows as the plain facts that preflight looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from deployments.engine.plugins import plugins_from
from deployments.engine.profiles import EngineProfile as Profile
from deployments.engine.profiles import seeded_profiles
from deployments.models import Cluster, Deployment, EngineProfile, Flavor, Node, Revision, Team, Wanted
from deployments.preflight import ClusterFacts, Facts, FlavorFacts, QuotaFacts, Serving
from deployments.preflight.storage import StorageFacts, storage_of
from deployments.services import adapter_checks, credential_facts, holds, source_checks, waiting
from deployments.services.holds import Usage
from deployments.sources import SourceCheck
from deployments.spec import DeploymentSpec

# The watcher notes every few seconds that it is alive.
UNSEEN = timedelta(minutes=1)


def gather(
    *,
    team: Team | None,
    name: str,
    deployment: Deployment | None = None,
    check: SourceCheck | None = None,
    usages: Iterable[Usage] | None = None,
    spec: DeploymentSpec | None = None,
) -> Facts:
    """Everything preflight may know about a wish of `team`, or about an edit of `deployment` (no outbound call).

    With `spec`, also of the credential that it names; the check is then what that credential makes of it.
    """
    credentials, check = credential_facts.known_of(team, spec, check) if spec else ({}, check)
    cluster = main_cluster()
    seen = cluster is not None and is_seen(cluster)
    known = list(usages) if usages is not None else (holds.usage(team) if team else [])
    return Facts(
        flavors=flavors(cluster if seen else None),
        quotas=_quotas(team, known, deployment),
        profiles=profiles(),
        model=check.model if check else None,
        source_check=check,
        credentials=credentials,
        adapters=adapter_checks.known_of(spec, credentials.get(spec.source.credential or "")) if spec else {},
        name_taken=team is not None and is_taken(team, name, deployment),
        nodes_before=_nodes_before(deployment),
        serving=serving_of(deployment),
        namespace=team.namespace if team else "",
        cluster=ClusterFacts(
            seen=seen,
            sandbox=settings.SLIPWAY_SANDBOX,
            groups=_groups(cluster) if cluster and seen else {},
            version=cluster.version if cluster else "",
            image_volumes=settings.SLIPWAY_IMAGE_VOLUMES,
            grows=settings.SLIPWAY_CLUSTER_GROWS,
            storage=_storage(cluster) if cluster else None,
            claims=_claims(cluster, team) if cluster and seen and team else None,
            own_claims=(_claims(cluster, team, "own_claims") if cluster and team else None) or frozenset(),
            fetch_limits=_fetch_limits(cluster) if cluster and seen else None,
            fetch_memory=settings.FETCH_MEMORY,
            claims_age=_seconds_since(cluster.seen_at) if cluster and seen and cluster.seen_at else None,
        ),
        registries=source_checks.listed_registries(),
        origins=source_checks.origins(),
    )


def main_cluster() -> Cluster | None:
    """The cluster that deployments go to."""
    return Cluster.objects.order_by("pk").first()


def is_seen(cluster: Cluster) -> bool:
    """True when the watcher has looked at the cluster lately and found it well."""
    return not cluster.trouble and cluster.seen_at is not None and timezone.now() - cluster.seen_at < UNSEEN


def flavors(cluster: Cluster | None) -> dict[str, FlavorFacts]:
    """The flavors by slug, with what is free on `cluster`; free counts stay None without one."""
    nodes: list[Node] = []
    if cluster is not None:
        columns = ("product", "resource_name", "labels", "allocatable", "requested", "ready", "unschedulable")
        nodes = list(Node.objects.filter(cluster=cluster).only(*columns))
    return {
        row.slug: _flavor(row, [node for node in nodes if row.stands_on(node)], known=cluster is not None)
        for row in Flavor.objects.all()
    }


def profiles() -> dict[str, Profile]:
    """The engine profiles that may be chosen, by slug."""
    return {row.slug: _profile(row) for row in EngineProfile.objects.filter(active=True)}


def is_taken(team: Team, name: str, deployment: Deployment | None) -> bool:
    """True when another living deployment of the team has this name."""
    if "\x00" in name:
        return False
    rows = Deployment.objects.alive().filter(team=team, name=name)
    return rows.exclude(pk=deployment.pk).exists() if deployment else rows.exists()


def _flavor(row: Flavor, nodes: list[Node], *, known: bool) -> FlavorFacts:
    return FlavorFacts(
        slug=row.slug,
        product=row.product,
        memory_mib=row.memory_mib,
        compute_capability=float(row.compute_capability),
        gpus_per_node=row.gpus_per_node,
        title=row.name,
        resource_name=row.resource_name,
        total=sum(node.allocatable for node in nodes) if known else None,
        free=sum(node.free for node in nodes) if known else None,
        largest_free_block=max((node.free for node in nodes), default=0) if known else None,
        nodes=len(nodes) if known else None,
        enabled=row.active,
        node_selector=row.node_selector,
        tolerations=tuple(row.tolerations),
        price_per_hour=float(row.price_per_hour),
    )


def serving_of(deployment: Deployment | None) -> Serving | None:
    """What a deployment runs now; None where it was never applied, or is stopped."""
    if deployment is None or deployment.applied_id is None or deployment.wanted != Wanted.RUNNING:
        return None
    # Not the row: its rendered objects are long, and the form asks with every key that is pressed.
    return Serving.of(Revision.objects.values_list("spec", flat=True).get(pk=deployment.applied_id))


def _nodes_before(deployment: Deployment | None) -> int | None:
    approved = deployment.approved if deployment else None
    return int(approved.spec.get("nodes", 1)) if approved else None


def stands_in(row: EngineProfile) -> bool:
    """True for the digest that came with Slipway: the sandbox's, until an admin enters that of a real image."""
    seeded = seeded_profiles().get(row.slug)
    return seeded is not None and seeded.sandbox_only and seeded.image == row.image


def _profile(row: EngineProfile) -> Profile:
    return Profile(row.slug, row.version, row.image, row.name, stands_in(row), plugins_from(row.plugins))


def _quotas(team: Team | None, usages: list[Usage], deployment: Deployment | None) -> dict[str, QuotaFacts]:
    limits = {row.flavor.pk: row.limit for row in usages}
    queued = waiting.queued(team, limits, but=deployment) if team is not None and usages else Counter[int]()
    return {
        row.flavor.slug: QuotaFacts(
            limit=row.limit,
            reserved=row.reserved,
            held=holds.held_by(deployment, row.flavor) if deployment else 0,
            queued=queued[row.flavor.pk],
        )
        for row in usages
    }


def _storage(cluster: Cluster) -> tuple[StorageFacts, ...] | None:
    known = cluster.capabilities if isinstance(cluster.capabilities, dict) else {}
    return storage_of(known.get("storage"), settings.SLIPWAY_CACHE_CLASS)


def _claims(cluster: Cluster, team: Team, which: str = "claims") -> frozenset[str] | None:
    """The volume claims of the team's namespace; None while the watcher has not seen them."""
    known = cluster.capabilities.get(which) if isinstance(cluster.capabilities, dict) else None
    names = known.get(team.namespace) if isinstance(known, dict) else None
    return frozenset(map(str, names)) if isinstance(names, list) else None


def _fetch_limits(cluster: Cluster) -> dict[str, str] | None:
    """The memory limits of storage containers; None while the watcher has not seen them."""
    known = cluster.capabilities.get("fetching") if isinstance(cluster.capabilities, dict) else None
    return {str(name): str(amount) for name, amount in known.items()} if isinstance(known, dict) else None


def _seconds_since(moment: datetime) -> int:
    return max(0, round((timezone.now() - moment).total_seconds()))


def _groups(cluster: Cluster) -> dict[str, tuple[str, ...]]:
    groups = cluster.capabilities.get("groups") if isinstance(cluster.capabilities, dict) else None
    if not isinstance(groups, dict):
        return {}
    return {str(group): tuple(map(str, served or ())) for group, served in groups.items()}
