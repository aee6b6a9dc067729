"""Bodies of pods and of what makes them."""

from __future__ import annotations

from copy import deepcopy

from tests.differential.sequences import Object

_CONTAINER: Object = {"name": "main", "image": "engine:1"}
_TIME = "2026-01-01T00:00:00Z"
_SAFE: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _with(*containers: Object, **spec: object) -> Object:
    """A pod spec whose containers are the usual one with something laid over it."""
    return {"containers": [deepcopy(_CONTAINER) | deepcopy(each) for each in containers or ({},)], **spec}


def _resources(requests: Object | None = None, limits: Object | None = None) -> Object:
    given = {"requests": requests, "limits": limits}
    return {"resources": {name: amounts for name, amounts in given.items() if amounts is not None}}


_RIGHT_SPECS: list[Object] = [
    _with({"securityContext": _SAFE}),
    _with({"image": "engine:2"}),
    _with({"image": "engine"}),
    _with({"image": "registry.example.com/engine@sha256:" + "a" * 64}),
    _with(_resources({"cpu": "100m", "memory": "64Mi"})),
    _with(_resources(None, {"nvidia.com/gpu": "1"})),
    _with(_resources({"nvidia.com/gpu": 2}, {"nvidia.com/gpu": 2})),
    _with(_resources({"cpu": "0.5"}, {"cpu": "1000m", "memory": "1Gi"})),
    _with({"ports": [{"containerPort": 8080}], "env": [{"name": "A", "value": "1"}]}),
    _with({"ports": [{"containerPort": 8080, "name": "http"}], "args": ["--model", "x"]}),
    _with(
        {"env": [{"name": "A", "value": "2"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}
    ),
    _with({}, {"name": "side"}),
    _with({"readinessProbe": {"httpGet": {"port": 8080}}}),
    _with({"livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 5}}),
    _with(
        {"volumeMounts": [{"name": "cache", "mountPath": "/cache"}]},
        volumes=[{"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
    ),
    _with(volumes=[{"name": "s", "secret": {"secretName": "a"}}, {"name": "c", "configMap": {"name": "a"}}]),
    _with(initContainers=[{"name": "first", "image": "fetch:1"}]),
    _with(serviceAccountName="default", automountServiceAccountToken=False),
    _with(nodeSelector={"gpu": "l4"}, tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}]),
    _with(securityContext={"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}),
]
_WRONG_SPECS: list[Object] = [
    {"containers": []},
    {},
    _with({"name": "Main_1"}),
    _with({"name": ""}),
    _with({"image": ""}),
    _with({}, {}),
    _with({"imagePullPolicy": "Nope"}),
    _with({"securityContext": {"privileged": True}}),
    _with({"volumeMounts": [{"name": "nope", "mountPath": "/x"}]}),
    _with({"ports": [{"containerPort": 0}]}),
    _with({"ports": [{"containerPort": 80, "protocol": "NOPE"}]}),
    _with({"env": [{"name": "a b"}]}),
    _with({"env": [{"value": "x"}]}),
    _with(_resources({"cpu": "2"}, {"cpu": "1"})),
    _with(_resources({"nvidia.com/gpu": "1"})),
    _with(_resources(None, {"nvidia.com/gpu": "0.5"})),
    _with(_resources({"cpu": "x"})),
    _with(_resources({"nope": "1"})),
    _with(hostNetwork=True),
    _with(volumes=[{"name": "h", "hostPath": {"path": "/"}}]),
    _with(volumes=[{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]),
    _with(restartPolicy="Nope"),
    _with(priorityClassName="nope"),
    _with(serviceAccountName="nope"),
    _with(nope=1),
    _with({"nope": 1}),
    _with(tolerations=[{"operator": "Exists", "value": "x"}]),
    _with(nodeSelector={"a b": "c"}),
    _with({"readinessProbe": {"httpGet": {"port": 0}}}),
    _with({"readinessProbe": {}}),
    _with({"args": "x"}),
]

LEAST: dict[str, Object] = {
    "Pod": {"spec": _with()},
    "Deployment": {
        "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": _with()},
        }
    },
}
RIGHT: dict[str, list[Object]] = {
    "Pod": [
        *({"spec": spec} for spec in _RIGHT_SPECS),
        {"spec": {"activeDeadlineSeconds": 5}},
        {"spec": {"terminationGracePeriodSeconds": 1}},
        {"spec": {"nodeName": "node-a"}},
        {"spec": {"tolerations": [{"key": "x", "operator": "Exists"}]}},
    ],
    "Deployment": [
        *({"spec": {"template": {"spec": spec}}} for spec in _RIGHT_SPECS),
        *({"spec": {"replicas": number}} for number in (0, 2, 3)),
        {"spec": {"paused": True}},
        {"spec": {"strategy": {"type": "Recreate"}}},
        {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}},
        {"spec": {"template": {"metadata": {"annotations": {"note": "1"}}}}},
        {"spec": {"minReadySeconds": 5, "progressDeadlineSeconds": 60}},
    ],
}
WRONG: dict[str, list[Object]] = {
    "Pod": [*({"spec": spec} for spec in _WRONG_SPECS), {"spec": None}],
    "Deployment": [
        *({"spec": {"template": {"spec": spec}}} for spec in _WRONG_SPECS),
        {"spec": {"replicas": -1}},
        {"spec": {"replicas": "x"}},
        {"spec": {"selector": {"matchLabels": {"app": "b"}}}},
        {"spec": {"selector": {"matchLabels": None}}},
        {"spec": {"selector": None}},
        {"spec": {"template": None}},
        {"spec": {"template": {"metadata": {"labels": {"app": "b"}}}}},
        {"spec": {"strategy": {"type": "Nope"}}},
        {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}},
        {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}},
        {"spec": {"progressDeadlineSeconds": 5, "minReadySeconds": 5}},
        {"spec": None},
    ],
}
STATUS: dict[str, list[Object]] = {
    "Pod": [
        {"status": {"phase": "Running"}},
        {"status": {"phase": "Failed", "reason": "Nope"}},
        {
            "status": {
                "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": _TIME, "lastTransitionTime": _TIME}]
            }
        },
        {"status": {"podIP": "10.0.0.1"}},
    ],
    "Deployment": [
        {"status": {"replicas": 1}},
        {"status": {"observedGeneration": 1, "readyReplicas": 1, "replicas": 1}},
        {"status": {"replicas": -1}},
        {"status": {"nope": 1}},
    ],
}
