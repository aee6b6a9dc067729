"""An account from a kubeconfig or from the folder that Kubernetes mounts into a pod."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kubernetes.config import incluster_config

from deployments.kube import account
from deployments.kube.account import NoAccountError, configuration_of, has_account
from deployments.kube.cluster import Cluster
from deployments.kube.errors import ClusterError
from deployments.kube.logs import LogSource


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a service account, as a pod sees it."""
    (tmp_path / "token").write_text("first")
    (tmp_path / "ca.crt").write_text("a certificate")
    monkeypatch.setattr(account, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    return tmp_path


@pytest.fixture
def api(pod: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An API server that knows the token *second* alone; the tokens it was shown come back."""
    shown: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers["Authorization"])
            good = shown[-1].lower() == "bearer second"
            body = b'{"gitVersion": "v1.36.3"}' if good else b"{}"
            self.send_response(200 if good else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Not into the output of the tests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    load = incluster_config.InClusterConfigLoader._load_config

    def plain(self: Any) -> None:
        load(self)
        self.host, self.ssl_ca_cert = f"http://127.0.0.1:{server.server_port}", None

    monkeypatch.setattr(incluster_config.InClusterConfigLoader, "_load_config", plain)
    yield shown
    server.shutdown()
    server.server_close()


def test_without_a_kubeconfig_the_pods_account_is_used(pod: Path) -> None:
    configuration = configuration_of("")

    assert has_account("")
    assert configuration.host == "https://10.96.0.1:443"
    assert configuration.ssl_ca_cert == str(pod / "ca.crt")
    assert configuration.auth_settings()["BearerToken"]["value"] == "bearer first"
    assert configuration.proxy is None


def test_outside_a_pod_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    assert not has_account("")
    assert has_account("some/file")
    with pytest.raises(NoAccountError, match="no kubeconfig is set"):
        Cluster.from_kubeconfig("")
    with pytest.raises(ClusterError, match="no kubeconfig is set"):
        asyncio.run(LogSource("").tail("ns", "pod", "engine", previous=False, lines=1))


def test_a_kubeconfig_that_is_not_there_is_said_by_name(tmp_path: Path) -> None:
    with pytest.raises(NoAccountError, match="missing"):
        configuration_of(tmp_path / "missing")


def test_a_rotated_token_is_read_again_when_the_old_one_is_refused(pod: Path, api: list[str]) -> None:
    cluster = Cluster.from_kubeconfig("")
    (pod / "token").write_text("second")

    assert cluster.version() == "v1.36.3"
    assert [token.lower() for token in api] == ["bearer first", "bearer second"]


def test_logs_read_a_rotated_token_again(pod: Path, api: list[str]) -> None:
    async def read() -> str:
        source = LogSource("")
        await source._connected(fresh=False)
        (pod / "token").write_text("second")
        try:
            return await source.tail("ns", "pod", "engine", previous=False, lines=1)
        finally:
            await source.close()

    assert "v1.36.3" in asyncio.run(read())
    assert len(api) == 2
