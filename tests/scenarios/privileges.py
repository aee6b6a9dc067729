"""What each account may do by RBAC, and what it did by the audit log of kube-apiserver."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCOUNT = "system:serviceaccount:slipway-system:"
# What the API server lets every account do: finding its way, and asking what it may do.
EVERYBODYS = "selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"


@dataclass(frozen=True, order=True)
class Use:
    """One verb on one resource of a group; subresources as `pods/log`."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{'.' if self.group else ''}{self.group}"


def granted(objects: Iterable[dict[str, Any]]) -> dict[str, set[Use]]:
    """Per account of Slipway what its bindings, cluster-wide or made in a team's namespace, allow.

    `objects` are roles and bindings; a RoleBinding counts like a ClusterRoleBinding, whatever its namespace.
    """
    known = list(objects)
    roles = {item["metadata"]["name"]: item for item in known if item["kind"] in ("ClusterRole", "Role")}
    found: dict[str, set[Use]] = {}
    for item in known:
        if item["kind"] in ("ClusterRoleBinding", "RoleBinding"):
            rules = roles[item["roleRef"]["name"]]["rules"] if item["roleRef"]["name"] in roles else []
            for subject in item.get("subjects") or ():
                found.setdefault(subject["name"], set()).update(_uses(rules))
    return found


def used(audit_log: Path) -> dict[str, set[Use]]:
    """Per account of Slipway what the API server let it do."""
    return _seen(audit_log, allowed=True)


def refused(audit_log: Path) -> dict[str, set[Use]]:
    """Per account of Slipway what RBAC forbade it."""
    return _seen(audit_log, allowed=False)


def _seen(audit_log: Path, *, allowed: bool) -> dict[str, set[Use]]:
    found: dict[str, set[Use]] = {}
    for event in _events(audit_log):
        name = event["user"]["username"]
        target = event.get("objectRef")
        if not name.startswith(ACCOUNT) or target is None or target["resource"] in EVERYBODYS:
            continue
        decision = (event.get("annotations") or {}).get("authorization.k8s.io/decision")
        if (decision == "allow") is allowed:
            sub = f"/{target['subresource']}" if target.get("subresource") else ""
            use = Use(target.get("apiGroup", ""), target["resource"] + sub, event["verb"])
            found.setdefault(name.removeprefix(ACCOUNT), set()).add(use)
    return found


def _events(audit_log: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(audit_log.parent.glob(f"{audit_log.stem}*{audit_log.suffix}")):
        with path.open() as lines:
            for line in lines:
                if line.endswith("\n"):  # the last one may still be written
                    yield json.loads(line)


def _uses(rules: Iterable[dict[str, Any]]) -> Iterator[Use]:
    for rule in rules:
        for group in rule.get("apiGroups", ()):
            for resource in rule.get("resources", ()):
                for verb in rule["verbs"]:
                    yield Use(group, resource, verb)
