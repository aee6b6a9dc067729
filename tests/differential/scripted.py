"""What a reconciler and kubectl send, written by hand for every kind: their fields, managers and media types."""

from __future__ import annotations

from deployments.labels import FIELD_MANAGER
from tests.differential import bodies_more as more
from tests.differential.bodies import LEAST, WRONG, laid, whole
from tests.differential.sequences import OLD_VERSION, UID, VERSION, Object, Sequence, Step

STRICT = {"fieldValidation": "Strict"}
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_MINE = {"fieldManager": FIELD_MANAGER}
_FORCED = _MINE | STRICT | {"force": "true"}


def _move(version: str) -> list[Object]:
    """The JSON patch that turns the first entry of the managed fields from Update into Apply."""
    return [
        {"op": "test", "path": "/metadata/resourceVersion", "value": version},
        {"op": "replace", "path": "/metadata/managedFields/0/operation", "value": "Apply"},
    ]


def reconciled(kind: str, change: Object) -> Sequence:
    """Create, move the managed fields, apply with and without a change, meet a hand edit and a stranger, delete."""
    body = whole(kind, "a", LEAST[kind], labels={"app": "a"})
    mine = laid(body, {"metadata": {"uid": UID}})
    other = laid(body, {"metadata": {"uid": "00000000-0000-4000-8000-000000000000"}})
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    return Sequence(
        (
            Step("create", kind, "a", body, _MINE | STRICT),
            Step("create", kind, "a", body, _MINE | STRICT),
            Step("json", kind, "a", _move(VERSION), _MINE),
            Step("json", kind, "a", _move(OLD_VERSION), _MINE),
            Step("apply", kind, "a", mine, _FORCED),
            Step("apply", kind, "a", laid(mine, change), _FORCED),
            Step("apply", kind, "a", laid(mine, {"metadata": {"labels": None}}), _FORCED),
            Step("merge", kind, "a", laid(change, {"metadata": {"labels": {"by": "hand"}}}), {"fieldManager": "edit"}),
            Step("apply", kind, "a", mine, _FORCED),
            Step("apply", kind, "a", laid(mine, {"metadata": {"resourceVersion": OLD_VERSION}}), _FORCED),
            Step("apply", kind, "a", other, _FORCED),
            Step("apply", kind, "b", laid(other, {"metadata": {"name": "b"}}), _FORCED),
            Step("apply", kind, "a", laid(mine, {"nope": 1}), _FORCED),
            Step("get", kind, "a"),
            Step("list", kind, query={"limit": "500", "labelSelector": "app=a"}),
            Step("delete", kind, "a", options | {"preconditions": {"uid": other["metadata"]["uid"]}}),
            Step("delete", kind, "a", options | {"preconditions": {"uid": UID}}),
            Step("apply", kind, "a", mine, _FORCED),
            Step("delete", kind, "a", options | {"preconditions": {"uid": UID}}),
        ),
        watched=kind,
    )


