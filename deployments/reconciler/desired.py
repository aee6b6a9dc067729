"""What should be on the cluster for a deployment or a team, from what is stored: nothing is rendered anew."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import Sum

from deployments import spec as specs
from deployments.kube.kinds import Ref
from deployments.labels import LABEL_DEPLOYMENT, LABEL_INSTALL, LABEL_TEAM
from deployments.manifests import (
    Resolution,
    TeamWish,
    build_service_account,
    build_team,
    marked,
    stopped,
    with_keys,
)
from deployments.manifests import Wish as Rendered
from deployments.models import Approval, Credential, Deployment, Flavor, Node, QuotaHold, Revision, Team, Wanted
from deployments.reconciler import presets
from deployments.reconciler.plan import Block, Desired, Wait, Wish
from deployments.services import holds
from deployments.services.platform import platform


@dataclass(frozen=True)
class Marks:
    """The labels by which a live object proves to be of this deployment or team."""

    labels: Mapping[str, str]

    def on(self, live: Mapping[str, Any]) -> bool:
        """True when the object carries all of them."""
        found = (live.get("metadata") or {}).get("labels") or {}
        return all(found.get(name) == value for name, value in self.labels.items())


def marks_of(row: Deployment | Team) -> Marks:
    """The marks of a deployment's objects, or of a team's."""
    install = {LABEL_INSTALL: settings.SLIPWAY_INSTALL_ID}
    if isinstance(row, Deployment):
        return Marks({**install, LABEL_DEPLOYMENT: str(row.pk)})
    return Marks({**install, LABEL_TEAM: row.slug})


def desired_of(row: Deployment, *, exists: bool) -> Desired | Block | Wait:
    """What should be there for a deployment; `exists`: something of it is, or may be, on the cluster.

    A Block where approval or reservation cannot be confirmed, or where its credential is missing, a Wait while the
    credential is being stored: then nothing is written.
    """
    if row.wanted == Wanted.DELETED or row.deleted_at:
        return Desired(pods_gone=True)
    if row.approved is None or (row.wanted == Wanted.STOPPED and not exists):
        return Desired(pods_gone=True)
    if refusal := _refusal(row, row.approved):
        # Taking pods down needs nobody's leave: what may not be written is removed instead of stopped.
        return Desired(pods_gone=True) if row.wanted == Wanted.STOPPED else refusal
    try:
        objects = signed_objects(row, row.approved)
    except UnopenedError as error:
        if row.wanted != Wanted.STOPPED:
            return error.stop
        objects = signed_objects(row, row.approved, opened=False)
    if row.wanted == Wanted.STOPPED:
        return Desired(_wishes(stopped(objects)), pods_gone=True)
    return Desired(_wishes(objects))


class UnopenedError(Exception):
    """The credential that a revision names opens nothing now; `stop` says what that means."""

    def __init__(self, stop: Block | Wait) -> None:
        super().__init__(str(stop))
        self.stop = stop


def signed_objects(row: Deployment, revision: Revision, *, opened: bool = True) -> list[dict[str, Any]]:
    """The stored objects of a revision, behind the account that its pods run as.

    The account lists the Secret of the credential's current version: it is not signed, so a credential that is entered
    again needs no approval; the mark of that version has the pods made anew. UnopenedError where there is none; with
    `opened` false none is listed.
    """
    used = _credential_of(row, revision) if opened else None
    rendered = Rendered(
        install_id=settings.SLIPWAY_INSTALL_ID,
        deployment_id=str(row.pk),
        name=row.name,
        namespace=row.team.namespace,
        team=row.team.slug,
        revision=revision.number,
        spec=specs.DeploymentSpec.model_validate(revision.spec),
        resolution=Resolution.from_json(revision.resolution),
        platform=platform(),
    )
    if used is None or used.current is None:
        return [build_service_account(rendered), *revision.objects_json]
    names = (used.current.name,)
    account = build_service_account(rendered, names, pulls=used.kind == Credential.Kind.REGISTRY)
    objects = with_keys(revision.objects_json, used.kind, used.current.name, used.current.settings)
    return [account, *marked(objects, names)]


def _credential_of(row: Deployment, revision: Revision) -> Credential | None:
    name = (revision.spec.get("source") or {}).get("credential")
    if not name:
        return None
    found = Credential.objects.kept().told().filter(team=row.team_id, name=name).first()
    if found is None:
        raise UnopenedError(
            Block(
                "credential_missing",
                f"The team has no credential “{name}” any more.",
                "Add one of this name, or choose another in the deployment.",
            )
        )
    if found.state == Credential.State.PENDING:
        raise UnopenedError(Wait(f"The credential “{name}” is being stored."))
    if found.state != Credential.State.READY:
        raise UnopenedError(
            Block(
                "credential_not_stored",
                f"The value of the credential “{name}” was not stored.",
                "Enter it again under Credentials; Slipway then goes on by itself.",
            )
        )
    return found


def desired_of_team(team: Team) -> Desired:
    """A team's namespace, its guards, and a ResourceQuota that follows its grants."""
    wish = TeamWish(
        install_id=settings.SLIPWAY_INSTALL_ID,
        team=team.slug,
        namespace=team.namespace,
        gpus=_gpus_by_resource(team),
        presets=presets.wanted_by(team),
        platform=platform(),
    )
    # The worker may do nothing in the namespace before it has bound its role there.
    first = {"Namespace": 0, "RoleBinding": 1}
    return Desired(_wishes(sorted(build_team(wish), key=lambda obj: first.get(obj["kind"], 2))))


