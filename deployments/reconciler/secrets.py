"""The Secrets of a team's credentials: made from what people entered, removed when no pod names them any more.

Part of a team's pass, under its lease. Slipway may create and delete Secrets and never read them, so the rows are the
only record of what is there; a name is random, so whatever has it after a crash is ours, and may be deleted unseen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.views.decorators.debug import sensitive_variables

from deployments.kube.cluster import CALL_SECONDS, Cluster
from deployments.kube.errors import ClusterError, ErrorClass
from deployments.kube.kinds import kind_of
from deployments.manifests.secret import build_secret
from deployments.models import AppliedObject, SecretVersion, Team
from deployments.reconciler.live import MAKERS, POD, ref_of
from deployments.services import credential_records as records
from deployments.services import credential_trials, sealing
from deployments.services.convergence import Lease, LeaseLostError
from deployments.sources import SourceCode

logger = logging.getLogger(__name__)

T = TypeVar("T")
ACCOUNT = kind_of("v1", "ServiceAccount")
SOON = timedelta(seconds=5)


def keep(cluster: Cluster, held: Lease, team: Team) -> timedelta | None:
    """Make what was entered and remove what is over; returns when to look again, None when nothing is left to do.

    Trouble with one credential keeps neither the others nor the team's namespace waiting.
    """
    left = False
    # In this order: what a new version replaces can go at once.
    for step, due in ((_make, records.to_make), (_remove, records.to_remove)):
        for version in due(team):
            try:
                left |= step(cluster, held, team, version)
            except ClusterError as error:
                logger.info("team %s: Secret of %s: %s/%s", team.slug, version, error.kind, error.code)
                if version.retired_at is None:
                    records.stumbled(version, error.code)
                left = True
            except LeaseLostError:
                raise
            except Exception as error:  # noqa: BLE001 - said by its type alone: its words may quote a value
                logger.error("team %s: Secret of %s: %s", team.slug, version, type(error).__name__)
                records.stumbled(version, "internal")
                left = True
    return SOON if left else None


@sensitive_variables()
def _make(cluster: Cluster, held: Lease, team: Team, version: SecretVersion) -> bool:
    """Open, test, create. Returns True when another worker has to go on."""
    held.renew()
    kind = version.credential.kind
    try:
        opened = sealing.unseal(
            version,
            key_name=version.sealed.key_name,
            ciphertext=bytes(version.sealed.ciphertext),
            team_id=team.pk,
        )
    except sealing.NoKeyError:
        # Perhaps another worker has it; the value ends by itself.
        records.stumbled(version, "no_key")
        return True
    except sealing.UnfitError as error:
        late = isinstance(error, sealing.TooLateError)
        problem, message = ("expired", "it was too late: enter it again") if late else ("unfit", "enter it again")
        records.refused(held, version, problem=problem, message=message)
        return False
    test = credential_trials.try_out(kind, opened, version.sealed.test_uri)
    if test.code is SourceCode.BAD_TOKEN:
        records.refused(held, version, problem="bad_token", message=test.message, test=test)
        return False
    if records.is_in_use(version):
        records.tested(held, version, test)
        return False
    body = build_secret(
        name=version.name,
        namespace=team.namespace,
        team=team.slug,
        install_id=settings.SLIPWAY_INSTALL_ID,
        kind=kind,
        value=opened.value,
        settings=opened.settings,
    )
    intent = records.begin(held, version, "create")
    try:
        uid = _silently(lambda: _created(cluster, body))
    except ClusterError as error:
        if error.kind is not ErrorClass.TAKEN:
            raise
        # Left by a worker that died before it could say so. What it holds cannot be seen: away with it.
        _discard(cluster, version)
        held.renew()
        uid = _silently(lambda: _created(cluster, body))
    records.made(held, intent, version, uid=uid, test=test)
    logger.info("team %s: Secret of %s made", team.slug, version)
    return False


def _remove(cluster: Cluster, held: Lease, team: Team, version: SecretVersion) -> bool:
    """Delete a Secret that is over, once nothing names it. Returns True when something still does."""
    if not version.uid and not records.was_tried(version):
        records.removed(held, version, None)
        return False
    if version.uid and _is_named(cluster, held, team, version):
        return True
    intent = records.begin(held, version, "delete")
    _discard(cluster, version)
    records.removed(held, version, intent)
    logger.info("team %s: Secret of %s removed", team.slug, version)
    return False


def _is_named(cluster: Cluster, held: Lease, team: Team, version: SecretVersion) -> bool:
    """Whether an account, a pod or what makes pods names a Secret. Accounts first: they decide what new pods name."""
    accounts = AppliedObject.objects.filter(
        kind=ACCOUNT.kind,
        deployment__team=team,
        deployment__revisions__spec__source__credential=version.credential.name,
    ).distinct()
    for row in accounts:
        held.keep()
        live = cluster.read(ref_of(row)) or {}
        listed = [*(live.get("secrets") or ()), *(live.get("imagePullSecrets") or ())]
        if any(item.get("name") == version.name for item in listed):
            return True
    for kind in (*MAKERS, POD):
        held.keep()
        for item in cluster.list_all(kind, namespace=team.namespace, timeout=CALL_SECONDS, between=held.keep):
            spec = item.get("spec") or {}
            pod = spec if kind is POD else (spec.get("template") or {}).get("spec") or {}
            # A workload without replicas makes no pod.
            if (kind is POD or spec.get("replicas", 1)) and version.name in secrets_of(pod):
                return True
    return False


def secrets_of(pod: Mapping[str, Any]) -> set[str]:
    """The names of the Secrets that a pod's spec reads."""
    return {name for name in _named(pod) if name}


def _named(pod: Mapping[str, Any]) -> Iterator[str]:
    for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
        for variable in container.get("env") or ():
            yield (((variable.get("valueFrom") or {}).get("secretKeyRef")) or {}).get("name", "")
        for source in container.get("envFrom") or ():
            yield (source.get("secretRef") or {}).get("name", "")
    for volume in pod.get("volumes") or ():
        yield (volume.get("secret") or {}).get("secretName", "")
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield (source.get("secret") or {}).get("name", "")
    for item in pod.get("imagePullSecrets") or ():
        yield item.get("name", "")


@sensitive_variables()
def _created(cluster: Cluster, body: Mapping[str, Any]) -> str:
    # The answer repeats the value: nothing of it is kept but the uid.
    return str(cluster.create(body)["metadata"]["uid"])


def _discard(cluster: Cluster, version: SecretVersion) -> None:
    try:
        _silently(lambda: cluster.discard(records.ref_of(version)))
    except ClusterError as error:
        if error.kind is not ErrorClass.GONE:
            raise


def _silently(call: Callable[[], T]) -> T:
    """Make a call about a Secret; an error keeps its kind and loses its words, which may quote the body."""
    try:
        return call()
    except ClusterError as error:
        silent = ClusterError(
            error.kind, error.code, "The cluster did not do it.", "", error.status, error.retry_after, error.unknown
        )
    raise silent
