"""The real kubectl against the lite server."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from sandbox.certificates import own_context
from sandbox.lite.testing import RunningCluster
from tests.sandbox.conftest import KUBECTL, Api, Obj, config_map, kubectl, named, pod

NAMESPACE = "team-kubectl"


class FakeKubelet(BaseHTTPRequestHandler):
    """Answers /containerLogs with the question it was asked, then two lines, the second one late."""

    protocol_version = "HTTP/1.1"
    release = threading.Event()

    def do_GET(self) -> None:
        if "previous=true" in self.path:
            self._answer(400, b'previous terminated container "main" in pod "talker" not found')
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk(f"asked {self.path}\nfirst\n".encode())
        if "follow=true" in self.path:
            self.release.wait(10)
            self._chunk(b"second\n")
        self._chunk(b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def team(api: Api) -> str:
    return api.namespace(NAMESPACE)


@pytest.fixture(scope="module")
def talker(api: Api, team: str) -> Iterator[str]:
    """A pod on a node whose kubelet is the fake one."""
    kubelet = ThreadingHTTPServer(("127.0.0.1", 0), FakeKubelet)
    kubelet.socket = own_context("fake", "127.0.0.1").wrap_socket(kubelet.socket, server_side=True)
    threading.Thread(target=kubelet.serve_forever, daemon=True).start()
    status: Obj = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.server_port}},
        "capacity": {"nvidia.com/gpu": "4"},
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": {"kubeletVersion": "v1.36.3"},
    }
    made = api.post("/api/v1/nodes", named("Node", "gpu-h100-1", status=status))
    assert made.status_code == 201, made.text
    api.post(f"{team}/pods", pod("talker", {"nodeName": "gpu-h100-1"}))
    running = {
        "phase": "Running",
        "hostIP": "127.0.0.1",
        "podIP": "127.16.0.2",
        "containerStatuses": [
            {"name": "main", "ready": True, "restartCount": 2, "state": {"running": {}}, "image": "e", "imageID": ""}
        ],
    }
    api.patch(f"{team}/pods/talker/status", {"status": running})
    yield "talker"
    kubelet.shutdown()
    kubelet.server_close()


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_version_and_discovery(lite: RunningCluster) -> None:
    assert "Server Version: v1.36.3" in kubectl(lite, "version")
    names = [line.split()[0] for line in kubectl(lite, "api-resources", "-o", "name").splitlines()]
    assert {
        "pods",
        "deployments.apps",
        "inferenceservices.serving.kserve.io",
        "httproutes.gateway.networking.k8s.io",
    } <= set(names)


def test_get_shows_tables(lite: RunningCluster, talker: str) -> None:
    head, row, *_ = rows(kubectl(lite, "get", "pods", "-n", NAMESPACE, "-o", "wide"))
    assert " ".join(head) == "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES"
    assert row[:4] + row[5:] == ["talker", "1/1", "Running", "2", "127.16.0.2", "gpu-h100-1", "<none>", "<none>"]
    node = rows(kubectl(lite, "get", "nodes"))[1]
    assert node[:3] + node[4:] == ["gpu-h100-1", "Ready", "<none>", "v1.36.3"]
    assert "kubernetes   ClusterIP   10.96.0.1    <none>        443/TCP" in kubectl(lite, "get", "svc")
    assert rows(kubectl(lite, "get", "clusterservingruntimes"))[0] == [
        "NAME",
        "DISABLED",
        "MODELTYPE",
        "CONTAINERS",
        "AGE",
    ]


def test_get_all_namespaces_and_by_short_name(lite: RunningCluster, api: Api, team: str) -> None:
    api.post(f"{team}/configmaps", config_map("seen"))

    assert [NAMESPACE, "seen"] in [row[:2] for row in rows(kubectl(lite, "get", "cm", "-A"))]
    assert "No resources found" in kubectl(lite, "get", "isvc", "-n", NAMESPACE)


def test_get_watch_follows(lite: RunningCluster, api: Api, team: str) -> None:
    command = [str(KUBECTL), f"--kubeconfig={lite.kubeconfig}", f"--cache-dir={lite.folder}/cache"]
    command += ["get", "secrets", "-n", NAMESPACE, "--watch", "-o", "name"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as watching:
        assert watching.stdout is not None
        for name in ("one", "two"):
            api.post(f"{team}/secrets", named("Secret", name))
        seen = {watching.stdout.readline().strip() for _ in range(2)}
        watching.terminate()

    assert seen == {"secret/one", "secret/two"}


def test_describe_shows_events(lite: RunningCluster, api: Api, team: str, talker: str) -> None:
    uid = api.get(f"{team}/pods/{talker}").json()["metadata"]["uid"]
    about = {"kind": "Pod", "namespace": NAMESPACE, "name": talker, "uid": uid, "apiVersion": "v1"}
    event = named("Event", "talker.1", involvedObject=about, reason="Pulled", message="Image is here", type="Normal")
    event |= {"firstTimestamp": "2026-11-25T12:00:00Z", "lastTimestamp": "2026-11-25T12:00:00Z", "count": 1}
    assert api.post(f"{team}/events", event).status_code == 201

    text = kubectl(lite, "describe", "pod", talker, "-n", NAMESPACE)

    assert "Node:" in text
    assert "gpu-h100-1" in text
    assert "Image is here" in text


def test_logs_come_from_the_node(lite: RunningCluster, talker: str) -> None:
    said = kubectl(lite, "logs", talker, "-n", NAMESPACE, "--tail=5", "--timestamps", "--limit-bytes=100")

    first = said.splitlines()[0]
    assert first.startswith(f"asked /containerLogs/{NAMESPACE}/talker/main?")
    assert {"tailLines=5", "timestamps=true", "limitBytes=100"} <= set(first.partition("?")[2].split("&"))
    assert "previous terminated container" in kubectl(lite, "logs", talker, "-n", NAMESPACE, "--previous")
    assert "container nope is not valid for pod talker" in kubectl(lite, "logs", talker, "-n", NAMESPACE, "-c", "nope")


def test_logs_follow_as_lines_come(lite: RunningCluster, talker: str) -> None:
    FakeKubelet.release.clear()
    command = [str(KUBECTL), f"--kubeconfig={lite.kubeconfig}", f"--cache-dir={lite.folder}/cache"]
    with subprocess.Popen(
        [*command, "logs", "-f", talker, "-n", NAMESPACE], stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        head = [following.stdout.readline(), following.stdout.readline()]
        FakeKubelet.release.set()
        tail = following.stdout.readline()

    assert head[1] == "first\n"
    assert tail == "second\n"


def test_apply_server_side_then_client_side(lite: RunningCluster, api: Api, team: str) -> None:
    body = config_map("applied", a="1", b="2")
    body["metadata"]["namespace"] = NAMESPACE
    smaller = config_map("applied", a="1")
    smaller["metadata"]["namespace"] = NAMESPACE

    first = kubectl(lite, "apply", "--server-side", "-f", "-", text=json.dumps(body))
    second = kubectl(lite, "apply", "--server-side", "-f", "-", text=yaml.safe_dump(smaller))

    assert (first.strip(), second.strip()) == ("configmap/applied serverside-applied",) * 2
    assert api.get(f"{team}/configmaps/applied").json()["data"] == {"a": "1"}

    for words in (body, smaller):
        old = words | {"metadata": words["metadata"] | {"name": "old"}}
        said = kubectl(lite, "apply", "-f", "-", text=json.dumps(old))
        assert "warning" not in said.lower()
    assert api.get(f"{team}/configmaps/old").json()["data"] == {"a": "1"}


def test_commands_that_speak_protobuf(lite: RunningCluster, api: Api, team: str) -> None:
    said = kubectl(lite, "create", "deployment", "web", "--image=web:1", "--replicas=2", "--port=80", "-n", NAMESPACE)
    assert said.strip() == "deployment.apps/web created"
    kubectl(lite, "create", "role", "reader", "--verb=get,list", "--resource=pods", "-n", NAMESPACE)
    kubectl(lite, "create", "quota", "q", "--hard=requests.nvidia.com/gpu=4", "-n", NAMESPACE)

    spec = api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/web").json()["spec"]
    container = spec["template"]["spec"]["containers"][0]
    assert (spec["replicas"], container["image"], container["ports"]) == (
        2,
        "web:1",
        [{"containerPort": 80, "protocol": "TCP"}],
    )
    role = api.get(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/reader").json()
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    assert api.get(f"{team}/resourcequotas/q").json()["spec"]["hard"] == {"requests.nvidia.com/gpu": "4"}


def test_label_annotate_scale_and_set_image(lite: RunningCluster, api: Api, team: str) -> None:
    kubectl(lite, "create", "deployment", "changed", "--image=web:1", "-n", NAMESPACE)
    for words in (
        ("label", "deployment/changed", "tier=gold"),
        ("annotate", "deployment/changed", "note=here"),
        ("scale", "deployment/changed", "--replicas=3"),
        ("set", "image", "deployment/changed", "web=web:2"),
    ):
        kubectl(lite, *words, "-n", NAMESPACE)

    found = api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/changed").json()
    assert found["metadata"]["labels"]["tier"] == "gold"
    assert found["metadata"]["annotations"]["note"] == "here"
    assert found["spec"]["replicas"] == 3
    assert [c["image"] for c in found["spec"]["template"]["spec"]["containers"]] == ["web:2"]


def test_delete_waits_until_it_is_gone(lite: RunningCluster, api: Api, team: str) -> None:
    api.post(f"{team}/configmaps", config_map("short"))

    assert 'configmap "short" deleted' in kubectl(lite, "delete", "cm", "short", "-n", NAMESPACE)
    assert "NotFound" in kubectl(lite, "get", "cm", "short", "-n", NAMESPACE)


def test_wait_for_a_condition(lite: RunningCluster, api: Api, team: str) -> None:
    api.post(f"{team}/pods", pod("slow"))
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    threading.Timer(0.5, lambda: api.patch(f"{team}/pods/slow/status", {"status": ready})).start()

    assert "condition met" in kubectl(
        lite, "wait", "--for=condition=Ready", "pod/slow", "-n", NAMESPACE, "--timeout=10s"
    )


def test_auth_can_i(lite: RunningCluster) -> None:
    assert kubectl(lite, "auth", "can-i", "create", "pods").strip() == "yes"
    assert kubectl(lite, "auth", "can-i", "create", "pods", account="node").strip() == "no"
    assert kubectl(lite, "auth", "can-i", "patch", "nodes", "--subresource=status", account="node").startswith("yes")
    assert "system:serviceaccount:slipway-system:node" in kubectl(lite, "auth", "whoami", account="node")


def test_cordon_and_drain_speak_to_the_node(lite: RunningCluster, api: Api, team: str, talker: str) -> None:
    assert "cordoned" in kubectl(lite, "cordon", "gpu-h100-1")
    assert "Ready,SchedulingDisabled" in kubectl(lite, "get", "nodes")
    kubectl(lite, "drain", "gpu-h100-1", "--force", "--timeout=1s")
    assert api.get(f"{team}/pods/{talker}").json()["metadata"]["deletionTimestamp"]


def test_explain_knows_fields(lite: RunningCluster) -> None:
    assert "storageUri" in kubectl(lite, "explain", "inferenceservice.spec.predictor.model")
