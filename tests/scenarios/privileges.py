"""What each account may do by RBAC, and what it did by the audit log of kube-apiserver."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deployments.labels import LABEL_TEAM

ACCOUNT = "system:serviceaccount:slipway-system:"
WORKER = f"{ACCOUNT}worker"
# What the API server lets every account do: finding its way, and asking what it may do.
EVERYBODYS = "selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"
# Where a right holds or was used, beside the names of single namespaces.
CLUSTER_WIDE, IN_TEAMS = "", "namespaces of teams"
ALL_NAMES = ""
FORBIDDEN = 403
ROLES = "ClusterRole", "Role"


@dataclass(frozen=True, order=True)
class Use:
    """One verb on one resource of a group, where, and of which name; subresources as `pods/log`."""

    group: str
    resource: str
    verb: str
    where: str = CLUSTER_WIDE
    name: str = ALL_NAMES

    def __str__(self) -> str:
        named = f" {self.name}" if self.name else ""
        place = f"in {self.where}" if self.where else "cluster-wide"
        return f"{self.verb} {self.resource}{'.' if self.group else ''}{self.group}{named} {place}"

    def at(self, where: str) -> Use:
        """The same elsewhere."""
        return replace(self, where=where)

    def of(self, name: str) -> Use:
        """The same on another object."""
        return replace(self, name=name)


def granted(objects: Iterable[dict[str, Any]]) -> dict[str, set[Use]]:
    """Per account of Slipway what its bindings allow, and where.

    `objects` are roles and bindings; a RoleBinding with the label of a team stands for the same one in every team.
    """
    known = list(objects)
    roles = {(item["kind"], item["metadata"]["name"]): item["rules"] for item in known if item["kind"] in ROLES}
    found: dict[str, set[Use]] = {}
    for item in known:
        if item["kind"] in ("ClusterRoleBinding", "RoleBinding"):
            rules = roles[item["roleRef"]["kind"], item["roleRef"]["name"]]
            for subject in item.get("subjects") or ():
                found.setdefault(subject["name"], set()).update(_rights(rules, _reach(item)))
    return found


def used(audit_log: Path) -> dict[str, dict[Use, str]]:
    """Per account of Slipway what the API server let it do, and the first path at which it did.

    A request that RBAC lets pass and admission then forbids is none.
    """
    return _seen(audit_log, allowed=True)


def refused(audit_log: Path) -> dict[str, dict[Use, str]]:
    """Per account of Slipway what RBAC forbade it, and the first path."""
    return _seen(audit_log, allowed=False)


def unused(rights: Iterable[Use], uses: Iterable[Use], fixed: Collection[str] = ()) -> Iterator[str]:
    """What was granted for nothing: never used, cluster-wide where teams' namespaces would do, or of every name.

    `fixed` are names that stand in Slipway's own text: a right that was used on such objects alone has to name them.
    """
    rights, uses = set(rights), set(uses)
    for right in sorted(rights):
        fitting = {use for use in uses if right.name in (ALL_NAMES, use.name) and _what(use) == _what(right)}
        places = {use.where for use in fitting}
        names = {use.name for use in fitting if right.where in (CLUSTER_WIDE, use.where)}
        if not places:
            yield f"{right}: not used"
        elif right.where == CLUSTER_WIDE and places == {IN_TEAMS}:
            yield f"{right}: used only in {IN_TEAMS}"
        elif right.where != CLUSTER_WIDE and right.where not in places:
            yield f"{right}: used only elsewhere"
        elif right.where != CLUSTER_WIDE and right.at(CLUSTER_WIDE) in rights:
            yield f"{right}: granted cluster-wide as well"
        elif right.name != ALL_NAMES and right.of(ALL_NAMES) in rights:
            yield f"{right}: granted of every name as well"
        elif right.name == ALL_NAMES and names <= set(fixed):
            yield f"{right}: used only of {', '.join(sorted(names))}"


def not_granted(rights: Iterable[Use], uses: Mapping[Use, str]) -> Iterator[str]:
    """What was used although none of these rights allows it there."""
    rights = set(rights)
    for use, path in sorted(uses.items()):
        ways = {right.at(where) for right in (use, use.of(ALL_NAMES)) for where in (use.where, CLUSTER_WIDE)}
        if not ways & rights:
            yield f"{use}: {path}"


def _what(use: Use) -> tuple[str, str, str]:
    return use.group, use.resource, use.verb


def _reach(binding: dict[str, Any]) -> str:
    if binding["kind"] == "ClusterRoleBinding":
        return CLUSTER_WIDE
    metadata = binding["metadata"]
    return IN_TEAMS if LABEL_TEAM in (metadata.get("labels") or {}) else str(metadata["namespace"])


def _rights(rules: Iterable[dict[str, Any]], where: str) -> Iterator[Use]:
    for rule in rules:
        for group in rule.get("apiGroups", ()):
            for resource in rule.get("resources", ()):
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames") or (ALL_NAMES,):
                        yield Use(group, resource, verb, where, name)


def _seen(audit_log: Path, *, allowed: bool) -> dict[str, dict[Use, str]]:
    found: dict[str, dict[Use, str]] = {}
    bound: set[str] = set()  # namespaces of teams, as long as the worker's first binding stands in them
    for event in _events(audit_log):
        name = event["user"]["username"]
        target = event.get("objectRef")
        if not name.startswith(ACCOUNT) or target is None or target["resource"] in EVERYBODYS:
            continue
        decision = (event.get("annotations") or {}).get("authorization.k8s.io/decision")
        code = event.get("responseStatus", {}).get("code", 0)
        if (decision == "allow") is allowed and not (allowed and code == FORBIDDEN):
            namespace = target.get("namespace", CLUSTER_WIDE)
            use = Use(
                target.get("apiGroup", ""),
                f"{target['resource']}/{target['subresource']}" if target.get("subresource") else target["resource"],
                event["verb"],
                IN_TEAMS if namespace in bound else namespace,
                # Whoever makes an object is not held to a name: RBAC does not know it yet.
                ALL_NAMES if event["verb"] == "create" else target.get("name", ALL_NAMES),
            )
            found.setdefault(name.removeprefix(ACCOUNT), {}).setdefault(use, event["requestURI"])
        if name == WORKER and event["verb"] == "create" and code == 201:
            # Until it has bound a role there, a team's namespace is to the worker like any other: what it does before
            # takes a right that holds cluster-wide.
            if target["resource"] == "rolebindings":
                bound.add(target["namespace"])
            elif target["resource"] == "namespaces":
                bound.discard(target["name"])
    return found


def _events(audit_log: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(audit_log.parent.glob(f"{audit_log.stem}*{audit_log.suffix}")):
        with path.open() as lines:
            for line in lines:
                if line.endswith("\n"):  # the last one may still be written
                    yield json.loads(line)
