"""What a revision puts on the cluster, as files: the objects, what changes against another revision, and kubectl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from deployments.manifests.compare import Change, Compared, compare, unified
from deployments.manifests.kubectl import Commands, commands
from deployments.manifests.text import all_as_yaml
from deployments.models import Deployment, Revision
from deployments.services import rendering


@dataclass(frozen=True)
class Files:
    """The objects of one wish, beside those of the revision that it is compared with, if there is any."""

    file: str
    namespace: str
    deployment_id: str
    account: Mapping[str, Any]
    objects: Sequence[Mapping[str, Any]]
    before: Sequence[Mapping[str, Any]] | None = None

    @property
    def all(self) -> list[Mapping[str, Any]]:
        """The account, which is not signed, and the objects, in the order in which they are applied."""
        return [self.account, *self.objects]

    @cached_property
    def yaml(self) -> str:
        """One file of everything."""
        return all_as_yaml(self.all)

    @cached_property
    def compared(self) -> list[Compared]:
        """Every object with what became of it; empty where there is nothing to compare with."""
        return compare(self.before, self.objects) if self.before is not None else []

    @property
    def changes(self) -> list[Compared]:
        """Those that differ."""
        return [item for item in self.compared if item.change is not Change.SAME]

    @property
    def same_count(self) -> int:
        """How many objects stay as they are."""
        return sum(item.change is Change.SAME for item in self.compared)

    @property
    def diff(self) -> str:
        """All that differs as one text."""
        return unified(self.compared)

    @cached_property
    def kubectl(self) -> Commands:
        """What to type instead."""
        return commands(self.all, namespace=self.namespace, deployment_id=self.deployment_id, file=self.file)


def of_revision(row: Deployment, revision: Revision, against: Revision | None) -> Files:
    """The files of a revision of `row`, compared with another one where one is given and it is not the same."""
    return Files(
        file=f"{row.name}-revision-{revision.number}.yaml",
        namespace=row.team.namespace,
        deployment_id=str(row.pk),
        account=rendering.account(row, revision),
        objects=revision.objects_json,
        before=against.objects_json if against is not None and against.pk != revision.pk else None,
    )


def revision_of(row: Deployment, number: int) -> Revision | None:
    """A revision of `row` with its objects; the newest for 0, None where there is none of this number."""
    rows = row.revisions.order_by("-number")
    return (rows.filter(number=number) if number else rows).first()
