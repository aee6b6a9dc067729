"""Questions about users and rights: may I, what may I, who am I."""

from __future__ import annotations

from typing import Any

from sandbox.lite import errors
from sandbox.lite.cluster import Cluster
from sandbox.lite.replies import Reply
from sandbox.lite.requests import Request, User

Obj = dict[str, Any]


def review(cluster: Cluster, request: Request) -> Reply:
    """POST of a review; the answer is its status."""
    sent = request.parsed()
    if not isinstance(sent, dict):
        raise errors.bad_request("the review is not an object")
    answer = _ANSWERS[request.resource](cluster, request, sent.get("spec") or {})
    return Reply.json(sent | {"metadata": {"creationTimestamp": None}, "status": answer}, 201)


def _self_access(cluster: Cluster, request: Request, spec: Obj) -> Obj:
    return _access(cluster, request.user, spec)


def _subject_access(cluster: Cluster, request: Request, spec: Obj) -> Obj:
    return _access(cluster, User(spec.get("user", ""), tuple(spec.get("groups") or ())), spec)


def _access(cluster: Cluster, user: User, spec: Obj) -> Obj:
    about = spec.get("resourceAttributes")
    if about is None:
        path = spec.get("nonResourceAttributes") or {}
        asked = Request("GET", path.get("path", ""), {}, {}, verb=path.get("verb", "get"), user=user)
    else:
        asked = Request(
            "GET", "", {}, {},
            verb=about.get("verb", ""),
            group=about.get("group", ""),
            namespace=about.get("namespace", ""),
            resource=about.get("resource", ""),
            subresource=about.get("subresource", ""),
            name=about.get("name", ""),
            user=user,
        )  # fmt: skip
    try:
        cluster.authorizer.check(asked)
    except errors.StatusError:
        return {"allowed": False}
    return {"allowed": True}


def _self_rules(cluster: Cluster, request: Request, spec: Obj) -> Obj:
    namespace = spec.get("namespace", "")
    rules = [rule for scope, rule in cluster.authorizer.rules(request.user) if scope in ("", namespace)]
    return {
        "resourceRules": [rule for rule in rules if rule.get("resources")],
        "nonResourceRules": [rule for rule in rules if rule.get("nonResourceURLs")],
        "incomplete": False,
    }


def _self(cluster: Cluster, request: Request, spec: Obj) -> Obj:
    return {"userInfo": {"username": request.user.name, "groups": list(request.user.groups)}}


def _token(cluster: Cluster, request: Request, spec: Obj) -> Obj:
    user = cluster.tokens.user(spec.get("token", ""))
    if user is None:
        return {"authenticated": False, "error": "invalid bearer token"}
    return {"authenticated": True, "user": {"username": user.name, "groups": list(user.groups)}}


_ANSWERS = {
    "selfsubjectaccessreviews": _self_access,
    "selfsubjectrulesreviews": _self_rules,
    "subjectaccessreviews": _subject_access,
    "localsubjectaccessreviews": _subject_access,
    "selfsubjectreviews": _self,
    "tokenreviews": _token,
}
