"""What somebody with kubectl would type to do by hand what Slipway does, and to look at what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.labels import FIELD_MANAGER, LABEL_DEPLOYMENT

# What KServe and Kubernetes make of the objects, under the labels of the deployment.
CHILDREN = ("Deployment.apps", "Service", "Pod")


@dataclass(frozen=True)
class Commands:
    """One line each: what would change, make it so, and what is there."""

    diff: str
    apply: str
    get: str

    def as_json(self) -> dict[str, str]:
        """The commands by name."""
        return {"diff": self.diff, "apply": self.apply, "get": self.get}


def commands(objects: Iterable[Mapping[str, Any]], *, namespace: str, deployment_id: str, file: str) -> Commands:
    """The commands for objects that were saved as `file`.

    `--force-conflicts` as Slipway does it: what is signed wins over what somebody wrote by hand.
    """
    kinds = dict.fromkeys([*(_kind(obj) for obj in objects), *CHILDREN])
    as_slipway = f"--server-side --field-manager={FIELD_MANAGER} --force-conflicts -f {file}"
    return Commands(
        diff=f"kubectl diff {as_slipway}",
        apply=f"kubectl apply {as_slipway}",
        get=f"kubectl get {','.join(kinds)} -n {namespace} -l {LABEL_DEPLOYMENT}={deployment_id}",
    )


def _kind(obj: Mapping[str, Any]) -> str:
    """The kind as kubectl takes it whatever else is installed: with its group, of which core kinds have none."""
    group, slash, _ = str(obj["apiVersion"]).partition("/")
    return f"{obj['kind']}.{group}" if slash else str(obj["kind"])
