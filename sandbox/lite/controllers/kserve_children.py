"""What an InferenceService becomes in Standard mode: Deployment, Service, autoscaler, Ingress or HTTPRoutes. Pure."""

from __future__ import annotations

import copy

from sandbox.client import Obj
from sandbox.lite.controllers.kserve_config import KServeConfig
from sandbox.lite.controllers.kserve_runtimes import CONTAINER
from sandbox.lite.controllers.kserve_status import Addresses, SpecError
from sandbox.lite.controllers.meta import annotations_of, labels_of, owner_ref
from sandbox.lite.controllers.scaling_children import HPA, KEDA, hpa, scaled_object

SOURCE_URI = "internal.serving.kserve.io/storage-initializer-sourceuri"
STORAGE_CONTAINER = "serving.kserve.io/storage-container-name"
VISIBILITY, CLUSTER_LOCAL = "networking.kserve.io/visibility", "cluster-local"
_DNS_LABEL = 63
_KEPT_BACK = {  # annotations that do not go down to the children
    "autoscaling.knative.dev/min-scale",
    "autoscaling.knative.dev/max-scale",
    "kubectl.kubernetes.io/last-applied-configuration",
    "modelFormat",
    SOURCE_URI,
}


def predictor_name(isvc: Obj) -> str:
    """Return the name of Deployment and Service."""
    return f"{isvc['metadata']['name']}-predictor"


def app_label(isvc: Obj) -> str:
    """Return the label value that selects the pods."""
    return f"isvc.{predictor_name(isvc)}"


def cluster_local(isvc: Obj) -> bool:
    """Tell whether the service is kept inside the cluster: then nothing is published."""
    return labels_of(isvc).get(VISIBILITY) == CLUSTER_LOCAL


def addresses(isvc: Obj, config: KServeConfig) -> Addresses:
    """Return the hosts of a service, or raise SpecError when one does not fit a DNS label."""
    name, namespace = isvc["metadata"]["name"], isvc["metadata"]["namespace"]
    host = config.public_host(predictor_name(isvc), namespace)
    label = host.split(".")[0]
    if len(label) > _DNS_LABEL:
        raise SpecError(
            "fails to create NewRawKubeReconciler for predictor: failed creating host name: invalid domain name "
            f'"{host}": url: Invalid value: "{label}": must be no more than 63 characters'
        )
    return Addresses(
        service=f"{predictor_name(isvc)}.{namespace}.svc.cluster.local",
        public=config.public_host(name, namespace),
        predictor=host,
        scheme=config.scheme,
    )


def deployment(isvc: Obj, runtime: Obj, spec: Obj) -> Obj:
    """Return the Deployment; `spec` is the pod spec of service and runtime together."""
    meta, predictor = isvc["metadata"], isvc["spec"]["predictor"]
    labels, annotations = _labels(isvc, runtime), _annotations(isvc, runtime)
    template = {
        "metadata": {
            "name": predictor_name(isvc),
            "namespace": meta["namespace"],
            "labels": labels,
            "annotations": annotations,
        },
        "spec": _complete_pod(spec),
    }
    body: Obj = {
        "selector": {"matchLabels": {"app": app_label(isvc)}},
        "strategy": predictor.get("deploymentStrategy")
        or {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 10,
        "template": template,
    }
    if scaled_by(isvc) == "none":
        body["replicas"] = predictor.get("minReplicas", 1)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(isvc, predictor_name(isvc), labels, annotations),
        "spec": body,
    }


def scaled_by(isvc: Obj) -> str:
    """Return the autoscaler class; with `none` the controller itself keeps minReplicas."""
    return annotations_of(isvc).get("serving.kserve.io/autoscalerClass", "hpa")


def autoscaler(isvc: Obj, runtime: Obj, config: KServeConfig) -> Obj | None:
    """Return what changes the Deployment's size: an HPA, a ScaledObject, or None where that is somebody else's."""
    metadata = _metadata(isvc, predictor_name(isvc), _labels(isvc, runtime), _annotations(isvc, runtime))
    chosen, predictor = scaled_by(isvc), isvc["spec"]["predictor"]
    if chosen == HPA:
        return hpa(predictor, metadata)
    return scaled_object(predictor, metadata, config) if chosen == KEDA else None


