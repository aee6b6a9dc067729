"""Hypothesis strategies for sequences: requests about few objects of few kinds, most of them right, some wrong."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from tests.differential import bodies
from tests.differential.bodies import LEAST, NAMES, RIGHT, RIGHT_ANYWHERE, WRONG, WRONG_ANYWHERE, whole
from tests.differential.sequences import (
    CONTINUE,
    HARD,
    OLD_VERSION,
    UID,
    UNUSED,
    VERSION,
    Object,
    Sequence,
    Step,
)

LENGTH = 8  # steps at most
MANAGERS = "one", "two"
ODD_MANAGERS = "a b\u00e9", "x" * 129
SELECTORS = "app=a", "app!=a", "app in (a,mark)", "tier", "!tier", "app=a,tier=b", "tier notin (a)", "app==b"
BAD_SELECTORS = "app in a", "a b=c", "app=a,,"
FIELDS = "metadata.name=a", "metadata.name!=a", "spec.nope=x", "metadata.name"
WATCHED = "", "app in (a,mark)", "app!=a", "tier"
# Without a name a Service fails in kube-apiserver's allocator of addresses, and a LimitRange is given one by chance.
NEVER_NAMELESS = "Service", "LimitRange"
LEVELS = {}, {}, {}, {"pod-security.kubernetes.io/enforce": "baseline"}, {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
}  # fmt: skip
# What stands beside a kind in a sequence: objects that its admission looks at.
BESIDE = {
    "Pod": ("ServiceAccount", "ResourceQuota", "LimitRange", "ConfigMap"),
    "ConfigMap": ("ResourceQuota",),
    "Secret": ("ResourceQuota",),
    "Service": ("ResourceQuota",),
    "InferenceService": ("ResourceQuota",),
    "ResourceQuota": ("ConfigMap", "Pod"),
    "LimitRange": ("Pod",),
    "Deployment": ("ResourceQuota",),
}


@st.composite
def sequences(draw: st.DrawFn, kind: str) -> Sequence:
    """Sequences about one kind and what stands beside it."""
    labels = _pick(draw, LEVELS) if kind in ("Pod", "Deployment", "Namespace") else {}
    steps: list[Step] = []
    for first in FIRST.get(kind, ()):
        if draw(st.integers(0, 3)):
            steps.append(first)
    if kind in TIGHT and draw(st.booleans()):
        hard = _pick(draw, TIGHT[kind])
        steps += [Step("create", "ResourceQuota", "team", whole("ResourceQuota", "team", {"spec": {"hard": hard}}))]
        steps += [_told("team")] if draw(st.integers(0, 3)) else []
    steps.append(Step("create", kind, "a", _body(draw, kind, "a"), _options(draw, "create")))
    others = BESIDE.get(kind, ())
    for _ in range(draw(st.integers(1, LENGTH - 1))):
        chosen = _pick(draw, (kind, kind, kind, kind, *others))
        step = draw(_steps(chosen))
        # Two names that the servers make up may stand in another order on each.
        if step.name != "gen-" or all(other.name != "gen-" for other in steps):
            steps.append(step)
        if step.kind == "ResourceQuota" and step.verb in _WRITES and not step.subresource and draw(st.integers(0, 3)):
            steps.append(_told(step.name))
    watched = _pick(draw, (kind, ""))
    return Sequence(tuple(steps), labels, watched, _pick(draw, WATCHED) if watched else "", "generated")


FIRST: dict[str, tuple[Step, ...]] = {
    "Pod": (Step("create", "ServiceAccount", "default", whole("ServiceAccount", "default")),),
    "LimitRange": (Step("create", "ServiceAccount", "default", whole("ServiceAccount", "default")),),
}


# Quotas that stand first and are soon used up.
TIGHT: dict[str, tuple[Object, ...]] = {
    "Pod": (
        {"pods": "2"},
        {"count/pods": "1", "requests.nvidia.com/gpu": "2"},
        {"requests.cpu": "1", "limits.memory": "1Gi"},
        {"cpu": "600m", "requests.memory": "64Mi", "limits.nvidia.com/gpu": "1"},
    ),
    "ConfigMap": ({"configmaps": "1"}, {"count/configmaps": "2", "configmaps": "3"}),
    "Secret": ({"secrets": "1"}, {"count/secrets": "2"}),
    "Service": ({"services": "1"}, {"count/services": "2", "services.loadbalancers": "1"}),
    "Deployment": ({"count/deployments.apps": "1"},),
    "InferenceService": ({"count/inferenceservices.serving.kserve.io": "1"},),
    "ResourceQuota": ({"resourcequotas": "2"}, {"count/resourcequotas": "2", "pods": "1"}),
}
_WRITES = "create", "update", "merge", "strategic", "json", "apply"


def _told(name: str) -> Step:
    """What the quota controller writes of a new or changed quota where there is nothing yet that counts."""
    status = {"status": {"hard": HARD, "used": UNUSED}}
    return Step("update", "ResourceQuota", name, status, subresource="status", live=True)


@st.composite
def _steps(draw: st.DrawFn, kind: str) -> Step:
    name = _pick(draw, (*NAMES, "a", "a"))
    verb = _pick(draw, _VERBS)
    return _BUILDERS[verb](draw, kind, name)


def _pick(draw: st.DrawFn, options: Any) -> Any:
    """Draw one of a few; by its place, since Hypothesis keeps that strategy."""
    return options[draw(st.integers(0, len(options) - 1))]


def _create(draw: st.DrawFn, kind: str, name: str) -> Step:
    body = _body(draw, kind, name)
    if draw(st.integers(0, 5)) == 0:
        del body["metadata"]["name"]
        name = _pick(draw, ("gen-", "gen-", "" if kind not in NEVER_NAMELESS else "gen-"))
        if name:
            body["metadata"]["generateName"] = name
    return Step("create", kind, name, body, _options(draw, "create"))


def _get(draw: st.DrawFn, kind: str, name: str) -> Step:
    return Step("get", kind, name)


def _list(draw: st.DrawFn, kind: str, name: str) -> Step:
    query: dict[str, str] = {}
    if draw(st.booleans()):
        query["labelSelector"] = _pick(draw, (*SELECTORS, *SELECTORS, *BAD_SELECTORS))
    if draw(st.integers(0, 3)) == 0:
        query["fieldSelector"] = _pick(draw, FIELDS)
    if draw(st.integers(0, 2)) == 0:
        query["limit"] = _pick(draw, ("1", "1", "1", "1", "-1", "x"))
        if draw(st.booleans()):
            query["continue"] = CONTINUE
    elif draw(st.integers(0, 3)) == 0:
        # One too large is asked for once, by hand: kube-apiserver waits three seconds for it.
        query["resourceVersion"] = _pick(draw, ("0", VERSION, OLD_VERSION, "x", "-1"))
        match = _pick(draw, ("", "NotOlderThan", "Exact", "Nope"))
        query |= {"resourceVersionMatch": match} if match else {}
        query |= {"limit": "1"} if draw(st.booleans()) else {}
    return Step("list", kind, query=query)


def _update(draw: st.DrawFn, kind: str, name: str) -> Step:
    query, subresource = _options(draw, "update"), _subresource(draw, kind)
    if draw(st.integers(0, 3)) == 0:
        body = _body(draw, kind, name)
        version = _pick(draw, (VERSION, OLD_VERSION, "", "x", "0"))
        if version:
            body["metadata"]["resourceVersion"] = version
        if draw(st.integers(0, 4)) == 0:
            body["metadata"]["uid"] = _pick(draw, (UID, "00000000-0000-4000-8000-000000000000"))
        return Step("update", kind, name, body, query)
    return Step("update", kind, name, _changes(draw, kind, subresource), query, subresource, live=True)


def _merge(draw: st.DrawFn, kind: str, name: str) -> Step:
    subresource = _subresource(draw, kind)
    body = _changes(draw, kind, subresource)
    if draw(st.integers(0, 7)) == 0:
        version = _pick(draw, (VERSION, OLD_VERSION))
        body = bodies.laid(body, {"metadata": {"resourceVersion": version}})
    verb = _pick(draw, ("merge", "merge", "strategic"))
    return Step(verb, kind, name, body, _options(draw, "patch"), subresource)


def _json(draw: st.DrawFn, kind: str, name: str) -> Step:
    subresource = _subresource(draw, kind)
    if subresource and draw(st.booleans()):
        status = _pick(draw, bodies.STATUS[kind])["status"]
        replaced: Object = {"op": _pick(draw, ("add", "replace")), "path": "/status", "value": deepcopy(status)}
        operation = _pick(draw, (replaced, {"op": "remove", "path": "/status"}))
        return Step("json", kind, name, [operation], _options(draw, "patch"), subresource)
    places = (*_POINTERS, *bodies.POINTERS.get(kind, ()))
    operations: list[Object] = []
    for _ in range(draw(st.integers(1, 2))):
        path = _pick(draw, places)
        operation = _pick(draw, ("add", "replace", "remove", "test"))
        value = _POINTED.get(path, _pick(draw, ("a", "b", 1, None, {"x": "1"})))
        operations.append({"op": operation, "path": path} | ({} if operation == "remove" else {"value": value}))
    return Step("json", kind, name, operations, _options(draw, "patch"), subresource)


_POINTERS = (
    "/metadata/labels/app", "/metadata/labels", "/metadata/annotations", "/metadata/finalizers/0",
    "/metadata/resourceVersion", "/nope",
)  # fmt: skip
_POINTED: Object = {
    "/metadata/labels": {"app": "b"},
    "/metadata/annotations": {"note": "3"},
    "/metadata/resourceVersion": VERSION,
}


def _apply(draw: st.DrawFn, kind: str, name: str) -> Step:
    subresource = _subresource(draw, kind)
    body = _body(draw, kind, name)
    if subresource:
        body = whole(kind, name, _changes(draw, kind, subresource) | {"metadata": body["metadata"]})
    if draw(st.integers(0, 7)) == 0:
        body["metadata"]["uid"] = _pick(draw, (UID, "00000000-0000-4000-8000-000000000000"))
    if draw(st.integers(0, 9)) == 0:
        body["metadata"]["resourceVersion"] = _pick(draw, (VERSION, OLD_VERSION))
    query = _options(draw, "apply")
    query["fieldManager"] = _pick(draw, MANAGERS)
    if draw(st.integers(0, 19)) == 0:
        del query["fieldManager"]
    if draw(st.booleans()):
        query["force"] = "true"
    return Step("apply", kind, name, body, query, subresource)


def _delete(draw: st.DrawFn, kind: str, name: str) -> Step:
    return Step("delete", kind, name, _delete_options(draw))


def _deletecollection(draw: st.DrawFn, kind: str, name: str) -> Step:
    query = {"labelSelector": _pick(draw, SELECTORS)} if draw(st.booleans()) else {}
    return Step("deletecollection", kind, body=_delete_options(draw), query=query)


def _delete_options(draw: st.DrawFn) -> Object | None:
    body: Object = {}
    if draw(st.integers(0, 2)) == 0:
        body["propagationPolicy"] = _pick(draw, ("Foreground", "Background", "Orphan", "Nope"))
    if draw(st.integers(0, 3)) == 0:
        body["preconditions"] = draw(
            st.sampled_from(
                (
                    {"uid": UID},
                    {"uid": "00000000-0000-4000-8000-000000000000"},
                    {"resourceVersion": VERSION},
                    {"resourceVersion": OLD_VERSION},
                )
            )
        )
    if draw(st.integers(0, 3)) == 0:
        body["gracePeriodSeconds"] = _pick(draw, (0, 5, -1))
    if draw(st.integers(0, 9)) == 0:
        body["dryRun"] = ["All"]
    return {"apiVersion": "v1", "kind": "DeleteOptions"} | body if body or draw(st.booleans()) else None


_BUILDERS = {
    "create": _create,
    "get": _get,
    "list": _list,
    "update": _update,
    "merge": _merge,
    "json": _json,
    "apply": _apply,
    "delete": _delete,
    "deletecollection": _deletecollection,
}
_VERBS = ("create", "get", "list", "update", "update", "merge", "merge", "json", "apply", "apply", "apply", "delete",
          "deletecollection")  # fmt: skip


def _subresource(draw: st.DrawFn, kind: str) -> str:
    return "status" if kind in bodies.STATUS and draw(st.integers(0, 2)) == 0 else ""


def _body(draw: st.DrawFn, kind: str, name: str) -> Object:
    body = whole(kind, name, LEAST[kind])
    for _ in range(draw(st.integers(0, 2))):
        body = bodies.laid(body, _pick(draw, (*RIGHT[kind], *RIGHT[kind], *RIGHT_ANYWHERE)))
    if not body["metadata"].get("labels"):
        # Applied to a custom resource, empty labels change but a time, and only where a second has gone by.
        body["metadata"].pop("labels", None)
    if draw(st.integers(0, 5)) == 0:
        body = bodies.laid(body, _pick(draw, (*WRONG[kind], *WRONG[kind], *WRONG_ANYWHERE)))
    return body


def _changes(draw: st.DrawFn, kind: str, subresource: str) -> Object:
    if subresource:
        return deepcopy(_pick(draw, (*bodies.STATUS[kind], *RIGHT[kind])))
    right = draw(st.integers(0, 5))
    choice = (*RIGHT[kind], *RIGHT_ANYWHERE) if right else (*WRONG[kind], *WRONG[kind], *WRONG_ANYWHERE)
    return deepcopy(_pick(draw, choice))


def _options(draw: st.DrawFn, verb: str) -> dict[str, str]:
    query: dict[str, str] = {}
    if draw(st.integers(0, 2)) == 0 and verb != "apply":
        query["fieldManager"] = _pick(draw, (*MANAGERS, *MANAGERS, *MANAGERS, *ODD_MANAGERS))
    if draw(st.integers(0, 2)) == 0:
        query["fieldValidation"] = _pick(draw, ("Strict", "Warn", "Ignore"))
    if draw(st.integers(0, 11)) == 0:
        query["dryRun"] = "All"
    return query
