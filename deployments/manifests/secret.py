"""The Secret of a credential, in the shape that storage initializers and kubelets read. Never logged or read back."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from deployments.labels import LABEL_INSTALL, LABEL_TEAM, MANAGED_BY
from deployments.manifests.common import Object

GOOGLE_FILE = "gcloud-application-credentials.json"
DOCKER_TYPE = "kubernetes.io/dockerconfigjson"
_S3 = "serving.kserve.io/s3-"


def build_secret(
    *,
    name: str,
    namespace: str,
    team: str,
    install_id: str,
    kind: str,
    value: Mapping[str, str],
    settings: Mapping[str, str],
) -> Object:
    """An immutable Secret of one value; its keys tell KServe which kind it is."""
    labels = {"app.kubernetes.io/managed-by": MANAGED_BY, LABEL_INSTALL: install_id, LABEL_TEAM: team}
    metadata: Object = {"name": name, "namespace": namespace, "labels": labels}
    if annotations := _annotations(kind, settings):
        metadata["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": DOCKER_TYPE if kind == "registry" else "Opaque",
        "immutable": True,
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in _data(kind, value, settings).items()},
    }


def _data(kind: str, value: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    if kind == "hf":
        return {"HF_TOKEN": value["token"]}
    if kind == "s3":
        return {"AWS_ACCESS_KEY_ID": value["access_key_id"], "AWS_SECRET_ACCESS_KEY": value["secret_access_key"]}
    if kind == "gs":
        return {GOOGLE_FILE: value["service_account"]}
    pair = base64.b64encode(f"{value['username']}:{value['password']}".encode()).decode()
    login = {"username": value["username"], "password": value["password"], "auth": pair}
    return {".dockerconfigjson": json.dumps({"auths": {settings["server"]: login}})}


def _annotations(kind: str, settings: Mapping[str, str]) -> dict[str, str]:
    """KServe reads where an S3 server is from annotations of the Secret."""
    if kind != "s3":
        return {}
    found = {}
    if settings.get("endpoint"):
        parts = urlsplit(settings["endpoint"])
        found = {f"{_S3}endpoint": parts.netloc, f"{_S3}usehttps": "1" if parts.scheme == "https" else "0"}
    if settings.get("region"):
        found[f"{_S3}region"] = settings["region"]
    return found


def s3_variables(settings: Mapping[str, str]) -> list[tuple[str, str]]:
    """The same as variables of an initializer that KServe does not write itself."""
    found = []
    if settings.get("endpoint"):
        parts = urlsplit(settings["endpoint"])
        secure = parts.scheme == "https"
        found = [("S3_USE_HTTPS", "1" if secure else "0"), ("S3_ENDPOINT", parts.netloc)]
        found.append(("AWS_ENDPOINT_URL", f"{'https' if secure else 'http'}://{parts.netloc}"))
    if settings.get("region"):
        found.append(("AWS_DEFAULT_REGION", settings["region"]))
    return found
