"""The objects of a new control plane: KServe's and LeaderWorkerSet's own, other projects' CRDs, and the sandbox's."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson

from sandbox.definitions import of_others
from sandbox.lite.bootstrap import SYSTEM, role
from sandbox.real import tools

Obj = dict[str, Any]

__all__ = ["SYSTEM", "accounts", "definitions", "foundation", "namespaces", "served", "webhooks"]

LITE = Path(__file__).parents[1] / "lite"
NAMESPACES = "kserve", "lws-system", SYSTEM
WEBHOOK_SERVICES = {
    "kserve-webhook-server-service": "kserve",
    "llmisvc-webhook-server-service": "llmisvc",
    "webhook-service": "lws",
}
# KEDA does not run here, and a kind of it would say that it does.
NOBODY_PLAYS = ".keda.sh"
WEBHOOKS = "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"
# What runs as a process here, what another program would make, and what is installed later.
LEFT_OUT = "Deployment", "Certificate", "Issuer", "Namespace", "Secret", "CustomResourceDefinition", *WEBHOOKS
SERVED = "ClusterServingRuntime", "LLMInferenceServiceConfig", "ClusterStorageContainer"
# KServe's webhook watches every pod that carries its label; LeaderWorkerSet's would have every pod wait for it.
LWS_PODS = {"matchExpressions": [{"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"}]}


def namespaces() -> list[Obj]:
    """The namespaces of the controllers and of Slipway."""
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES]


def definitions(ports: Mapping[str, int], authority: bytes) -> list[Obj]:
    """Every CustomResourceDefinition: KServe's and LeaderWorkerSet's from their modules, others from `k8s/crds`."""
    others = (path for path in of_others() if not path.stem.endswith(NOBODY_PLAYS))
    found = {path.stem: orjson.loads(path.read_bytes()) for path in others}
    for item in _brought():
        if item["kind"] == "CustomResourceDefinition":
            found[item["metadata"]["name"]] = item
    for item in found.values():
        item.pop("status", None)
        conversion = item["spec"].get("conversion") or {}
        config = (conversion.get("webhook") or {}).get("clientConfig")
        if config is not None:
            conversion["webhook"]["clientConfig"] = _called(config, ports, authority)
    return list(found.values())


def foundation() -> list[Obj]:
    """What the controllers need before they start: accounts, roles, services, configuration, storage, and a gateway."""
    found = [item for item in _brought() if item["kind"] not in (*LEFT_OUT, *SERVED)]
    for item in found:
        if item["kind"] == "ClusterRole" and item["metadata"]["name"] == "manager-role":  # LeaderWorkerSet's
            item["metadata"]["name"] = "lws-manager-role"
    found += _lws_account()
    first = json.loads((LITE / "data" / "first.json").read_text())
    return found + [item for item in first if item["kind"] in ("StorageClass", "GatewayClass", "Gateway")]


def accounts(names: Iterable[str]) -> list[Obj]:
    """ServiceAccounts in Slipway's namespace, and the roles of those that play the sandbox's parts."""
    found: list[Obj] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": SYSTEM}}
        for name in names
    ]
    roles = json.loads((LITE / "data" / "roles.json").read_text())
    return found + [item for name, rules in roles.items() for item in role(name, rules)]


def webhooks(ports: Mapping[str, int], authority: bytes) -> list[Obj]:
    """The admission webhooks, called at the ports where the controllers listen."""
    found = [item for item in _brought() if item["kind"] in WEBHOOKS]
    for item in found:
        for hook in item["webhooks"]:
            hook["clientConfig"] = _called(hook["clientConfig"], ports, authority)
            if "pods" in {name for rule in hook["rules"] for name in rule["resources"]} and _is_lws(item):
                hook["objectSelector"] = LWS_PODS
        if _is_lws(item):
            item["metadata"]["name"] = f"lws-{item['metadata']['name']}"
    return found


def served() -> list[Obj]:
    """What passes the webhooks: KServe's runtimes, presets and storage container."""
    return [item for item in _brought() if item["kind"] in SERVED]


def _brought() -> Iterator[Obj]:
    for group in tools.WITH_MANIFESTS:
        for item in json.loads(tools.manifests(group).read_text()):
            item["metadata"].pop("creationTimestamp", None)
            yield item


def _is_lws(item: Obj) -> bool:
    return item["metadata"]["name"] in ("mutating-webhook-configuration", "validating-webhook-configuration")


def _called(config: Obj, ports: Mapping[str, int], authority: bytes) -> Obj:
    """A webhook's address on this machine in place of a Service of the cluster."""
    service = config["service"]
    port = ports[WEBHOOK_SERVICES[service["name"]]]
    return {
        "url": f"https://127.0.0.1:{port}{service.get('path', '/')}",
        "caBundle": base64.b64encode(authority).decode(),
    }


def _lws_account() -> list[Obj]:
    rbac = "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": "lws-controller-manager", "namespace": "lws-system"}
    return deepcopy(
        [
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": account["name"], "namespace": account["namespace"]},
            },
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "lws-manager-rolebinding"},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "lws-manager-role"},
                "subjects": [account],
            },
        ]
    )
