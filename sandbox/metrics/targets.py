"""PodMonitors, pods and nodes → scrape targets, labelled as prometheus-operator's configuration labels them.

Prometheus reads them as files: one group a target, final labels only. What a file cannot say
(`metricRelabelings`) is reported by `limits`. Groups whose own labels must win (`honorLabels`) lie in a file of
their own, which Prometheus scrapes with `honor_labels`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.metrics.exposition import label_name
from sandbox.metrics.kube_state import internal_ip
from sandbox.metrics.relabel import relabel

Obj = Mapping[str, Any]
DCGM_PORT = 9400


@dataclass(frozen=True)
class Target:
    """One address to scrape and its labels."""

    address: str
    labels: Mapping[str, str]
    honor_labels: bool = False

    def group(self) -> dict[str, Any]:
        """Return the entry of a file_sd file."""
        return {"targets": [self.address], "labels": dict(self.labels)}


def pod_targets(monitors: Iterable[Obj], pods: Iterable[Obj]) -> tuple[list[Target], dict[str, str]]:
    """Return the targets of the PodMonitors, ordered by address, and what is wrong with which monitor."""
    by_namespace: dict[str, list[Obj]] = {}
    for pod in pods:
        by_namespace.setdefault(pod["metadata"]["namespace"], []).append(pod)
    found: list[Target] = []
    wrong: dict[str, str] = {}
    for monitor in monitors:
        try:
            found += _of_monitor(monitor, by_namespace)
        except ValueError as error:
            wrong[f"{monitor['metadata']['namespace']}/{monitor['metadata']['name']}"] = str(error)
    return sorted(found, key=lambda target: (target.address, sorted(target.labels.items()))), wrong


def node_targets(nodes: Iterable[Obj]) -> list[Target]:
    """Return the DCGM exporter of each GPU node, as the GPU operator's ServiceMonitor yields it."""
    targets = []
    for node in nodes:
        name, address = node["metadata"]["name"], internal_ip(node)
        if not address or not any(key.startswith("nvidia.com/") for key in node.get("status", {}).get("capacity", {})):
            continue
        labels = {
            "job": "nvidia-dcgm-exporter",
            "namespace": "gpu-operator",
            "service": "nvidia-dcgm-exporter",
            "pod": f"nvidia-dcgm-exporter-{name}",
            "container": "nvidia-dcgm-exporter",
            "endpoint": "gpu-metrics",
            "node": name,
        }
        targets.append(Target(f"{address}:{DCGM_PORT}", labels))
    return sorted(targets, key=lambda target: target.address)


def kube_state_target(address: str) -> Target:
    """Return the target of kube-state-metrics; its own namespace and pod labels win, as its chart has it."""
    labels = {
        "job": "kube-state-metrics",
        "namespace": "monitoring",
        "service": "kube-state-metrics",
        "container": "kube-state-metrics",
        "endpoint": "http",
    }
    return Target(address, labels, honor_labels=True)


def limits(monitor: Obj) -> list[str]:
    """Return the fields of a PodMonitor that target files cannot carry."""
    endpoints = monitor["spec"].get("podMetricsEndpoints") or ()
    return sorted(
        {key for endpoint in endpoints for key in ("metricRelabelings", "basicAuth", "oauth2") if endpoint.get(key)}
    )


