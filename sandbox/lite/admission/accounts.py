"""Every pod runs as a ServiceAccount and carries its token."""

from __future__ import annotations

from typing import Any

from sandbox.lite import errors, names
from sandbox.lite.admission.change import Change

Obj = dict[str, Any]

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


def give_account(change: Change) -> None:
    """Name the account (403 when there is none) and mount its token as the recordings show."""
    if not change.is_new("/pods"):
        return
    spec = change.obj["spec"]
    name = spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = name
    account = change.cluster.read("/serviceaccounts", change.namespace, name)
    if account is None:
        raise errors.forbidden(
            "",
            "pods",
            change.asked_name,
            f'error looking up service account {change.namespace}/{name}: serviceaccount "{name}" not found',
        )
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(secret) for secret in account["imagePullSecrets"]]
    wanted = spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
    if wanted:
        _mount_token(spec)


def _mount_token(spec: Obj) -> None:
    containers = (spec.get("initContainers") or []) + (spec.get("containers") or [])
    without = [c for c in containers if all(m.get("mountPath") != MOUNT_PATH for m in c.get("volumeMounts") or ())]
    if not without:
        return
    volumes = spec.setdefault("volumes", [])
    known = next((v["name"] for v in volumes if v["name"].startswith("kube-api-access-")), None)
    name = known or names.generate("kube-api-access-")
    if known is None:
        volumes.append(_token_volume(name))
    for container in without:
        mounts = container.setdefault("volumeMounts", [])
        mounts.append({"mountPath": MOUNT_PATH, "name": name, "readOnly": True})


def _token_volume(name: str) -> Obj:
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
                {"downwardAPI": {"items": [{"fieldRef": field, "path": "namespace"}]}},
            ],
        },
    }
