"""What a newer Slipway, or another configuration, would render differently: shown, and applied only as new revisions.

Nothing rolls by itself. A new revision has the same spec and the same resolution, and needs an approval as any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.labels import ANNOTATION_HASH
from deployments.manifests.common import Resolution
from deployments.models import Deployment, DeploymentQuerySet, Principal, Revision, Team, Wanted
from deployments.services import approvals, events, rendering, states
from deployments.services.errors import ConflictError, DomainError, MissingError, NotAllowedError, StaleError
from deployments.services.transactions import in_transaction
from deployments.spec import DeploymentSpec, canonical

NOTE = "Rendered anew by Slipway: the spec is the same"
# Deployments looked at for one page: each is rendered once, which takes about a millisecond.
SIZE = 100
MOST_LINES = 60
FIRST_WAVE, MOST_OF_A_WAVE = 5, 25


@dataclass(frozen=True)
class Difference:
    """One value of one object: (path, as it was signed, as it would be); None where one of them lacks it."""

    where: str
    path: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Change:
    """A deployment whose approved revision would be rendered differently now; `why` says what keeps it from that."""

    deployment: Deployment
    revision: Revision
    differences: tuple[Difference, ...]
    why: str = ""


@dataclass(frozen=True)
class Changes:
    """One page: of `looked` deployments those that would change; `after` is where the next begins, 0 on the last."""

    rows: list[Change]
    looked: int
    after: int = 0


def changes(principal: Principal, *, after: int = 0) -> Changes:
    """What would change, in the teams that the principal rules as an admin (one query)."""
    rows = _rows(principal).filter(pk__gt=after).order_by("pk")
    listed = list(rows[: SIZE + 1])
    found = [change for row in listed[:SIZE] if (change := _change(row)) is not None]
    return Changes(found, min(len(listed), SIZE), listed[SIZE - 1].pk if len(listed) > SIZE else 0)


def check_may(principal: Principal) -> None:
    """Raise NotAllowedError for whoever has nothing rendered anew."""
    if not (principal.is_admin and principal.may("approve")):
        raise NotAllowedError("Only an admin has deployments rendered anew.")


@in_transaction
def renew(*, principal: Principal, deployment_id: int, digest: str) -> Revision:
    """Ask for the approved revision rendered anew; `digest` is the one the page compared with.

    Raises StaleError when another one is approved by now, ConflictError when nothing would change or one waits.
    """
    check_may(principal)
    row = _rows(principal).hold(deployment_id)
    if row is None or row.approved is None or row.latest is None:
        raise MissingError("There is no such deployment.")
    if row.approved.digest != digest:
        raise StaleError("Another revision runs by now. Look at what would change again.")
    change = _change(row)
    if change is None:
        raise ConflictError("Nothing would change.")
    if change.why:
        raise ConflictError(change.why)
    old = row.approved
    revision = rendering.store(
        row,
        number=row.latest.number + 1,
        spec=DeploymentSpec.model_validate(old.spec),
        resolution=Resolution.from_json(old.resolution),
        author=principal.user,
        note=NOTE,
        guarded=old.guarded,
    )
    events.record(
        kind="revised",
        message=f"Revision {revision.number} asked for by {principal.user.username}: {NOTE}",
        deployment=row,
        actor=principal.user,
        data={
            "revision": revision.number,
            "digest": revision.digest,
            "rendered_anew": True,
            "before": {"digest": old.digest},
            "after": {"digest": revision.digest},
        },
    )
    if approvals.by_policy(deployment=row, revision=revision) is None:
        states.refresh(row.pk)
    return revision


def wave(*, principal: Principal, chosen: list[tuple[int, str]], size: int) -> list[tuple[int, Revision | None, str]]:
    """The first `size` of the chosen (deployment, digest), each in a transaction of its own: what became of each."""
    found: list[tuple[int, Revision | None, str]] = []
    for pk, digest in dict.fromkeys(chosen[:size]):
        try:
            found.append((pk, renew(principal=principal, deployment_id=pk, digest=digest), ""))
        except DomainError as error:
            found.append((pk, None, error.message))
    return found


def _rows(principal: Principal) -> DeploymentQuerySet:
    return (
        Deployment.objects.alive()
        .filter(team__in=Team.objects.governed_by(principal), approved__isnull=False)
        .exclude(wanted=Wanted.DELETED)
        .select_related("team", "approved", "latest", "applied")
        .defer("latest__objects_json", "applied__objects_json")
    )


def _change(row: Deployment) -> Change | None:
    old = row.approved
    assert old is not None
    spec = DeploymentSpec.model_validate(old.spec)
    try:
        objects = rendering.render(row, number=old.number, spec=spec, resolution=Resolution.from_json(old.resolution))
    except (TypeError, ValueError, KeyError) as error:
        # A revision of an older Slipway that this one cannot render is no reason to hide the others.
        return Change(row, old, (), f"This Slipway cannot render it: {error}"[:300])
    if canonical(objects) == canonical(old.objects_json):
        return None
    why = ""
    if row.latest_id != row.approved_id:
        assert row.latest is not None
        why = f"Revision {row.latest.number} is newer: have it decided, or edit it, first."
    return Change(row, old, tuple(_differences(old.objects_json, objects)[:MOST_LINES]), why)


def _differences(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[Difference]:
    before, after = _by_name(old), _by_name(new)
    found: list[Difference] = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            found.append(Difference(name, "", "is there", None))
        elif name not in before:
            found.append(Difference(name, "", None, "is there"))
        else:
            one, other = _flat(before[name]), _flat(after[name])
            found += [
                Difference(name, path, one.get(path), other.get(path))
                for path in sorted(one.keys() | other.keys())
                # The hash of an object differs whenever something else in it does.
                if one.get(path) != other.get(path) and not path.endswith(ANNOTATION_HASH)
            ]
    return found


def _by_name(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{obj['kind']} {obj['metadata']['name']}": obj for obj in objects}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        pairs: list[tuple[str, Any]] = [(f"{path}.{key}" if path else str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list) and value:
        pairs = [(f"{path}[{index}]", inner) for index, inner in enumerate(value)]
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for name, inner in pairs:
        found |= _flat(inner, name)
    return found
