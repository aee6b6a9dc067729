"""After a crash: finds out by live reads what became of calls that were begun and never recorded."""

from __future__ import annotations

from deployments.kube.cluster import Cluster
from deployments.kube.kinds import Ref
from deployments.kube.ownership import managed_hash
from deployments.models import Intent, Revision
from deployments.reconciler.desired import Marks
from deployments.services import convergence
from deployments.services.convergence import Lease


def resolve_intents(cluster: Cluster, held: Lease, marks: Marks, revision: Revision | None = None) -> int:
    """Resolve every open intent of the row under lease; returns how many there were.

    Those about Secrets wait for `reconciler.secrets`: a Secret cannot be looked at.
    """
    intents = [intent for intent in convergence.open_intents(held) if intent.kind != "Secret"]
    for intent in intents:
        _resolve(cluster, held, marks, revision, intent)
    return len(intents)


def _resolve(cluster: Cluster, held: Lease, marks: Marks, revision: Revision | None, intent: Intent) -> None:
    ref = Ref(intent.api_version, intent.kind, intent.namespace, intent.name)
    if intent.verb != "create":
        # A delete is planned again if its object is still there, an apply is simply made again.
        convergence.stale(held, intent, ref)
        return
    held.renew()
    live = cluster.read(ref)
    if live is None:
        convergence.settled(held, intent, "never arrived")
    elif not marks.on(live):
        convergence.settled(held, intent, "name taken by a stranger")
    else:
        convergence.written(
            held,
            intent,
            ref=ref,
            uid=live["metadata"]["uid"],
            digest=intent.digest,
            managed=managed_hash(live),
            owned=False,
            revision=revision,
            result="found after a crash",
        )
