"""Nobody grants what they do not hold: kube-apiserver's rule for Roles and bindings."""

from __future__ import annotations

from typing import Any

from sandbox.lite import errors
from sandbox.lite.admission.change import Change
from sandbox.lite.auth import MASTERS, RBAC, Authorizer, rule_allows
from sandbox.lite.requests import User

Obj = dict[str, Any]


def check(change: Change) -> None:
    """403 for a Role or binding that would grant more than its writer holds, short of `escalate` or `bind`."""
    resource, user = change.resource, change.request.user
    if resource.group != RBAC or MASTERS in user.groups:
        return
    authorizer = change.cluster.authorizer
    if resource.plural in ("roles", "clusterroles"):
        if change.old is not None and change.old.get("rules") == change.obj.get("rules"):
            return
        verb, plural, name = "escalate", resource.plural, change.shown_name
        rules = change.obj.get("rules") or []
    else:
        role = change.obj["roleRef"]
        plural = "roles" if role["kind"] == "Role" else "clusterroles"
        verb, name = "bind", role["name"]
        rules = authorizer.rules_of_role(role["kind"], name, change.namespace)
    if authorizer.allows(user, change.namespace, verb, RBAC, plural, "", name):
        return
    lacking = [rule for rule in rules if not _covered(authorizer, user, change.namespace, rule)]
    if lacking:
        groups = " ".join(f'"{group}"' for group in user.groups)
        text = f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n'
        raise errors.forbidden(
            resource.group, resource.plural, change.shown_name, text + "\n".join(_say(rule) for rule in lacking)
        )


def _covered(authorizer: Authorizer, user: User, namespace: str, rule: Obj) -> bool:
    """Whether a user holds every action a rule grants."""
    held = [known for scope, known in authorizer.rules(user) if scope in ("", namespace)]
    if rule.get("nonResourceURLs"):
        return all(
            any(_opens(known, verb, url) for known in held) for verb in rule["verbs"] for url in rule["nonResourceURLs"]
        )
    return all(
        any(rule_allows(known, verb, group, resource, resource.partition("/")[2], name) for known in held)
        for verb in rule.get("verbs", ())
        for group in rule.get("apiGroups", ())
        for resource in rule.get("resources", ())
        for name in rule.get("resourceNames") or [""]
    )


def _opens(rule: Obj, verb: str, url: str) -> bool:
    verbs, urls = rule.get("verbs") or (), rule.get("nonResourceURLs") or ()
    return ("*" in verbs or verb in verbs) and ("*" in urls or url in urls)


def _say(rule: Obj) -> str:
    parts = [
        f"{label}:[{' '.join(chr(34) + word + chr(34) for word in rule[key])}]"
        for label, key in (
            ("APIGroups", "apiGroups"),
            ("Resources", "resources"),
            ("ResourceNames", "resourceNames"),
            ("NonResourceURLs", "nonResourceURLs"),
            ("Verbs", "verbs"),
        )
        if rule.get(key)
    ]
    return "{" + ", ".join(parts) + "}"
