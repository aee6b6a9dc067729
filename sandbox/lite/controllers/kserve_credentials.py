"""How a storage initializer gets at private models: environment from Secrets listed in the ServiceAccount. Pure.

One Secret is of one kind, told by its keys. Values never appear here: the environment names Secret and key.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.client import Obj
from sandbox.lite.controllers.meta import annotations_of

SECRET_NAME = "serving.kserve.io/storageSecretName"  # noqa: S105 - an annotation's name
GCLOUD_FILE = "gcloud-application-credentials.json"
# Of an account: only with it the account's own annotations count.
ROLE = "eks.amazonaws.com/role-arn"
_S3 = "serving.kserve.io/s3-"
_AZURE = ("AZ_CLIENT_ID", "AZ_CLIENT_SECRET", "AZ_SUBSCRIPTION_ID", "AZ_TENANT_ID", "AZURE_STORAGE_ACCESS_KEY")
_HTTPS = ("https-host", "headers")


@dataclass
class Access:
    """What the init container needs to be allowed in."""

    env: list[Obj] = field(default_factory=list)
    volumes: list[Obj] = field(default_factory=list)
    mounts: list[Obj] = field(default_factory=list)


def secret_names(pod: Obj, account: Obj | None) -> list[str]:
    """Return the Secrets to look at: the one an annotation names, else those in the ServiceAccount's `secrets`."""
    named = annotations_of(pod).get(SECRET_NAME)
    if named:
        return [named]
    return [item["name"] for item in (account or {}).get("secrets") or []]


def access(secrets: list[Obj], account: Obj | None) -> Access:
    """Return what these Secrets, and the account's own annotations, grant."""
    granted = Access()
    if account is not None and ROLE in annotations_of(account):
        granted.env.extend(_s3_env(annotations_of(account)))
    for secret in secrets:
        _grant(granted, secret)
    return granted


def _grant(granted: Access, secret: Obj) -> None:
    keys = {**(secret.get("data") or {}), **(secret.get("stringData") or {})}.keys()
    if "AWS_SECRET_ACCESS_KEY" in keys:
        pair = [_from(secret, name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
        granted.env.extend([*pair, *_s3_env(annotations_of(secret))])
    elif GCLOUD_FILE in keys:
        volume = "user-gcp-sa"
        granted.volumes.append({"name": volume, "secret": {"secretName": secret["metadata"]["name"]}})
        granted.mounts.append({"name": volume, "mountPath": "/var/secrets/", "readOnly": True})
        granted.env.append({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": f"/var/secrets/{GCLOUD_FILE}"})
    elif any(name in keys for name in _AZURE):
        granted.env.extend(_from(secret, name) for name in _AZURE if name in keys)
    elif "https-host" in keys:
        granted.env.extend(_from(secret, name) for name in _HTTPS if name in keys)
    elif "HF_TOKEN" in keys:
        granted.env.append(_from(secret, "HF_TOKEN"))


def _from(secret: Obj, key: str) -> Obj:
    return {"name": key, "valueFrom": {"secretKeyRef": {"key": key, "name": secret["metadata"]["name"]}}}


def _s3_env(annotations: dict[str, str]) -> list[Obj]:
    """Translate the annotations on a Secret or account into what boto3 and KServe's loader read."""
    found: list[tuple[str, str]] = []
    https = annotations.get(f"{_S3}usehttps")
    endpoint = annotations.get(f"{_S3}endpoint")
    if endpoint:
        if https is not None:
            found.append(("S3_USE_HTTPS", https))
        found.append(("S3_ENDPOINT", endpoint))
        found.append(("AWS_ENDPOINT_URL", f"{'http' if https == '0' else 'https'}://{endpoint}"))
    for suffix, name in (
        ("verifyssl", "S3_VERIFY_SSL"),
        ("useanoncredential", "awsAnonymousCredential"),
        ("region", "AWS_DEFAULT_REGION"),
        ("usevirtualbucket", "S3_USER_VIRTUAL_BUCKET"),
        ("cabundle", "AWS_CA_BUNDLE"),
        ("cabundle-configmap", "AWS_CA_BUNDLE_CONFIGMAP"),
    ):
        if annotations.get(f"{_S3}{suffix}") is not None:
            found.append((name, annotations[f"{_S3}{suffix}"]))
    return [{"name": name, "value": value} for name, value in found]
