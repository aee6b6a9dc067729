"""Who a token belongs to, and what RBAC lets them do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Collection, Iterator
from typing import Any

import orjson

from sandbox.lite import errors
from sandbox.lite.requests import ANONYMOUS, Request, User
from sandbox.lite.storage import Change, Storage

Obj = dict[str, Any]

RBAC = "rbac.authorization.k8s.io"
MASTERS = "system:masters"
ISSUER = "https://kubernetes.default.svc.cluster.local"
OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version", "/version/")
# What every account may read: the paths kubectl needs to find its way, and the reviews about oneself.
_DISCOVERY = ("/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz")
_SELF_REVIEWS = ("selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews")


class Tokens:
    """Issues and checks bearer tokens. They are signed, not stored, so they survive a restart."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        secret = storage.meta("token-secret")
        if secret is None:
            secret = secrets.token_hex(32)
            storage.set_meta("token-secret", secret)
        self._secret = bytes.fromhex(secret)

    def admin(self) -> str:
        """Return the token of the cluster administrator."""
        return self._sign({"sub": "kubernetes-admin", "groups": [MASTERS]})

    def for_account(self, account: Obj, seconds: int = 3600, audiences: list[str] | None = None) -> str:
        """Return a token of a ServiceAccount object that ends after `seconds`."""
        meta = account["metadata"]
        now = int(time.time())
        return self._sign(
            {
                "aud": audiences or [ISSUER],
                "exp": now + seconds,
                "iat": now,
                "iss": ISSUER,
                "jti": secrets.token_hex(8),
                "kubernetes.io": {
                    "namespace": meta["namespace"],
                    "serviceaccount": {"name": meta["name"], "uid": meta["uid"]},
                },
                "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
            }
        )

    def user(self, token: str) -> User | None:
        """Return whose token this is; None when it is forged, expired, or its account is gone."""
        claims = self._verify(token)
        if claims is None or claims.get("exp", time.time() + 1) < time.time():
            return None
        bound = claims.get("kubernetes.io")
        if bound is None:
            return User(claims["sub"], (*claims["groups"], "system:authenticated"))
        namespace, account = bound["namespace"], bound["serviceaccount"]
        stored = self._storage.get("/serviceaccounts", namespace, account["name"])
        if stored is None or stored.obj["metadata"]["uid"] != account["uid"]:
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(claims["sub"], groups)

    def _sign(self, claims: Obj) -> str:
        head = _encode(orjson.dumps({"alg": "HS256", "typ": "JWT"}))
        body = _encode(orjson.dumps(claims))
        return f"{head}.{body}.{_encode(self._mac(f'{head}.{body}'))}"

    def _verify(self, token: str) -> Obj | None:
        signed, _, mac = token.rpartition(".")
        if not hmac.compare_digest(_encode(self._mac(signed)).encode(), mac.encode()):
            return None
        claims: Obj = orjson.loads(_decode(signed.partition(".")[2]))
        return claims

    def _mac(self, text: str) -> bytes:
        return hmac.digest(self._secret, text.encode(), hashlib.sha256)


