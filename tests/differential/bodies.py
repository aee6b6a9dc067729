"""Bodies of the kinds compared, right and wrong, from alphabets so small that requests collide.

Each entry of RIGHT and WRONG is laid over the least valid object of its kind, or over a live one, as a merge patch.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from tests.differential import bodies_custom as custom
from tests.differential import bodies_more as more
from tests.differential import bodies_pods as pods
from tests.differential.sequences import BY_NAME, HARD, UNUSED, Object

NAMES = "a", "b"

# The least of each kind that is valid.
LEAST: dict[str, Object] = {
    "ConfigMap": {"data": {"x": "1"}},
    "Secret": {"data": {"x": "MQ=="}},
    "ServiceAccount": {},
    "Service": {"spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}},
    "ResourceQuota": {"spec": {"hard": {"pods": "2"}}},
    "LimitRange": {"spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "100m"}}]}},
    "NetworkPolicy": {"spec": {"podSelector": {"matchLabels": {"app": "a"}}}},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "a"}}}},
    "RoleBinding": {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "default"}],
    },
    **pods.LEAST,
    **custom.LEAST,
    **more.LEAST,
}
RIGHT: dict[str, list[Object]] = {
    "ConfigMap": [
        {"data": {"x": "2"}},
        {"data": {"y": "1"}},
        {"data": {"x": "1", "y": "2"}},
        {"binaryData": {"z": "AAAA"}},
        {"immutable": True},
        {"data": None},
    ],
    "Secret": [
        {"data": {"x": "Mg=="}},
        {"stringData": {"y": "2"}},
        {"stringData": {"x": "3"}},
        {"type": "example.com/kind"},
        {"immutable": True},
        {"data": None},
    ],
    "ServiceAccount": [
        {"automountServiceAccountToken": False},
        {"imagePullSecrets": [{"name": "a"}]},
        {"imagePullSecrets": [{"name": "b"}]},
        {"secrets": [{"name": "a"}]},
        {"imagePullSecrets": None},
    ],
    "Service": [
        {"spec": {"ports": [{"port": 80, "targetPort": 8080}]}},
        {"spec": {"ports": [{"name": "http", "port": 80}, {"name": "more", "port": 81, "targetPort": "x"}]}},
        {"spec": {"ports": [{"name": "http", "port": 80, "protocol": "UDP"}]}},
        {"spec": {"selector": {"app": "b"}}},
        {"spec": {"selector": {"tier": "a"}}},
        {"spec": {"clusterIP": "None"}},
        {"spec": {"sessionAffinity": "ClientIP"}},
        {"spec": {"publishNotReadyAddresses": True}},
        {"spec": {"type": "ExternalName", "externalName": "example.com"}},
        {"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}},
    ],
    "ResourceQuota": [
        {"spec": {"hard": {"configmaps": "1"}}},
        {"spec": {"hard": {"count/configmaps": "2"}}},
        {"spec": {"hard": {"requests.nvidia.com/gpu": "2"}}},
        {"spec": {"hard": {"requests.cpu": "1", "limits.memory": "1024Mi"}}},
        {"spec": {"hard": {"pods": "1"}}},
        {"spec": {"hard": {"count/deployments.apps": "1", "count/pods": "1"}}},
        {"spec": {"hard": {"pods": None, "cpu": "1.5", "memory": "1G"}}},
        {"spec": {"scopes": ["NotTerminating"]}},
        {"spec": {"hard": {"services": "1", "services.nodeports": "1", "secrets": "1"}}},
        {"spec": {"hard": {"count/inferenceservices.serving.kserve.io": "1", "resourcequotas": "2"}}},
    ],
    "LimitRange": [
        {"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]}},
        {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "50m"}}]}},
        {"spec": {"limits": [{"type": "Pod", "max": {"memory": "1Gi"}}]}},
        {"spec": {"limits": [{"type": "Container", "defaultRequest": {"memory": "1000Mi", "cpu": "0.1"}}]}},
    ],
    "NetworkPolicy": [
        {"spec": {"policyTypes": ["Ingress"]}},
        {"spec": {"policyTypes": ["Ingress", "Egress"]}},
        {"spec": {"ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}]}},
        {"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}},
        {"spec": {"podSelector": {"matchLabels": None}}},
    ],
    "PodDisruptionBudget": [
        {"spec": {"maxUnavailable": "50%"}},
        {"spec": {"maxUnavailable": None, "minAvailable": 1}},
        {"spec": {"selector": {"matchLabels": {"app": "b"}}}},
        {"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}},
    ],
    "RoleBinding": [
        {"subjects": [{"kind": "User", "name": "ann"}]},
        {"subjects": [{"kind": "Group", "name": "team", "apiGroup": "rbac.authorization.k8s.io"}]},
        {"subjects": None},
        {"roleRef": {"kind": "Role", "name": "a"}},
    ],
    **pods.RIGHT,
    **custom.RIGHT,
    **more.RIGHT,
}
WRONG: dict[str, list[Object]] = {
    "ConfigMap": [
        {"data": {"x y": "1"}},
        {"data": {"x": 1}},
        {"data": "x"},
        {"binaryData": {"x": "AAAA"}},
        {"binaryData": {"z": "?"}},
        {"immutable": "yes"},
        {"data": {"..": "1"}},
    ],
    "Secret": [
        {"data": {"x": "?"}},
        {"data": {"x y": "MQ=="}},
        {"stringData": {"x": 1}},
        {"type": "kubernetes.io/tls"},
        {"type": "kubernetes.io/dockerconfigjson"},
    ],
    "ServiceAccount": [
        {"automountServiceAccountToken": "no"},
        {"imagePullSecrets": "a"},
        {"imagePullSecrets": [{"nope": "a"}]},
    ],
    "Service": [
        {"spec": {"ports": []}},
        {"spec": {"ports": [{"port": 0}]}},
        {"spec": {"ports": [{"port": 70000}]}},
        {"spec": {"ports": [{"port": "http"}]}},
        {"spec": {"ports": [{"port": 80}, {"port": 81}]}},
        {"spec": {"ports": [{"name": "x", "port": 80}, {"name": "x", "port": 81}]}},
        {"spec": {"ports": [{"port": 80, "protocol": "NOPE"}]}},
        {"spec": {"type": "Nope"}},
        {"spec": {"clusterIP": "10.0.0.1"}},
        {"spec": {"selector": {"app": "a b"}}},
        {"spec": {"type": "ExternalName"}},
        {"spec": {"sessionAffinity": "Nope"}},
    ],
    "ResourceQuota": [
        {"spec": {"hard": {"pods": "-1"}}},
        {"spec": {"hard": {"pods": "1.5"}}},
        {"spec": {"hard": {"nope": "1"}}},
        {"spec": {"hard": {"cpu": "x"}}},
        {"spec": {"hard": {"pods": 1}}},
        {"spec": {"hard": {"limits.nvidia.com/gpu": "1"}}},
        {"spec": {"scopes": ["Nope"]}},
        {"spec": {"hard": "x"}},
    ],
    "LimitRange": [
        {"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}},
        {"spec": {"limits": [{"type": "Container", "default": {"cpu": "2"}, "max": {"cpu": "1"}}]}},
        {"spec": {"limits": [{"default": {"cpu": "2"}}]}},
        {"spec": {"limits": [{"type": "Pod", "default": {"cpu": "2"}}]}},
        {"spec": {"limits": [{"type": "Container"}, {"type": "Container"}]}},
        {"spec": {"limits": "x"}},
    ],
    "NetworkPolicy": [
        {"spec": {"policyTypes": ["Nope"]}},
        {"spec": {"ingress": [{"ports": [{"port": 0}]}]}},
        {"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}},
        {"spec": {"podSelector": {"matchLabels": {"a b": "a"}}}},
        {"spec": {"ingress": [{"from": [{}]}]}},
    ],
    "PodDisruptionBudget": [
        {"spec": {"maxUnavailable": -1}},
        {"spec": {"maxUnavailable": "x"}},
        {"spec": {"minAvailable": 1, "maxUnavailable": 1}},
        {"spec": {"selector": {"matchLabels": {"app": "a b"}}}},
        {"spec": {"unhealthyPodEvictionPolicy": "Nope"}},
        {"spec": {"maxUnavailable": 1.5}},
    ],
    "RoleBinding": [
        {"subjects": [{"kind": "ServiceAccount", "name": "a"}]},
        {"subjects": [{"kind": "Nope", "name": "a"}]},
        {"subjects": [{"kind": "User"}]},
        {"roleRef": {"kind": "Nope"}},
        {"roleRef": {"name": ""}},
        {"roleRef": {"apiGroup": "nope"}},
        {"subjects": "x"},
    ],
    **pods.WRONG,
    **custom.WRONG,
    **more.WRONG,
}
# The same of every kind's metadata, and fields that no kind has.
RIGHT_ANYWHERE: list[Object] = [
    {"metadata": {"labels": {"app": "a"}}},
    {"metadata": {"labels": {"app": "b", "tier": "a"}}},
    {"metadata": {"labels": {"app": None}}},
    {"metadata": {"annotations": {"note": "1"}}},
    {"metadata": {"annotations": {"note": "2", "example.com/more": "x"}}},
    {"metadata": {"finalizers": ["example.com/hold"]}},
    {"metadata": {"finalizers": None}},
    {
        "metadata": {
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "00000000-0000-4000-8000-000000000000"}
            ]
        }
    },
]
WRONG_ANYWHERE: list[Object] = [
    {"metadata": {"labels": {"app": "a b"}}},
    {"metadata": {"labels": {"a b": "a"}}},
    {"metadata": {"labels": {"app": 1}}},
    {"metadata": {"annotations": {"a b": "1"}}},
    {"metadata": {"finalizers": ["hold"]}},
    {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a"}]}},
    {"metadata": {"namespace": "other"}},
    {"metadata": {"name": "c"}},
    {"metadata": {"nope": 1}},
    {"nope": {"a": 1}},
    {"kind": "Nope"},
    {"apiVersion": "nope/v1"},
]
# What the status subresource of a kind is sent.
STATUS: dict[str, list[Object]] = {
    "ResourceQuota": [
        {"status": {"hard": HARD, "used": UNUSED}},
        {"status": {"hard": {"pods": "2", "configmaps": "1"}, "used": {"pods": "1", "configmaps": "1"}}},
        {"status": {"hard": {"pods": "2", "cpu": "1"}, "used": {"pods": "0"}}},
        {"status": {"hard": {"requests.memory": "1Gi", "cpu": "1"}, "used": {"requests.memory": "512Mi", "cpu": "0"}}},
        {"status": {"used": {"nope": "1"}}},
        {"status": {"used": {"pods": "-1"}}},
        {"status": None},
    ],
    **pods.STATUS,
    **custom.STATUS,
    **more.STATUS,
}
# Places that a JSON patch of a kind points at.
POINTERS: dict[str, tuple[str, ...]] = {
    "ConfigMap": ("/data/x", "/data/y", "/data"),
    "Service": ("/spec/ports/0/port", "/spec/selector/app"),
    "ResourceQuota": ("/spec/hard/pods",),
    "Pod": ("/spec/containers/0/image",),
    "Deployment": ("/spec/replicas", "/spec/template/spec/containers/0/image"),
    "InferenceService": ("/spec/predictor/minReplicas",),
    "HTTPRoute": ("/spec/hostnames",),
}


def whole(kind: str, name: str, rest: Object | None = None, **meta: Any) -> Object:
    """An object of a kind."""
    found: Object = {"apiVersion": BY_NAME[kind].api_version, "kind": kind, "metadata": {"name": name, **meta}}
    return found | deepcopy(rest or {})


def laid(body: Object, changes: Object) -> Object:
    """Lay a merge patch over a body; None removes."""
    joined = dict(body)
    for name, value in changes.items():
        if value is None:
            joined.pop(name, None)
        elif isinstance(value, dict):
            below = joined.get(name)
            joined[name] = laid(below if isinstance(below, dict) else {}, value)
        else:
            joined[name] = deepcopy(value)
    return joined
