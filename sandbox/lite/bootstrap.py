"""What a new cluster starts with, and the kubeconfigs people and parts reach it by."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import yaml

from sandbox import definitions
from sandbox.kubeconfigs import kubeconfig, write_kubeconfig
from sandbox.lite import errors
from sandbox.lite.auth import MASTERS
from sandbox.lite.cluster import CRDS, Cluster
from sandbox.lite.requests import Request, User
from sandbox.lite.writing import create_object, replace_object

log = logging.getLogger(__name__)

Obj = dict[str, Any]

HERE = Path(__file__).parent
SYSTEM = "slipway-system"
YEAR = 365 * 24 * 3600
_OF_THE_SERVER = "default", "kube-system", "kube-public", "kube-node-lease"  # namespaces that it makes itself
_FIRST = ("Namespace", "CustomResourceDefinition")
_ADMIN = User("kubernetes-admin", (MASTERS, "system:authenticated"))


def bring_up(cluster: Cluster, accounts: Iterable[str], manifests: Iterable[Path]) -> None:
    """Make the objects every cluster has, the accounts asked for, and those of `manifests`. Repeatable."""
    for path in definitions.of_lite():
        if cluster.read(CRDS, "", path.stem) is None:
            _ensure(cluster, orjson.loads(path.read_bytes()))
    for name in ("first", "presets"):
        for obj in orjson.loads((HERE / "data" / f"{name}.json").read_bytes()):
            _ensure(cluster, obj)
    for name in accounts:
        _ensure(cluster, _account(name))
    roles = orjson.loads((HERE / "data" / "roles.json").read_bytes())
    for name, rules in roles.items():
        for obj in role(name, rules):
            _ensure(cluster, obj, replace=True)
    for obj in sorted(read_manifests(manifests), key=lambda item: item["kind"] not in _FIRST):
        if cluster.registry.by_kind(obj["apiVersion"], obj["kind"]) is None:
            log.warning("left out %s %s: this cluster does not serve it", obj["kind"], obj["metadata"]["name"])
        else:
            _ensure(cluster, obj, replace=True)


def read_manifests(paths: Iterable[Path]) -> Iterator[Obj]:
    """Yield every YAML document of files and of folders."""
    for path in paths:
        files = sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")]) if path.is_dir() else [path]
        for file in files:
            for document in yaml.safe_load_all(file.read_text()):
                if document and document.get("kind") not in (None, "Kustomization"):
                    yield from document["items"] if document["kind"] == "List" else [document]


def write_kubeconfigs(
    cluster: Cluster, folder: Path, url: str, authority: bytes | None, accounts: Iterable[str]
) -> None:
    """Write `admin.kubeconfig` and one file per account, readable by their owner alone."""
    admin = kubeconfig(url, authority, "kubernetes-admin", cluster.tokens.admin())
    write_kubeconfig(folder / "admin.kubeconfig", admin)
    for name in accounts:
        account = cluster.read("/serviceaccounts", SYSTEM, name)
        if account is None:
            raise LookupError(f"no service account {SYSTEM}/{name}")
        token = cluster.tokens.for_account(account, YEAR)
        write_kubeconfig(folder / f"{name}.kubeconfig", kubeconfig(url, authority, name, token))


def ensure_default_account(cluster: Cluster, namespace: str, authority: bytes | None) -> None:
    """Give a namespace its `default` ServiceAccount and the cluster's root certificate."""
    if cluster.read("/serviceaccounts", namespace, "default") is None:
        _ensure(cluster, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _named("default", namespace)})
    if cluster.read("/configmaps", namespace, "kube-root-ca.crt") is None:
        data = {"ca.crt": (authority or b"").decode()}
        _ensure(
            cluster,
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": _named("kube-root-ca.crt", namespace),
                "data": data,
            },
        )


def _named(name: str, namespace: str) -> Obj:
    return {"name": name, "namespace": namespace}


def _account(name: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _named(name, SYSTEM)}


def role(name: str, rules: list[Obj]) -> Iterator[Obj]:
    """The ClusterRole of a part of the sandbox, and its binding to the account of the same name."""
    rbac = "rbac.authorization.k8s.io"
    meta = {"name": f"sandbox-{name}"}
    yield {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": dict(meta), "rules": rules}
    yield {
        "apiVersion": f"{rbac}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": dict(meta),
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": meta["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": SYSTEM}],
    }


def _ensure(cluster: Cluster, obj: Obj, *, replace: bool = False) -> None:
    """Create an object unless it is there; `replace` brings one that differs up to date."""
    resource = cluster.registry.by_kind(obj["apiVersion"], obj["kind"])
    if resource is None:
        raise LookupError(f"this cluster does not serve {obj['apiVersion']} {obj['kind']}")
    meta = obj["metadata"]
    namespace = meta.get("namespace", "default") if resource.namespaced else ""
    manager = "kube-apiserver" if obj["kind"] == "Namespace" and meta["name"] in _OF_THE_SERVER else "sandbox"
    request = Request(
        "POST", "", {"fieldManager": manager}, {}, verb="create", group=resource.group, version=resource.version,
        resource=resource.plural, namespace=namespace, user=_ADMIN,
    )  # fmt: skip
    stored = cluster.find(resource, namespace, meta["name"])
    obj = obj | {"metadata": dict(meta)}
    if namespace:
        obj["metadata"]["namespace"] = namespace
    if stored is None:
        status = obj.get("status")
        created = create_object(cluster, resource, request, obj)
        if status and resource.has_status and "status" not in created:
            request.subresource = "status"
            fresh = orjson.loads(orjson.dumps(created)) | {"status": status}
            replace_object(cluster, resource, request, created, fresh)
    elif replace:
        try:
            replace_object(cluster, resource, request, stored.obj, obj)
        except errors.StatusError as error:
            if error.code != 422:
                raise
            cluster.storage.remove(resource.storage_key, stored.obj)  # an immutable field changed
            create_object(cluster, resource, request, obj)
