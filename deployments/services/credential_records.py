"""What workers record of credentials, under the lease of the team: which Secret was made, refused or removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from deployments.kube.kinds import Ref
from deployments.models import Credential, Deployment, Intent, SealedValue, SecretVersion, Team
from deployments.services import convergence, credentials, events
from deployments.services.convergence import Lease
from deployments.sources import SourceCheck, SourceCode
from portal.lib.hints import RECONCILE, hint

KIND = "Secret"


def ref_of(version: SecretVersion) -> Ref:
    """Where the Secret of a version is."""
    return Ref("v1", KIND, version.namespace, version.name)


def to_make(team: Team) -> list[SecretVersion]:
    """Versions whose value waits sealed for a worker, with that value."""
    rows = SecretVersion.objects.filter(
        credential__team=team, uid="", retired_at=None, deleted_at=None, sealed__expires_at__gt=timezone.now()
    )
    return list(rows.select_related("credential", "sealed").order_by("pk"))


def to_remove(team: Team) -> list[SecretVersion]:
    """Versions that are not to be used any more and whose Secret may be there."""
    rows = SecretVersion.objects.filter(credential__team=team, deleted_at=None).exclude(retired_at=None)
    return list(rows.select_related("credential").order_by("pk"))


def begin(held: Lease, version: SecretVersion, verb: str) -> Intent:
    """The intent of making or removing a Secret: the one that a crash left open, or a new one. Renews the lease."""
    ref = ref_of(version)
    known = Intent.objects.filter(
        closed_at=None, verb=verb, kind=KIND, namespace=ref.namespace, name=ref.name, **held.owner()
    ).first()
    if known is None:
        return convergence.open_intent(held, verb=verb, ref=ref)
    held.renew()
    return known


def was_tried(version: SecretVersion) -> bool:
    """True when a worker began to make the Secret, so that it may be there."""
    ref = ref_of(version)
    return Intent.objects.filter(verb="create", kind=KIND, namespace=ref.namespace, name=ref.name).exists()


def made(held: Lease, intent: Intent, version: SecretVersion, *, uid: str, test: SourceCheck | None) -> None:
    """The Secret is there: close the intent with its uid, forget the sealed value, and use it from now on.

    A version that was retired meanwhile is only recorded, to be removed next.
    """
    with transaction.atomic():
        convergence.settled(held, intent, "done", uid=uid)
        test_uri = _spent(version)
        SecretVersion.objects.filter(pk=version.pk).update(uid=uid, made_at=timezone.now())
        credential = Credential.objects.select_related("team").get(pk=version.credential_id)
        still_wanted = SecretVersion.objects.filter(pk=version.pk, retired_at=None).exists()
        if credential.deleted_at is not None or not still_wanted:
            return
        before = credential.current_id
        Credential.objects.filter(pk=credential.pk).update(current=version, problem="", **_tested(test, test_uri))
        if before is not None:
            SecretVersion.objects.filter(pk=before, retired_at=None).update(retired_at=timezone.now())
        _told(
            credential,
            version,
            "credential_ready",
            f"Credential “{credential.name}” is stored on the cluster" + (f": {test.message}" if test else ""),
            level="info" if test is None or test.found else "warning",
        )
        for pk in credentials.users_of(credential).values_list("pk", flat=True):
            Deployment.objects.filter(pk=pk).update(next_reconcile_at=Now())
            hint(RECONCILE, pk)


def refused(
    held: Lease, version: SecretVersion, *, problem: str, message: str, test: SourceCheck | None = None
) -> None:
    """The value is not used: it could not be opened, or nobody accepts it. What was in use before goes on."""
    with transaction.atomic():
        _fence(held)
        # The model stays for when the value is entered again.
        test_uri = _spent(version)
        SecretVersion.objects.filter(pk=version.pk).update(retired_at=timezone.now())
        credential = Credential.objects.select_related("team").get(pk=version.credential_id)
        # Of the value in use something is learnt only where the same one was entered.
        tested = _tested(test, test_uri) if credential.current_id is None or is_in_use(version) else {}
        Credential.objects.filter(pk=credential.pk).update(problem=problem, **tested)
        _told(credential, version, "credential_refused", f"Credential “{credential.name}”: {message}", level="bad")


def is_in_use(version: SecretVersion) -> bool:
    """True when the value that was entered is the one in use: then it was entered to be tested."""
    credential = Credential.objects.select_related("current").get(pk=version.credential_id)
    current = credential.current
    return current is not None and (current.fingerprint, current.settings) == (version.fingerprint, version.settings)


def tested(held: Lease, version: SecretVersion, test: SourceCheck) -> None:
    """The value in use was entered once more: keep what its server said, and leave Secret and pods as they are."""
    with transaction.atomic():
        _fence(held)
        test_uri = _spent(version)
        SecretVersion.objects.filter(pk=version.pk).update(retired_at=timezone.now())
        credential = Credential.objects.select_related("team").get(pk=version.credential_id)
        Credential.objects.filter(pk=credential.pk).update(problem="", **_tested(test, test_uri))
        message = f"Credential “{credential.name}” tested: {test.message}"
        _told(credential, version, "credential_tested", message, level="info" if test.found else "warning")


def stumbled(version: SecretVersion, problem: str) -> None:
    """Say on the credential what keeps a worker from storing it for now."""
    Credential.objects.filter(pk=version.credential_id).exclude(problem=problem).update(problem=problem[:40])


def removed(held: Lease, version: SecretVersion, intent: Intent | None) -> None:
    """The Secret of a version is not there, or was never made; what was begun about it is over."""
    with transaction.atomic():
        if intent is not None:
            convergence.settled(held, intent, "gone")
        SecretVersion.objects.filter(pk=version.pk).update(deleted_at=timezone.now())
        ref = ref_of(version)
        left = Intent.objects.filter(closed_at=None, kind=KIND, namespace=ref.namespace, name=ref.name, **held.owner())
        for other in left:
            convergence.settled(held, other, "removed")


def used(row: Deployment, spec: Mapping[str, Any]) -> None:
    """Note that a deployment was written with its credential just now."""
    name = (spec.get("source") or {}).get("credential")
    if name:
        Credential.objects.kept().filter(team=row.team_id, name=name).update(last_used_at=timezone.now())


def _fence(held: Lease) -> None:
    """Lock the team's row for this transaction; LeaseLostError where another worker may hold it."""
    if not held.fenced().select_for_update(no_key=True).values_list("pk").first():
        raise convergence.LeaseLostError(f"team {held.pk}")


