"""Bodies of kinds that stand beside a deployment: what scales it, keeps its data, lets it act and routes to it."""

from __future__ import annotations

from tests.differential.sequences import Object

_CONTAINER: Object = {"name": "main", "image": "engine:1"}
_TEMPLATE: Object = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [_CONTAINER]}}
_SELECTED: Object = {"selector": {"matchLabels": {"app": "a"}}, "template": _TEMPLATE}


def _backend(path: str = "/", number: int = 80, **more: object) -> Object:
    backend = {"service": {"name": "a", "port": {"number": number}}}
    return {"http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend} | more]}}


def _trigger(**metadata: str) -> Object:
    return {"type": "prometheus", "metadata": {"query": "up", "threshold": "1"} | metadata}


def _rule(name: str, **rule: object) -> Object:
    found = {key: value for key, value in ({"record": "x:y", "expr": "up"} | rule).items() if value is not None}
    return {"spec": {"groups": [{"name": name, "rules": [found]}]}}


def _listener(port: int = 80, **more: object) -> Object:
    return {"name": "http", "port": port, "protocol": "HTTP"} | more


# Kinds that are not compared whole, each with what is left out and why.
PARTLY = {
    "Job": "generated, held by finalizers, reconciled: its template cannot change, and lite lets it",
    "Gateway": "generated: its status has a default, stored by the first write even where that changes nothing",
    "PersistentVolumeClaim": "generated, held by finalizers: an apply of none takes those of the server along, and "
    "a write that changes nothing is stored",
    "Role": "without rules: kube-apiserver shows them as null",
}
UNGENERATED = "Job", "Gateway", "PersistentVolumeClaim"
UNHELD = "Job", "PersistentVolumeClaim"
LEAST: dict[str, Object] = {
    "ReplicaSet": {"spec": _SELECTED},
    "StatefulSet": {"spec": {"serviceName": "a"} | _SELECTED},
    "Job": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [_CONTAINER]}}}},
    "HorizontalPodAutoscaler": {
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}}
    },
    "PersistentVolumeClaim": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    },
    "Ingress": {"spec": {"rules": [{"host": "a.example.com"} | _backend()]}},
    "Role": {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    "Lease": {"spec": {"holderIdentity": "a"}},
    "PrometheusRule": _rule("a"),
    "LeaderWorkerSet": {
        "spec": {"leaderWorkerTemplate": {"size": 2, "workerTemplate": {"spec": {"containers": [_CONTAINER]}}}}
    },
    "ScaledObject": {"spec": {"scaleTargetRef": {"name": "a"}, "triggers": [_trigger()]}},
    "InferencePool": {
        "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": "a", "port": {"number": 9002}},
        }
    },
    "LLMInferenceServiceConfig": {"spec": {"model": {"uri": "hf://a/b"}}},
    "Gateway": {"spec": {"gatewayClassName": "a", "listeners": [_listener()]}},
}
RIGHT: dict[str, list[Object]] = {
    "ReplicaSet": [
        {"spec": {"replicas": 2}},
        {"spec": {"replicas": 0, "minReadySeconds": 5}},
        {"spec": {"template": {"metadata": {"annotations": {"note": "1"}}}}},
        {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}},
    ],
    "StatefulSet": [
        {"spec": {"replicas": 2}},
        {"spec": {"replicas": 0, "minReadySeconds": 5}},
        {"spec": {"template": {"metadata": {"annotations": {"note": "1"}}}}},
        {"spec": {"revisionHistoryLimit": 3}},
    ],
    "Job": [
        {"spec": {"parallelism": 2}},
        {"spec": {"suspend": True}},
        {"spec": {"activeDeadlineSeconds": 60}},
        {"spec": {"ttlSecondsAfterFinished": 60, "backoffLimit": 1}},
    ],
    "HorizontalPodAutoscaler": [
        {"spec": {"minReplicas": 2}},
        {"spec": {"maxReplicas": 5}},
        {"spec": {"scaleTargetRef": {"name": "b"}}},
        {"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}},
    ],
    "PersistentVolumeClaim": [
        {"metadata": {"annotations": {"x": "y"}}},
        {"spec": {"storageClassName": "fast"}},
        {"spec": {"accessModes": ["ReadWriteMany"]}},
    ],
    "Ingress": [
        {"spec": {"ingressClassName": "x"}},
        {"spec": {"rules": [{"host": "b.example.com"} | _backend("/v1")]}},
        {"spec": {"tls": [{"hosts": ["a.example.com"], "secretName": "a"}]}},
    ],
    "Role": [
        {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]},
        {"rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["*"], "resourceNames": ["a"]}]},
    ],
    "Lease": [
        {"spec": {"leaseDurationSeconds": 5}},
        {"spec": {"holderIdentity": "b", "leaseTransitions": 1}},
        {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}},
    ],
    "PrometheusRule": [
        _rule("b", alert="X", record=None, expr=1),
        _rule("a", labels={"team": "a"}),
        {"spec": {"groups": [{"name": "a", "interval": "30s", "rules": [{"record": "x", "expr": "up"}]}]}},
        {"spec": {"groups": None}},
    ],
    "LeaderWorkerSet": [
        {"spec": {"replicas": 2}},
        {"spec": {"leaderWorkerTemplate": {"size": 3}}},
        {"spec": {"startupPolicy": "LeaderReady"}},
    ],
    "ScaledObject": [
        {"spec": {"maxReplicaCount": 2}},
        {"spec": {"minReplicaCount": 0, "cooldownPeriod": 60}},
        {"spec": {"triggers": [_trigger(threshold="5")]}},
    ],
    "InferencePool": [
        {"spec": {"endpointPickerRef": {"failureMode": "FailOpen"}}},
        {"spec": {"selector": {"matchLabels": {"app": "b"}}}},
        {"spec": {"targetPorts": [{"number": 8001}]}},
    ],
    "LLMInferenceServiceConfig": [
        {"spec": {"replicas": 2}},
        {"spec": {"model": {"name": "b"}}},
        {"spec": {"template": {"containers": [_CONTAINER]}}},
    ],
    "Gateway": [
        {"spec": {"listeners": [_listener(81)]}},
        {"spec": {"listeners": [_listener(), _listener(443, name="more", hostname="x.com")]}},
        {"spec": {"listeners": [_listener(hostname="*.example.com")]}},
    ],
}
WRONG: dict[str, list[Object]] = {
    "ReplicaSet": [{"spec": {"replicas": "x"}}, {"spec": {"nope": 1}}],
    "StatefulSet": [{"spec": {"replicas": "x"}}, {"spec": {"nope": 1}}],
    "Job": [{"spec": {"parallelism": "x"}}, {"spec": {"nope": 1}}],
    "HorizontalPodAutoscaler": [{"spec": {"maxReplicas": 0}}, {"spec": {"maxReplicas": "x"}}, {"spec": {"nope": 1}}],
    "PersistentVolumeClaim": [{"spec": {"storageClassName": 1}}, {"spec": {"nope": 1}}],
    "Ingress": [{"spec": {"rules": "x"}}, {"spec": {"nope": 1}}],
    "Role": [{"rules": "x"}, {"rules": [{"nope": 1, "verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}],
    "Lease": [{"spec": {"leaseDurationSeconds": "x"}}, {"spec": {"nope": 1}}],
    "PrometheusRule": [_rule("a", expr=None), {"spec": {"groups": "x"}}, {"spec": {"nope": 1}}],
    "LeaderWorkerSet": [
        {"spec": {"leaderWorkerTemplate": None}},
        {"spec": {"replicas": "x"}},
        {"spec": {"startupPolicy": "Nope"}},
    ],
    "ScaledObject": [
        {"spec": {"triggers": None}},
        {"spec": {"scaleTargetRef": {"name": None}}},
        {"spec": {"maxReplicaCount": "x"}},
    ],
    "InferencePool": [
        {"spec": {"targetPorts": [{"number": 0}]}},
        {"spec": {"targetPorts": None}},
        {"spec": {"endpointPickerRef": {"port": None}}},
        {"spec": {"endpointPickerRef": {"failureMode": "Nope"}}},
    ],
    "LLMInferenceServiceConfig": [{"spec": {"replicas": "x"}}, {"spec": {"nope": 1}}],
    "Gateway": [
        {"spec": {"listeners": []}},
        {"spec": {"gatewayClassName": None}},
        {"spec": {"listeners": [_listener(0)]}},
        {"spec": {"listeners": [_listener(), _listener()]}},
    ],
}
STATUS: dict[str, list[Object]] = {
    "StatefulSet": [{"status": {"replicas": 1}}, {"status": {"replicas": 2, "readyReplicas": 1}}],
    "ReplicaSet": [{"status": {"replicas": 1}}, {"status": {"replicas": 2, "readyReplicas": 1}}],
}
CHANGES: dict[str, Object] = {
    "ReplicaSet": {"spec": {"replicas": 2}},
    "StatefulSet": {"spec": {"replicas": 2}},
    "Job": {"spec": {"parallelism": 2}},
    "HorizontalPodAutoscaler": {"spec": {"minReplicas": 2}},
    "PersistentVolumeClaim": {"metadata": {"annotations": {"x": "y"}}},
    "Ingress": {"spec": {"ingressClassName": "x"}},
    "Role": {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]},
    "Lease": {"spec": {"leaseDurationSeconds": 5}},
    "PrometheusRule": _rule("b", alert="X", record=None, expr=1),
    "LeaderWorkerSet": {"spec": {"replicas": 2}},
    "ScaledObject": {"spec": {"maxReplicaCount": 2}},
    "InferencePool": {"spec": {"endpointPickerRef": {"failureMode": "FailOpen"}}},
    "LLMInferenceServiceConfig": {"spec": {"replicas": 2}},
    "Gateway": {"spec": {"listeners": [_listener(81)]}},
}