def match_labels(selector: Obj, labels: Mapping[str, str]) -> bool:
    """Tell whether labels satisfy a LabelSelector; an empty one selects everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for wish in selector.get("matchExpressions") or ():
        value, values = labels.get(wish["key"]), wish.get("values") or ()
        fits = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not fits.get(wish["operator"], False):
            return False
    return True


def _of_monitor(monitor: Obj, pods: Mapping[str, list[Obj]]) -> list[Target]:
    spec, selector = monitor["spec"], monitor["spec"].get("namespaceSelector") or {}
    namespaces = pods if selector.get("any") else selector.get("matchNames") or (monitor["metadata"]["namespace"],)
    return [
        target
        for namespace in namespaces
        for pod in pods.get(namespace, ())
        if pod.get("status", {}).get("podIP")
        if match_labels(spec.get("selector") or {}, pod["metadata"].get("labels") or {})
        for endpoint in spec.get("podMetricsEndpoints") or ()
        for target in _of_endpoint(monitor, endpoint, pod)
    ]


def _of_endpoint(monitor: Obj, endpoint: Obj, pod: Obj) -> Iterator[Target]:
    spec, meta, status = monitor["spec"], monitor["metadata"], pod["status"]
    if endpoint.get("filterRunning", True) and status.get("phase") in ("Failed", "Succeeded"):
        return
    pod_labels = pod["metadata"].get("labels") or {}
    for container, port in _ports(pod):
        if not _is_port(endpoint, port):
            continue
        labels = {
            "__address__": f"{status['podIP']}:{port['containerPort']}",
            **_meta_labels(pod, container, port),
            **_scrape_labels(endpoint),
            "namespace": pod["metadata"]["namespace"],
            "container": container["name"],
            "pod": pod["metadata"]["name"],
            **{label_name(key): pod_labels[key] for key in spec.get("podTargetLabels") or () if key in pod_labels},
            "job": pod_labels.get(spec.get("jobLabel", ""), "") or f"{meta['namespace']}/{meta['name']}",
            "endpoint": str(endpoint.get("port") or endpoint.get("targetPort") or endpoint.get("portNumber", "")),
        }
        final = relabel(labels, endpoint.get("relabelings") or ())
        if final is not None:
            address = final.pop("__address__")
            kept = {name: value for name, value in final.items() if not name.startswith(("__meta_", "__tmp_"))}
            yield Target(address, kept, bool(endpoint.get("honorLabels")))


def _ports(pod: Obj) -> Iterator[tuple[Obj, Obj]]:
    for container in (*pod["spec"].get("containers", ()), *pod["spec"].get("initContainers", ())):
        for port in container.get("ports") or ():
            if port.get("protocol", "TCP") == "TCP":
                yield container, port


def _is_port(endpoint: Obj, port: Obj) -> bool:
    if endpoint.get("port"):
        return bool(port.get("name") == endpoint["port"])
    wanted = endpoint.get("portNumber") or endpoint.get("targetPort")
    return wanted in (port["containerPort"], port.get("name"), str(port["containerPort"]))


def _scrape_labels(endpoint: Obj) -> dict[str, str]:
    """Return what an endpoint says of the scrape itself, as the labels by which a target overrides its job."""
    labels = {
        "__scheme__": endpoint.get("scheme", ""),
        "__metrics_path__": endpoint.get("path", ""),
        "__scrape_interval__": endpoint.get("interval", ""),
        "__scrape_timeout__": endpoint.get("scrapeTimeout", ""),
        **{f"__param_{key}": values[0] for key, values in (endpoint.get("params") or {}).items() if values},
    }
    return {name: str(value).lower() if name == "__scheme__" else str(value) for name, value in labels.items() if value}


def _meta_labels(pod: Obj, container: Obj, port: Obj) -> dict[str, str]:
    """Return what Prometheus' own discovery of pods tells, for the relabelings of people."""
    meta, spec, status = pod["metadata"], pod["spec"], pod["status"]
    prefix = "__meta_kubernetes_"
    owner: Obj = next((ref for ref in meta.get("ownerReferences") or () if ref.get("controller")), {})
    ready = next((c["status"].lower() for c in status.get("conditions") or () if c["type"] == "Ready"), "unknown")
    labels = {
        "namespace": meta["namespace"],
        "pod_name": meta["name"],
        "pod_uid": meta["uid"],
        "pod_ip": status["podIP"],
        "pod_host_ip": status.get("hostIP", ""),
        "pod_node_name": spec.get("nodeName", ""),
        "pod_phase": status.get("phase", ""),
        "pod_ready": ready,
        "pod_controller_kind": owner.get("kind", ""),
        "pod_controller_name": owner.get("name", ""),
        "pod_container_name": container["name"],
        "pod_container_image": container.get("image", ""),
        "pod_container_init": str(container in spec.get("initContainers", ())).lower(),
        "pod_container_port_name": port.get("name", ""),
        "pod_container_port_number": str(port["containerPort"]),
        "pod_container_port_protocol": port.get("protocol", "TCP"),
    }
    for kind in ("label", "annotation"):
        for key, value in (meta.get(f"{kind}s") or {}).items():
            labels[f"pod_{kind}_{label_name(key)}"] = value
            labels[f"pod_{kind}present_{label_name(key)}"] = "true"
    return {f"{prefix}{name}": value for name, value in labels.items()}