def digest_of(body: Mapping[str, Any]) -> str:
    """The hash of a whole object as it is sent."""
    return hashlib.sha256(specs.canonical(body)).hexdigest()


def _wishes(objects: Iterable[Mapping[str, Any]]) -> tuple[Wish, ...]:
    return tuple(Wish(Ref.of(obj), obj, digest_of(obj)) for obj in objects)


def _refusal(row: Deployment, revision: Revision) -> Block | None:
    signed = specs.digest(
        specs.DeploymentSpec.model_validate(revision.spec), revision.resolution, revision.objects_json
    )
    if signed != revision.digest or not _is_approved(revision):
        return Block(
            "not_approved",
            f"Revision {revision.number} is not what was approved, so it is not applied.",
            "Save the deployment again and have the new revision approved.",
        )
    if row.wanted == Wanted.RUNNING and _held(row, revision) < revision.gpus:
        return Block(
            "not_reserved",
            f"Revision {revision.number} needs {revision.gpus} GPUs that are not reserved for it.",
            "Stop the deployment and start it again, or ask an admin for quota.",
        )
    if outside := _outside(row.team, revision.objects_json):
        return Block(
            "foreign_namespace",
            f"{outside} does not belong into the team's namespace, so nothing is applied.",
            "Save the deployment again and have the new revision approved.",
        )
    return None


def _is_approved(revision: Revision) -> bool:
    return (
        revision.verdict == Revision.Verdict.APPROVED
        and Approval.objects.filter(revision=revision, approved=True, digest=revision.digest).exists()
    )


def _held(row: Deployment, revision: Revision) -> int:
    held = QuotaHold.objects.filter(deployment=row, account__flavor=revision.flavor_id)
    return held.aggregate(gpus=Sum("gpus"))["gpus"] or 0


def _outside(team: Team, objects: Sequence[Mapping[str, Any]]) -> str:
    """Name an object outside the team's namespace: approved or not, there a worker never writes for a team."""
    for obj in objects:
        if obj["metadata"].get("namespace") != team.namespace:
            return f"{obj['kind']} “{obj['metadata']['name']}”"
    return ""


def _gpus_by_resource(team: Team) -> dict[str, int]:
    """GPUs per resource name: what the live grants allow, never less than what is reserved.

    Every name that a flavor or a node has is there: of one that a quota leaves out, Kubernetes lets in as many as come.
    """
    known = {name for kind in (Flavor, Node) for name in kind.objects.values_list("resource_name", flat=True)}
    limits, reserved = dict.fromkeys(known, 0), dict.fromkeys(known, 0)
    for row in holds.usage(team):
        name = row.flavor.resource_name
        limits[name] = limits.get(name, 0) + row.limit
        reserved[name] = reserved.get(name, 0) + row.reserved
    return {name: max(limits[name], reserved[name]) for name in limits}
