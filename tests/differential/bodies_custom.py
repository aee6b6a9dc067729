"""Bodies of custom resources: KServe's, Gateway API's and the Prometheus operator's."""

from __future__ import annotations

from tests.differential.sequences import Object

_CONTAINER: Object = {"name": "kserve-container", "image": "engine:1"}

LEAST: dict[str, Object] = {
    "InferenceService": {
        "spec": {"predictor": {"model": {"modelFormat": {"name": "vllm"}, "storageUri": "hf://a/b"}}},
    },
    "ServingRuntime": {"spec": {"supportedModelFormats": [{"name": "vllm"}], "containers": [_CONTAINER]}},
    "LLMInferenceService": {"spec": {"model": {"uri": "hf://a/b"}}},
    "HTTPRoute": {
        "spec": {"parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": [{"name": "a", "port": 80}]}]}
    },
    "PodMonitor": {"spec": {"selector": {"matchLabels": {"app": "a"}}, "podMetricsEndpoints": [{"port": "http"}]}},
}
RIGHT: dict[str, list[Object]] = {
    "InferenceService": [
        {"spec": {"predictor": {"minReplicas": 1}}},
        {"spec": {"predictor": {"minReplicas": 2, "maxReplicas": 3}}},
        {"spec": {"predictor": {"model": {"args": ["--max-model-len", "10"]}}}},
        {"spec": {"predictor": {"model": {"args": ["--dtype", "auto"], "env": [{"name": "A", "value": "1"}]}}}},
        {"spec": {"predictor": {"model": {"env": [{"name": "B", "value": "2"}]}}}},
        {"spec": {"predictor": {"model": {"resources": {"limits": {"nvidia.com/gpu": 1, "cpu": "0.5"}}}}}},
        {"spec": {"predictor": {"model": {"runtime": "a"}, "timeout": 60}}},
        {"spec": {"predictor": {"tolerations": [{"key": "x", "operator": "Exists"}], "nodeSelector": {"gpu": "l4"}}}},
        {"spec": {"predictor": {"volumes": [{"name": "v", "emptyDir": {}}]}}},
    ],
    "ServingRuntime": [
        {"spec": {"disabled": True}},
        {"spec": {"multiModel": False}},
        {"spec": {"containers": [_CONTAINER | {"args": ["--port=8080"]}]}},
        {"spec": {"containers": [_CONTAINER, {"name": "side", "image": "b"}]}},
        {"spec": {"containers": [_CONTAINER | {"ports": [{"containerPort": 80}]}]}},
        {"spec": {"supportedModelFormats": [{"name": "vllm", "version": "1", "autoSelect": True}]}},
        {"spec": {"nodeSelector": {"gpu": "l4"}}},
    ],
    "LLMInferenceService": [
        {"spec": {"replicas": 1}},
        {"spec": {"replicas": 2, "parallelism": {"tensor": 2}}},
        {"spec": {"model": {"name": "b"}}},
        {"spec": {"template": {"containers": [{"name": "main", "image": "engine:1"}]}}},
        {"spec": {"router": {"route": {}, "gateway": {}}}},
        {"spec": {"baseRefs": [{"name": "a"}]}},
    ],
    "HTTPRoute": [
        {"spec": {"hostnames": ["a.example.com"]}},
        {"spec": {"hostnames": ["b.example.com", "*.example.com"]}},
        {
            "spec": {
                "rules": [
                    {
                        "matches": [{"path": {"type": "Exact", "value": "/x"}}],
                        "backendRefs": [{"name": "a", "port": 80}],
                    }
                ]
            }
        },
        {"spec": {"rules": [{"matches": [{"headers": [{"name": "x", "value": "y"}]}]}]}},
        {"spec": {"rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "x.com"}}]}]}},
        {"spec": {"rules": [{"name": "one", "timeouts": {"request": "10s"}}]}},
        {"spec": {"parentRefs": [{"name": "gateway", "sectionName": "http"}]}},
        {"spec": {"rules": None}},
    ],
    "PodMonitor": [
        {"spec": {"podMetricsEndpoints": [{"port": "http", "path": "/metrics", "interval": "10s"}]}},
        {"spec": {"namespaceSelector": {"any": True}}},
        {"spec": {"podTargetLabels": ["app"]}},
        {"spec": {"selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}},
    ],
}
WRONG: dict[str, list[Object]] = {
    "InferenceService": [
        {"spec": {"predictor": {"minReplicas": "x"}}},
        {"spec": {"predictor": {"model": {"modelFormat": None}}}},
        {"spec": {"predictor": {"model": {"modelFormat": {"name": None}}}}},
        {"spec": {"predictor": {"model": {"env": [{"value": "x"}]}}}},
        {"spec": {"predictor": {"model": {"env": [{"name": "A"}, {"name": "A"}]}}}},
        {"spec": {"predictor": {"model": {"nope": 1}, "more": {"x": 1}}}},
        {"spec": {"predictor": {"model": {"args": "x"}}}},
        {"spec": {"predictor": {"model": {"args": [1]}}}},
        {"spec": {"predictor": {"model": {"resources": {"limits": {"cpu": "x"}}}}}},
        {"spec": {"predictor": {"model": {"resources": {"limits": {"cpu": True}}}}}},
        {"spec": {"predictor": None}},
        {"spec": None},
        {"spec": "x"},
    ],
    "ServingRuntime": [
        {"spec": {"containers": None}},
        {"spec": {"containers": []}},
        {"spec": {"containers": [{"image": "x"}]}},
        {"spec": {"containers": [_CONTAINER, _CONTAINER]}},
        {"spec": {"containers": [_CONTAINER | {"ports": [{"containerPort": "x"}]}]}},
        {"spec": {"nope": 1}},
        {"spec": {"disabled": "x"}},
        {"spec": {"supportedModelFormats": [{"version": "1"}]}},
    ],
    "LLMInferenceService": [
        {"spec": {"model": None}},
        {"spec": {"model": {"uri": None}}},
        {"spec": {"replicas": "x"}},
        {"spec": {"replicas": -1}},
        {"spec": {"parallelism": {"tensor": 0}}},
        {"spec": {"nope": 1}},
        {"spec": {"template": {"containers": [{"image": "x"}]}}},
    ],
    "HTTPRoute": [
        {"spec": {"hostnames": ["a b"]}},
        {"spec": {"hostnames": ["10.0.0.1"]}},
        {"spec": {"hostnames": "x"}},
        {"spec": {"rules": [{"backendRefs": [{"name": "a"}]}]}},
        {"spec": {"rules": [{"backendRefs": [{"name": "a", "port": 0}]}]}},
        {"spec": {"rules": [{"backendRefs": [{"port": 80}]}]}},
        {"spec": {"rules": [{"matches": [{"path": {"type": "Nope", "value": "/x"}}]}]}},
        {"spec": {"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "x"}}]}]}},
        {"spec": {"rules": [{"matches": [{"path": {"type": "Exact", "value": "/x/../y"}}]}]}},
        {"spec": {"rules": [{"filters": [{"type": "RequestRedirect"}]}]}},
        {
            "spec": {
                "rules": [
                    {
                        "filters": [{"type": "RequestRedirect", "requestRedirect": {}}],
                        "backendRefs": [{"name": "a", "port": 80}],
                    }
                ]
            }
        },
        {"spec": {"rules": [{"timeouts": {"request": "1s", "backendRequest": "2s"}}]}},
        {"spec": {"rules": []}},
        {"spec": {"parentRefs": [{"name": ""}]}},
        {"spec": {"parentRefs": [{"name": "gateway"}, {"name": "gateway"}]}},
        {"spec": {"nope": 1}},
    ],
    "PodMonitor": [
        {"spec": {"selector": None}},
        {"spec": {"podMetricsEndpoints": [{"interval": "x"}]}},
        {"spec": {"podMetricsEndpoints": [{"port": 1}]}},
        {"spec": {"podMetricsEndpoints": None}},
        {"spec": {"selector": {"matchExpressions": [{"key": "app"}]}}},
        {"spec": {"nope": 1}},
    ],
}
STATUS: dict[str, list[Object]] = {
    "InferenceService": [
        {"status": {"url": "http://a.example.com"}},
        {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
        {
            "status": {
                "conditions": [{"type": "Ready", "status": "False", "reason": "x"}, {"type": "More", "status": "x"}]
            }
        },
        {"status": {"url": 1}},
        {"status": {"nope": 1}},
        {"status": None},
    ],
    "LLMInferenceService": [
        {"status": {"url": "http://a.example.com"}},
        {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
    ],
    "HTTPRoute": [
        {"status": {"parents": []}},
        {"status": {"parents": [{"controllerName": "example.com/x", "parentRef": {"name": "gateway"}}]}},
        {"status": {"parents": "x"}},
    ],
}