def by_kubectl(kind: str, change: Object) -> Sequence:
    """Create, apply on the client's side and on the server's, label, annotate, edit, replace and delete."""
    body = whole(kind, "a", LEAST[kind])
    noted = laid(body, {"metadata": {"annotations": {_APPLIED: "{}"}}})
    custom = "." in body["apiVersion"].partition("/")[0] and "k8s.io" not in body["apiVersion"]
    patch = "merge" if custom or kind == "HTTPRoute" else "strategic"
    client, server = {"fieldManager": "kubectl-client-side-apply"}, {"fieldManager": "kubectl"}
    return Sequence(
        (
            Step("create", kind, "a", noted, client | STRICT),
            Step(patch, kind, "a", laid(change, {"metadata": {"annotations": {_APPLIED: "{ }"}}}), client | STRICT),
            Step("apply", kind, "a", body, server | STRICT | {"force": "false"}),
            Step("apply", kind, "a", laid(body, change), server | STRICT | {"force": "true"}),
            Step("apply", kind, "a", body, server | STRICT | {"force": "true", "dryRun": "All"}),
            Step("merge", kind, "a", {"metadata": {"labels": {"app": "b"}}}, {"fieldManager": "kubectl-label"}),
            Step("merge", kind, "a", {"metadata": {"annotations": {"n": "1"}}}, {"fieldManager": "kubectl-annotate"}),
            Step(patch, kind, "a", {"metadata": {"labels": {"app": None}}}, {"fieldManager": "kubectl-edit"} | STRICT),
            Step("update", kind, "a", change, {"fieldManager": "kubectl-replace"} | STRICT, live=True),
            Step("create", kind, "b", laid(body, {"metadata": {"name": "b"}}), {"fieldManager": "kubectl-create"}),
            Step("list", kind, query={"limit": "500"}),
            Step("list", kind, query={"limit": "1"}),
            Step("list", kind, query={"limit": "1", "continue": "@continue"}),
            Step("delete", kind, "a", {"propagationPolicy": "Background"}),
            Step("deletecollection", kind, body={"propagationPolicy": "Background"}),
            Step("get", kind, "b"),
        ),
        watched=kind,
    )


def let_go(kind: str) -> Sequence:
    """Delete what finalizers hold, then let it go: by a patch, by an update as it is read, and by one that is blind."""
    body = whole(kind, "a", LEAST[kind], labels={"app": "a"})
    held = laid(body, {"metadata": {"finalizers": ["example.com/hold"]}})
    freed: Object = {"metadata": {"finalizers": None, "labels": {"app": "b"}}}
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    return Sequence(
        (
            Step("create", kind, "a", held),
            Step("delete", kind, "a"),
            Step("merge", kind, "a", {"metadata": {"finalizers": ["example.com/hold", "z.com/b", "y.com/c"]}}),
            Step("merge", kind, "a", freed | {"nope": 1}, {"fieldValidation": "Strict"}),
            Step("merge", kind, "a", freed, {"fieldManager": "two", "dryRun": "All"}),
            Step("merge", kind, "a", freed, {"fieldManager": "two"}),
            Step("create", kind, "a", held),
            Step("delete", kind, "a"),
            Step("update", kind, "a", freed, {"fieldManager": "two"}, live=True),
            Step("create", kind, "a", body),
            Step("delete", kind, "a", options),
            Step("update", kind, "a", laid(body, {"metadata": {"resourceVersion": VERSION}})),
            Step("get", kind, "a"),
            Step("apply", kind, "a", held, _FORCED),
            Step("delete", kind, "a"),
            Step("apply", kind, "a", laid(body, {"metadata": {"finalizers": []}}), _FORCED),
            Step("list", kind),
        ),
        watched=kind,
    )


def of_another_kind(kind: str) -> Sequence:
    """Create, replace and apply what says that it is of another kind: right in all else, empty, and wrong in all."""
    body, other = whole(kind, "a", LEAST[kind]), {"kind": "Nope"}
    empty = {key: body[key] for key in ("apiVersion", "metadata")} | other
    bodies = (body | other, empty, empty | {"spec": {}}, *(laid(body, wrong) | other for wrong in WRONG.get(kind, ())))
    return Sequence(
        (
            *(Step("create", kind, "a", each) for each in bodies),
            Step("update", kind, "a", bodies[0]),
            Step("merge", kind, "a", other),
            Step("create", kind, "a", body),
            *(Step("update", kind, "a", laid(each, {"metadata": {"resourceVersion": VERSION}})) for each in bodies),
            Step("update", kind, "a", laid(bodies[0], {"metadata": {"resourceVersion": None}})),
            Step("update", kind, "a", laid(bodies[0], {"metadata": {"resourceVersion": OLD_VERSION}})),
            Step("update", kind, "a", bodies[0], subresource="status"),
            Step("merge", kind, "a", other),
            Step("json", kind, "a", [{"op": "replace", "path": "/kind", "value": "Nope"}]),
            *(Step("apply", kind, "a", each, _FORCED) for each in bodies),
        )
    )