def _spent(version: SecretVersion) -> str:
    """Delete the sealed value; returns the model that it was to be tested with."""
    rows = SealedValue.objects.filter(version=version)
    test_uri = rows.values_list("test_uri", flat=True).first() or ""
    rows.delete()
    return test_uri


def _tested(test: SourceCheck | None, test_uri: str) -> dict[str, Any]:
    if test is None:
        return {}
    return {
        "tested_at": timezone.now(),
        "test_code": test.code.value,
        "test_message": test.message[:500],
        "test_remedy": test.remedy[:500],
        "test_uri": test_uri,
        # Of a model that it may not read nothing is kept but why; adapters each have an answer of their own.
        "test_facts": (_learnt(test) if test.code is SourceCode.FOUND else {}) | _of_adapters(test),
    }


def _learnt(test: SourceCheck) -> dict[str, Any]:
    facts = test.model.as_json() if test.model else {}
    return {**facts, "loads": test.loads} if test.loads else facts


def _of_adapters(test: SourceCheck) -> dict[str, Any]:
    return {"adapters": [dict(facts) for facts in test.adapters]} if test.adapters else {}


def _told(credential: Credential, version: SecretVersion, kind: str, message: str, *, level: str) -> None:
    events.record(
        kind=kind,
        message=message,
        team=credential.team,
        level=level,
        data={"credential": credential.pk, "name": credential.name, "version": version.number,
              "fingerprint": version.fingerprint},
    )  # fmt: skip
