"""The two servers under test: etcd and kube-apiserver with the CRDs of the kinds compared, and a bare `lite`."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import yaml

from portal.demo.running import idle_folder, running
from sandbox import definitions
from sandbox.lite.testing import running_cluster
from tests.differential.bodies import LEAST
from tests.differential.sending import Server, markers_of
from tests.differential.sequences import BY_NAME
from tests.scenarios.grounds import KEPT, clear

CRDS = (
    "gateways.gateway.networking.k8s.io",
    "httproutes.gateway.networking.k8s.io",
    "inferencepools.inference.networking.k8s.io",
    "inferenceservices.serving.kserve.io",
    "leaderworkersets.leaderworkerset.x-k8s.io",
    "llminferenceserviceconfigs.serving.kserve.io",
    "llminferenceservices.serving.kserve.io",
    "podmonitors.monitoring.coreos.com",
    "prometheusrules.monitoring.coreos.com",
    "scaledobjects.keda.sh",
    "servingruntimes.serving.kserve.io",
)
PATIENCE = 60.0  # seconds until a new CRD is served
_LOOKOUT, _WATCHED = "lookout", "count/configmaps"


@contextmanager
def real() -> Iterator[Server]:
    """Run a fresh kube-apiserver on a fresh etcd, without any controller."""
    data = idle_folder(KEPT / "differential")
    clear(data)
    with running(data, only=["kube-apiserver"], ground="real"):
        server = connect_real(data / "cluster")
        try:
            _serve_custom_kinds(server)
            _without_default_class(server)
            _make_markers(server)
            server.caught_up = Lookout(server).wait
            yield server
        finally:
            server.close()


@contextmanager
def lite() -> Iterator[Server]:
    """Run `lite` on a thread of this process, without controllers, webhooks and what they would make."""
    with running_cluster(controllers=False, bare=True) as cluster:
        server = Server("lite", cluster.url, cluster.token)
        _make_markers(server)
        yield server
        server.close()


def _without_default_class(server: Server) -> None:
    """Take away the class that admission writes into claims: for `lite` a controller does, which is off here."""
    answer = server.send("DELETE", "/apis/storage.k8s.io/v1/storageclasses/sandbox-files", None)
    assert answer.status in {200, 404}, answer


class Lookout:
    """Waits until kube-apiserver's admission has heard of every change to a quota: its copies come by a watch.

    A quota of our own is changed last. Changes come in order, so once it is met as it is, all earlier ones are known.
    """

    def __init__(self, server: Server) -> None:
        self._seen = 1
        _make_namespace(server, _LOOKOUT)
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": _LOOKOUT}}
        self._quota = quota | {"spec": {"hard": {_WATCHED: "0"}}}
        assert server.send("POST", BY_NAME["ResourceQuota"].path(_LOOKOUT), self._quota).status == 201

    def wait(self, server: Server) -> None:
        """Return when admission goes by the quotas as they are now; AssertionError after a minute."""
        self._seen += 2  # an odd number is spelled as it is, a thousand as 1k
        status = {"hard": {_WATCHED: "0"}, "used": {_WATCHED: str(self._seen)}}
        path = BY_NAME["ResourceQuota"].path(_LOOKOUT, _LOOKOUT) + "/status"
        assert server.send("PUT", path, self._quota | {"status": status}).status == 200
        deadline = time.monotonic() + PATIENCE
        probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}}
        wanted = f"used: {_WATCHED}={self._seen},"
        while True:
            answer = server.send("POST", BY_NAME["ConfigMap"].path(_LOOKOUT), probe, query={"dryRun": "All"})
            if answer.status == 403 and wanted in answer.body["message"]:
                return
            assert time.monotonic() < deadline, answer.body
            time.sleep(0.001)


def connect_real(folder: Path) -> Server:
    """Return the kube-apiserver whose administrator's kubeconfig lies in a folder."""
    config = yaml.safe_load((folder / "admin.kubeconfig").read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    trust = ssl.create_default_context(cafile=folder / "ca.crt")
    return Server("real", cluster["server"], user["token"], trust)


def _serve_custom_kinds(server: Server) -> None:
    """Create the CRDs that `lite` has, without conversion webhooks, and wait until their kinds are served."""
    path = BY_NAME["CustomResourceDefinition"].path()
    served = []
    for name in CRDS:
        crd = custom_kind(name)
        answer = server.send("POST", path, crd)
        assert answer.status in (201, 409), answer.body
        spec = crd["spec"]
        version = next(entry["name"] for entry in spec["versions"] if entry["storage"])
        served.append(f"/apis/{spec['group']}/{version}/{spec['names']['plural']}")
    deadline = time.monotonic() + PATIENCE
    for path in served:
        while server.send("GET", path).status != 200:
            assert time.monotonic() < deadline, f"{path} is not served after {PATIENCE:.0f} s"
            time.sleep(0.1)


def custom_kind(name: str) -> dict[str, Any]:
    """A CustomResourceDefinition as `lite` serves it."""
    crd: dict[str, Any] = orjson.loads(definitions.place_of(name).read_bytes())
    crd.pop("status", None)
    crd["spec"].pop("conversion", None)
    return crd


def _make_markers(server: Server) -> None:
    for kind in LEAST:
        _make_namespace(server, markers_of(kind))
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    path = BY_NAME["ServiceAccount"].path(markers_of("Pod"))
    assert server.send("POST", path, account).status in (201, 409)


def _make_namespace(server: Server, name: str) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    assert server.send("POST", BY_NAME["Namespace"].path(), body).status in (201, 409)