def quota_used_up() -> Sequence:
    """A quota whose status is written as its controller would, then more than it allows."""
    hard = {"count/configmaps": "1", "pods": "3", "requests.nvidia.com/gpu": "2"}
    quota = whole("ResourceQuota", "team", {"spec": {"hard": hard}})
    status = {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}

    def pod(name: str, gpus: int) -> Step:
        amounts = {"nvidia.com/gpu": str(gpus)}
        container = {"name": "main", "image": "engine:1", "resources": {"limits": amounts} if gpus else {}}
        return Step("create", "Pod", name, whole("Pod", name, {"spec": {"containers": [container]}}))

    return Sequence(
        (
            Step("create", "ServiceAccount", "default", whole("ServiceAccount", "default")),
            Step("create", "ResourceQuota", "team", quota),
            Step("update", "ResourceQuota", "team", status, subresource="status", live=True),
            pod("a", 1),
            pod("b", 2),
            pod("c", 1),
            pod("d", 1),
            pod("e", 0),
            pod("f", 0),
            Step("create", "ConfigMap", "a", whole("ConfigMap", "a", LEAST["ConfigMap"])),
            Step("create", "ConfigMap", "b", whole("ConfigMap", "b", LEAST["ConfigMap"])),
            Step("apply", "ConfigMap", "b", whole("ConfigMap", "b", LEAST["ConfigMap"]), {"fieldManager": "one"}),
        )
    )


def asked_oddly() -> Sequence:
    """Lists of other versions and with numbers that are none, writes with options that nobody may give."""
    kind, patch = "ConfigMap", {"data": {"x": "2"}}
    lists: tuple[dict[str, str], ...] = (
        {"resourceVersion": "0"},
        {"resourceVersion": "x"},
        {"resourceVersion": "-1"},
        {"resourceVersion": "999999999"},
        {"resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
        {"resourceVersionMatch": "Nope", "resourceVersion": "1"},
        {"resourceVersionMatch": "NotOlderThan", "resourceVersion": "0"},
        {"resourceVersionMatch": "NotOlderThan", "resourceVersion": VERSION},
        {"resourceVersionMatch": "Exact", "resourceVersion": OLD_VERSION},
        {"limit": "x"},
        {"limit": "-1"},
        {"limit": "0"},
        {"limit": "1", "resourceVersion": OLD_VERSION},
        {"continue": "garbage"},
        {"continue": "garbage", "resourceVersion": "1"},
        {"timeoutSeconds": "x"},
        {"labelSelector": "app in (a,b),tier"},
    )
    writes: tuple[dict[str, str], ...] = (
        {"fieldManager": "x" * 129},
        {"fieldManager": "a b\u00e9"},
        {"fieldManager": "a\tb"},
        {"dryRun": "Nope"},
        {"fieldValidation": "Nope"},
        {"fieldValidation": "Nope", "dryRun": "Nope", "force": "true", "fieldManager": "x" * 129},
        {"force": "true"},
    )
    body = whole(kind, "a", {"data": {"x": "1"}}, labels={"app": "a"})
    return Sequence(
        (
            Step("create", kind, "a", body),
            Step("merge", kind, "a", {"data": {"y": "1"}}),
            Step("create", kind, "b", laid(body, {"metadata": {"name": "b"}})),
            *(Step("list", kind, "a", query=query) for query in lists),
            *(Step("get", kind, "a", query={"resourceVersion": version}) for version in ("0", "x", VERSION)),
            *(Step("merge", kind, "a", patch, query) for query in writes),
            *(Step("create", kind, "c", laid(body, {"metadata": {"name": "c"}}), query) for query in writes[:5]),
            *(Step("update", kind, "a", patch, query, live=True) for query in writes[:5]),
            *(Step("apply", kind, "a", body, {"fieldManager": "one"} | query) for query in writes[:5]),
            Step("apply", kind, "a", body, {"dryRun": "Nope"}),
        ),
        watched=kind,
    )


def scaled(kind: str) -> Sequence:
    """Read, write and apply the scale of what has one."""
    scale: Object = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}}

    def step(verb: str, body: Object, **query: str) -> Step:
        return Step(verb, kind, "a", body, {"fieldManager": "one"} | query, "scale")

    return Sequence(
        (
            step("update", {}),
            step("update", scale | {"spec": {"replicas": 1}}),
            Step("create", kind, "a", whole(kind, "a", LEAST[kind])),
            Step("get", kind, "a", subresource="scale"),
            step("apply", scale | {"spec": {"replicas": 4}}),
            step("merge", {"spec": {"replicas": 3}}),
            step("merge", {"spec": {"replicas": -3}}),
            step("update", scale | {"spec": {"replicas": 2}}, fieldManager="two"),
            step("apply", scale | {"spec": {"replicas": 5}}),
            step("apply", scale | {"spec": {"replicas": 5}}, force="true"),
            step("apply", scale | {"spec": {"replicas": 6}}, fieldManager="two"),
            Step("get", kind, "a"),
        ),
        watched=kind,
    )


