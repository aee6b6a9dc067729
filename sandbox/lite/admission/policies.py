"""ValidatingAdmissionPolicies: CEL expressions that may refuse a create or an update.

Policies with parameters are not evaluated; deletes are not asked about.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from sandbox.lite import errors
from sandbox.lite.admission.change import Change
from sandbox.lite.expressions import ExpressionFailed, compiled
from sandbox.lite.selectors import match_labels

log = logging.getLogger(__name__)

Obj = dict[str, Any]

GROUP = "admissionregistration.k8s.io"
_POLICIES = f"{GROUP}/validatingadmissionpolicies"
_BINDINGS = f"{GROUP}/validatingadmissionpolicybindings"
_CODES = {"Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}


def check(change: Change) -> None:
    """Refuse what a bound policy denies, in its reason and words."""
    if change.resource.group == GROUP:
        return
    policies = change.cluster.read_all(_POLICIES)
    if not policies:
        return
    bindings = change.cluster.read_all(_BINDINGS)
    for policy in policies:
        if not _concerns(change, policy["spec"].get("matchConstraints") or {}):
            continue
        name = policy["metadata"]["name"]
        bound = [one for one in bindings if one["spec"]["policyName"] == name]
        bound = [one for one in bound if _concerns(change, one["spec"].get("matchResources"))]
        if not bound:
            continue
        if policy["spec"].get("paramKind"):
            log.warning("policy %s is not evaluated: it takes parameters", name)
            continue
        decisions = list(_denials(change, policy["spec"]))
        for binding in bound:
            _act(change, name, binding, decisions)


def _act(change: Change, policy: str, binding: Obj, decisions: list[tuple[str, str]]) -> None:
    """Do what a binding says of each denial: refuse, warn, or nothing more than an audit would."""
    named = f"ValidatingAdmissionPolicy '{policy}' with binding '{binding['metadata']['name']}'"
    actions = binding["spec"].get("validationActions") or []
    if "Warn" in actions:
        change.request.warnings += [f"Validation failed for {named}: {message}" for _, message in decisions]
    if "Deny" in actions and decisions:
        reason, message = decisions[0]
        text = f"{named} denied request: {message}"
        error = errors.forbidden(change.resource.group, change.resource.plural, change.shown_name, text)
        error.reason, error.code = reason, _CODES.get(reason, 422)
        error.details = (error.details or {}) | {"causes": [{"message": text}]}
        raise error


def _denials(change: Change, spec: Obj) -> Iterator[tuple[str, str]]:
    """Yield reason and message of what a policy denies."""
    known = _variables(change)
    strict = spec.get("failurePolicy", "Fail") == "Fail"
    try:
        if not all(_holds(one["expression"], known) for one in spec.get("matchConditions") or ()):
            return
    except ExpressionFailed as error:
        if strict:
            yield "Invalid", str(error)
        return
    composed: Obj = {}
    for variable in spec.get("variables") or ():
        try:
            composed[variable["name"]] = compiled(variable["expression"]).evaluate(known | {"variables": composed})
        except ExpressionFailed as error:  # who uses it fails then
            log.info("variable %s: %s", variable["name"], error)
    known["variables"] = composed
    for validation in spec.get("validations") or ():
        try:
            kept = _holds(validation["expression"], known)
        except ExpressionFailed as error:
            if strict:
                yield "Invalid", str(error)
            continue
        if not kept:
            yield validation.get("reason") or "Invalid", _message(validation, known)


def _holds(expression: str, variables: Obj) -> bool:
    try:
        return compiled(expression).evaluate(variables) is True
    except ExpressionFailed as error:
        raise ExpressionFailed(f"expression '{expression}' resulted in error: {error}") from None


def _message(validation: Obj, variables: Obj) -> str:
    if validation.get("messageExpression"):
        try:
            made = compiled(validation["messageExpression"]).evaluate(variables)
        except ExpressionFailed as error:
            log.info("messageExpression: %s", error)
        else:
            text = made.strip() if isinstance(made, str) else ""
            if text and "\n" not in text:
                return text
    given = str(validation.get("message") or "").strip()
    return given or f"failed expression: {validation['expression'].strip()}"


def _variables(change: Change) -> Obj:
    resource, request, user = change.resource, change.request, change.request.user
    version = {"group": resource.group, "version": resource.version}
    namespace = change.cluster.read("/namespaces", "", change.namespace) if resource.namespaced else None
    shown = None
    if namespace is not None:
        meta = {name: value for name, value in namespace["metadata"].items() if name != "managedFields"}
        shown = namespace | {"metadata": meta}
    return {
        "object": change.obj,
        "oldObject": change.old,
        "namespaceObject": shown,
        "params": None,
        "request": {
            "kind": version | {"kind": resource.kind},
            "resource": version | {"resource": resource.plural},
            "requestKind": version | {"kind": resource.kind},
            "requestResource": version | {"resource": resource.plural},
            "subResource": request.subresource,
            "name": change.shown_name,
            "namespace": change.namespace,
            "operation": "CREATE" if change.creating else "UPDATE",
            "dryRun": request.dry_run,
            "userInfo": {"username": user.name, "uid": "", "groups": list(user.groups), "extra": dict(user.extra)},
        },
    }


def _concerns(change: Change, match: Obj | None) -> bool:
    """Whether rules and selectors are about a change; a binding without any is."""
    if match is None:
        return True
    rules = match.get("resourceRules")
    if rules is not None and not any(_covers(change, rule) for rule in rules):
        return False
    if any(_covers(change, rule) for rule in match.get("excludeResourceRules") or ()):
        return False
    seen = [one for one in (change.obj, change.old) if one is not None]
    if match.get("objectSelector") and not any(
        match_labels(match["objectSelector"], one["metadata"].get("labels") or {}) for one in seen
    ):
        return False
    return _in_namespace(change, match.get("namespaceSelector"))


def _in_namespace(change: Change, selector: Obj | None) -> bool:
    if not selector:
        return True
    if change.resource.storage_key == "/namespaces":
        return match_labels(selector, change.obj["metadata"].get("labels") or {})
    namespace = change.cluster.read("/namespaces", "", change.namespace) if change.resource.namespaced else None
    return namespace is None or match_labels(selector, namespace["metadata"].get("labels") or {})


def _covers(change: Change, rule: Obj) -> bool:
    resource, subresource = change.resource, change.request.subresource
    names = rule.get("resourceNames")
    scope = rule.get("scope", "*")
    return (
        _any(rule.get("operations"), "CREATE" if change.creating else "UPDATE")
        and _any(rule.get("apiGroups"), resource.group)
        and _any(rule.get("apiVersions"), resource.version)
        and any(_is_resource(word, resource.plural, subresource) for word in rule.get("resources") or ())
        and (scope == "*" or (scope == "Namespaced") == resource.namespaced)
        and (not names or change.shown_name in names)
    )


def _any(words: list[str] | None, word: str) -> bool:
    return "*" in (words or ()) or word in (words or ())


def _is_resource(pattern: str, plural: str, subresource: str) -> bool:
    main, _, below = pattern.partition("/")
    return main in ("*", plural) and (below in ("*", subresource) if "/" in pattern else not subresource)