class Authorizer:
    """Answers from the Role and Binding objects in storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._rules: dict[User, list[tuple[str, Obj]]] = {}
        storage.listen(self._forget)

    def authenticate(self, tokens: Tokens, request: Request) -> User:
        """Return who asks. 401 for a token that is no good; without a token it is the anonymous user."""
        header = request.headers.get("authorization", "")
        if not header:
            return ANONYMOUS
        scheme, _, token = header.partition(" ")
        user = tokens.user(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise errors.unauthorized()
        return user

    def check(self, request: Request) -> None:
        """Raise 403 when the user may not do this."""
        user = request.user
        if not request.resource:
            if not self._may_read_path(user, request.path):
                who, path = user.name, request.path
                text = f'forbidden: User "{who}" cannot {request.verb} path "{path}"'
                raise errors.StatusError(403, "Forbidden", text, details={})
            return
        attributes = (request.verb, request.group, request.resource, request.subresource, request.name)
        if not self.allows(user, request.namespace, *attributes):
            raise errors.forbidden(
                request.group,
                request.resource,
                request.name,
                refusal(user, request.namespace, *attributes),
            )

    def allows(
        self, user: User, namespace: str, verb: str, group: str, resource: str, subresource: str, name: str
    ) -> bool:
        """Whether RBAC allows an action; `namespace` is empty for cluster-wide ones."""
        if MASTERS in user.groups:
            return True
        if resource in _SELF_REVIEWS and "system:authenticated" in user.groups and verb == "create":
            return True
        wanted = f"{resource}/{subresource}" if subresource else resource
        return any(
            rule_allows(rule, verb, group, wanted, subresource, name)
            for scope, rule in self.rules(user)
            if scope in ("", namespace)
        )

    def rules(self, user: User) -> list[tuple[str, Obj]]:
        """Return the rules of a user, each with the namespace it holds in ("" for everywhere)."""
        known = self._rules.get(user)
        if known is None:
            known = self._rules[user] = list(self._collect(user))
        return known

    def rules_of_role(self, kind: str, name: str, namespace: str) -> list[Obj]:
        """Return the rules of a Role or ClusterRole; none when it does not exist."""
        plural = "roles" if kind == "Role" else "clusterroles"
        stored = self._storage.get(f"{RBAC}/{plural}", namespace if kind == "Role" else "", name)
        return list(stored.obj.get("rules") or []) if stored else []

    def _collect(self, user: User) -> Iterator[tuple[str, Obj]]:
        if MASTERS in user.groups:
            yield "", {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            yield "", {"verbs": ["*"], "nonResourceURLs": ["*"]}
        for plural in ("clusterrolebindings", "rolebindings"):
            for stored in self._storage.all(f"{RBAC}/{plural}"):
                namespace = stored.obj["metadata"].get("namespace", "")
                if any(_is_subject(subject, user, namespace) for subject in stored.obj.get("subjects") or ()):
                    role = stored.obj["roleRef"]
                    for rule in self.rules_of_role(role["kind"], role["name"], namespace):
                        yield namespace, rule

    def _may_read_path(self, user: User, path: str) -> bool:
        if path in OPEN_PATHS or MASTERS in user.groups:
            return True
        if "system:authenticated" in user.groups and (path == "/" or path.startswith(_DISCOVERY)):
            return True
        return any(
            any(url == "*" or path == url or (url.endswith("*") and path.startswith(url[:-1])) for url in urls)
            for _, rule in self.rules(user)
            if (urls := rule.get("nonResourceURLs"))
        )

    def _forget(self, change: Change) -> None:
        if change.kind.startswith(RBAC):
            self._rules.clear()


def rule_allows(rule: Obj, verb: str, group: str, wanted: str, subresource: str, name: str) -> bool:
    """Whether one PolicyRule allows an action on `wanted`, a plural with its subresource."""
    resources = rule.get("resources") or ()
    return (
        _has(rule.get("verbs"), verb)
        and _has(rule.get("apiGroups"), group)
        and (_has(resources, wanted) or bool(subresource and f"*/{subresource}" in resources))
        and (not rule.get("resourceNames") or name in rule["resourceNames"])
    )


def refusal(user: User, namespace: str, verb: str, group: str, resource: str, subresource: str, name: str) -> str:
    """Say what a user may not do."""
    what = f"{resource}/{subresource}" if subresource else resource
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    return f'User "{user.name}" cannot {verb} resource "{what}" in API group "{group}" {where}'


def _has(words: Collection[str] | None, word: str) -> bool:
    return bool(words) and ("*" in (words or ()) or word in (words or ()))


def _is_subject(subject: Obj, user: User, namespace: str) -> bool:
    kind, name = subject["kind"], subject["name"]
    if kind == "ServiceAccount":
        return user.name == f"system:serviceaccount:{subject.get('namespace') or namespace}:{name}"
    return name in user.groups if kind == "Group" else name == user.name


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