def but_a_name() -> Sequence:
    """A Service with a traffic policy becomes but a name, is patched, updated as it is read, and comes back."""
    outside = {"spec": {"type": "ExternalName", "externalName": "example.com"}}
    inside = {"spec": {"type": "ClusterIP", "externalName": None}}
    steps: list[Step] = []
    for name in ("a", "b"):
        body = laid(whole("Service", name, LEAST["Service"]), {"spec": {"internalTrafficPolicy": "Local"}})
        steps += [
            Step("create", "Service", name, body, {"fieldManager": "one"}),
            Step("merge", "Service", name, outside, {"fieldManager": "two"}),
            Step("merge", "Service", name, {"metadata": {"labels": {"app": "b"}}}),
            Step("get", "Service", name),
            Step("list", "Service"),
            *([Step("update", "Service", name, {}, live=True)] if name == "a" else []),
            Step("merge", "Service", name, inside, {"fieldManager": "two"}),
            Step("apply", "Service", name, laid(body, outside), _FORCED),
            Step("apply", "Service", name, body, _FORCED),
        ]
    return Sequence((*steps, Step("deletecollection", "Service")), watched="Service")


CHANGES: dict[str, Object] = {
    "ConfigMap": {"data": {"x": "2", "y": "1"}},
    "Secret": {"stringData": {"y": "2"}},
    "ServiceAccount": {"imagePullSecrets": [{"name": "a"}]},
    "Service": {"spec": {"ports": [{"port": 80, "targetPort": 8080}]}},
    "ResourceQuota": {"spec": {"hard": {"requests.nvidia.com/gpu": "2"}}},
    "LimitRange": {"spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "200m"}}]}},
    "NetworkPolicy": {"spec": {"policyTypes": ["Ingress", "Egress"]}},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": "50%"}},
    "RoleBinding": {"subjects": [{"kind": "User", "name": "ann"}]},
    "Deployment": {"spec": {"replicas": 2, "template": {"metadata": {"annotations": {"note": "1"}}}}},
    "InferenceService": {"spec": {"predictor": {"minReplicas": 2, "model": {"args": ["--max-model-len", "10"]}}}},
    "ServingRuntime": {"spec": {"nodeSelector": {"gpu": "l4"}}},
    "LLMInferenceService": {"spec": {"replicas": 2}},
    "HTTPRoute": {"spec": {"hostnames": ["a.example.com"]}},
    "PodMonitor": {"spec": {"podTargetLabels": ["app"]}},
    **more.CHANGES,
}