def service(isvc: Obj, runtime: Obj, spec: Obj) -> Obj:
    """Return the Service: port 80 to the first declared port of the first container, or to 8080."""
    declared = spec["containers"][0].get("ports") or []
    if declared:
        ports = [
            {
                "name": port.get("name") or "http",
                "port": 80 if index == 0 else port["containerPort"],
                "targetPort": port["containerPort"],
                "protocol": port.get("protocol", "TCP"),
            }
            for index, port in enumerate(declared)
        ]
    else:
        ports = [{"name": predictor_name(isvc), "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(isvc, predictor_name(isvc), _labels(isvc, runtime), _annotations(isvc, runtime)),
        "spec": {"type": "ClusterIP", "selector": {"app": app_label(isvc)}, "ports": ports},
    }


def ingress(isvc: Obj, config: KServeConfig, hosts: Addresses) -> Obj:
    """Return the Ingress that publishes a service which is not cluster-local."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": _metadata(isvc, isvc["metadata"]["name"], {}, dict(annotations_of(isvc))),
        "spec": {
            "ingressClassName": config.ingress_class,
            "rules": [_rule(isvc, hosts.public), _rule(isvc, hosts.predictor)],
        },
    }


def _rule(isvc: Obj, host: str) -> Obj:
    backend = {"service": {"name": predictor_name(isvc), "port": {"number": 80}}}
    return {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}


def http_routes(isvc: Obj, config: KServeConfig, hosts: Addresses) -> list[Obj]:
    """Return the two HTTPRoutes made instead of an Ingress where the Gateway API is enabled."""
    names = ((isvc["metadata"]["name"], hosts.public), (predictor_name(isvc), hosts.predictor))
    return [_http_route(isvc, config, name, host) for name, host in names]


def _http_route(isvc: Obj, config: KServeConfig, name: str, host: str) -> Obj:
    namespace, _, gateway = config.gateway.partition("/")
    meta = isvc["metadata"]
    headers = [
        {"name": "KServe-Isvc-Name", "value": meta["name"]},
        {"name": "KServe-Isvc-Namespace", "value": meta["namespace"]},
    ]
    backend = {
        "group": "",
        "kind": "Service",
        "name": predictor_name(isvc),
        "namespace": meta["namespace"],
        "port": 80,
        "weight": 1,
    }
    rule = {
        "backendRefs": [backend],
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": headers}}],
        "matches": [{"path": {"type": "RegularExpression", "value": "^/.*$"}}],
        "timeouts": {"request": f"{isvc['spec']['predictor'].get('timeout') or 60}s"},
    }
    parent = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "name": gateway,
        "namespace": namespace,
    }
    annotations = {key: text for key, text in annotations_of(isvc).items() if key not in _KEPT_BACK}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": _metadata(isvc, name, dict(labels_of(isvc)), annotations),
        "spec": {"hostnames": [host], "parentRefs": [parent], "rules": [rule]},
    }


def _metadata(isvc: Obj, name: str, labels: dict[str, str], annotations: dict[str, str]) -> Obj:
    meta: Obj = {
        "name": name,
        "namespace": isvc["metadata"]["namespace"],
        "annotations": annotations,
        "ownerReferences": [owner_ref(isvc)],
    }
    if labels:
        meta["labels"] = labels
    return meta


def _labels(isvc: Obj, runtime: Obj) -> dict[str, str]:
    return {
        **(runtime["spec"].get("labels") or {}),
        **labels_of(isvc),
        **(isvc["spec"]["predictor"].get("labels") or {}),
        "serving.kserve.io/inferenceservice": isvc["metadata"]["name"],
        "component": "predictor",
        "app": app_label(isvc),
    }


def _annotations(isvc: Obj, runtime: Obj) -> dict[str, str]:
    predictor = isvc["spec"]["predictor"]
    joined = {
        **(runtime["spec"].get("annotations") or {}),
        **annotations_of(isvc),
        **(predictor.get("annotations") or {}),
    }
    kept = {name: text for name, text in joined.items() if name not in _KEPT_BACK}
    uri = predictor["model"].get("storageUri")
    if uri:
        kept[SOURCE_URI] = uri
    if predictor.get("storageContainerName"):
        kept[STORAGE_CONTAINER] = predictor["storageContainerName"]
    return kept


def _complete_pod(spec: Obj) -> Obj:
    """Write the defaults KServe writes itself, so that it can compare with what the API server stored."""
    whole = copy.deepcopy(spec)
    for name, value in (
        ("dnsPolicy", "ClusterFirst"),
        ("restartPolicy", "Always"),
        ("terminationGracePeriodSeconds", 30),
        ("securityContext", {}),
        ("schedulerName", "default-scheduler"),
    ):
        whole.setdefault(name, value)
    if whole.get("serviceAccountName"):
        whole["serviceAccount"] = whole["serviceAccountName"]
    for container in whole["containers"]:
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("imagePullPolicy", "IfNotPresent")
        for port in container.get("ports") or []:
            port.setdefault("protocol", "TCP")
        if container["name"] == CONTAINER:
            container.setdefault("readinessProbe", {"tcpSocket": {"port": 8080}})
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            if probe in container:
                container[probe] = _complete_probe(container[probe])
    return whole


def _complete_probe(probe: Obj) -> Obj:
    whole = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3, **probe}
    if "httpGet" in whole:
        whole["httpGet"] = {"scheme": "HTTP", **whole["httpGet"]}
    return whole
