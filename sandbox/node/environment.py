"""The environment and arguments of a container, references resolved as the kubelet does."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from sandbox.client import ApiError, Client, resource_path

REFERENCE = re.compile(r"\$(\$|\(([A-Za-z_][A-Za-z0-9_.-]*)\))")


class ConfigError(Exception):
    """A secret, config map or key is missing: CreateContainerConfigError with this message."""


class Resolver:
    """Reads what one pod's environment refers to. Each object is read once for each start of a container."""

    def __init__(self, client: Client, pod: Mapping[str, Any], node_name: str, node_ip: str, pod_ip: str) -> None:
        self.client = client
        self.pod = pod
        self.fields: dict[str, str] = {
            "metadata.name": pod["metadata"]["name"],
            "metadata.namespace": pod["metadata"]["namespace"],
            "metadata.uid": pod["metadata"]["uid"],
            "spec.nodeName": node_name,
            "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
            "status.hostIP": node_ip,
            "status.podIP": pod_ip,
            "status.podIPs": pod_ip,
        }
        self._read: dict[tuple[str, str], dict[str, str] | None] = {}

    async def environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """All variables of a container; raises ConfigError."""
        result: dict[str, str] = {}
        for source in container.get("envFrom") or []:
            prefix = source.get("prefix", "")
            for kind in ("configMapRef", "secretRef"):
                if kind in source:
                    data = await self._data(kind.removesuffix("Ref"), source[kind])
                    result |= {prefix + key: value for key, value in (data or {}).items()}
        for entry in container.get("env") or []:
            value = await self._value(entry, result)
            if value is not None:
                result[entry["name"]] = value
        return result

    async def _value(self, entry: Mapping[str, Any], known: Mapping[str, str]) -> str | None:
        source = entry.get("valueFrom")
        if source is None:
            return expand(str(entry.get("value", "")), known)
        if "fieldRef" in source:
            return self._field(source["fieldRef"]["fieldPath"])
        for name in ("secretKeyRef", "configMapKeyRef"):
            if name in source:
                return await self._key(name.removesuffix("KeyRef"), source[name])
        return ""

    async def _key(self, kind: str, reference: Mapping[str, Any]) -> str | None:
        data = await self._data(kind, reference)
        if data is not None and reference["key"] in data:
            return str(data[reference["key"]])
        if reference.get("optional"):
            return None
        namespace = self.pod["metadata"]["namespace"]
        word = "Secret" if kind == "secret" else "ConfigMap"
        raise ConfigError(f"couldn't find key {reference['key']} in {word} {namespace}/{reference['name']}")

    async def _data(self, kind: str, reference: Mapping[str, Any]) -> dict[str, str] | None:
        name = reference["name"]
        if (kind, name) not in self._read:
            self._read[kind, name] = await self._fetch(kind, name)
        data = self._read[kind, name]
        if data is None and not reference.get("optional"):
            raise ConfigError(f'{kind.lower()} "{name}" not found')
        return data

    async def _fetch(self, kind: str, name: str) -> dict[str, str] | None:
        plural = "secrets" if kind == "secret" else "configmaps"
        path = resource_path("v1", plural, self.pod["metadata"]["namespace"], name)
        try:
            found = await self.client.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise ConfigError(f'failed to get {kind} "{name}": {error.body.get("message", error.reason)}') from error
        data: dict[str, str] = found.get("data") or {}
        if kind == "secret":
            return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
        return data

    def _field(self, path: str) -> str:
        match = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
        if match:
            return str((self.pod["metadata"].get(match[1]) or {}).get(match[2], ""))
        return self.fields.get(path, "")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)`; unknown names stay, `$$` is a dollar sign."""

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[2], match[0])

    return REFERENCE.sub(replace, text)
