"""A lite cluster for all tests here, each module in namespaces of its own, and short ways to talk to it."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from sandbox.lite.testing import RunningCluster, running_cluster

Obj = dict[str, Any]

KUBECTL = Path(sys.executable).parent / "kubectl"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


@dataclass
class Api:
    """Raw requests to one cluster as one user; answers come back whatever their status."""

    http: httpx.Client

    @classmethod
    def of(cls, cluster: RunningCluster, token: str | None = None) -> Api:
        """Return requests with a bearer token, the administrator's when none is given."""
        headers = {"Authorization": f"Bearer {token or cluster.token}", "User-Agent": "tester/1.0"}
        trust = (
            ssl.create_default_context(cafile=cluster.folder / "ca.crt") if cluster.url.startswith("https") else False
        )
        return cls(httpx.Client(base_url=cluster.url, headers=headers, verify=trust, timeout=20, trust_env=False))

    def get(self, path: str, **params: Any) -> httpx.Response:
        """GET."""
        return self.http.get(path, params=params)

    def post(self, path: str, body: Obj, **params: Any) -> httpx.Response:
        """POST JSON."""
        return self.http.post(path, json=body, params=params)

    def put(self, path: str, body: Obj, **params: Any) -> httpx.Response:
        """PUT JSON."""
        return self.http.put(path, json=body, params=params)

    def patch(self, path: str, body: Any, kind: str = MERGE, **params: Any) -> httpx.Response:
        """PATCH of one of the four kinds."""
        return self.http.patch(path, content=orjson.dumps(body), headers={"Content-Type": kind}, params=params)

    def apply(self, path: str, body: Obj, manager: str = "slipway", **params: Any) -> httpx.Response:
        """Server-side apply."""
        return self.patch(path, body, APPLY, fieldManager=manager, **params)

    def delete(self, path: str, body: Obj | None = None, **params: Any) -> httpx.Response:
        """DELETE."""
        content = None if body is None else orjson.dumps(body)
        return self.http.request("DELETE", path, content=content, params=params)

    def namespace(self, name: str, **labels: str) -> str:
        """Make a namespace and return its URL path."""
        made = self.post("/api/v1/namespaces", named("Namespace", name, labels=labels))
        assert made.status_code == 201, made.text
        return f"/api/v1/namespaces/{name}"


@pytest.fixture(scope="session")
def lite() -> Iterator[RunningCluster]:
    """A cluster without controllers: nothing changes but what the test changes. TLS, or kubectl sends no token."""
    with running_cluster(tls=True, controllers=False, accounts=("worker", "node")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def api(lite: RunningCluster) -> Iterator[Api]:
    """Requests of the administrator."""
    found = Api.of(lite)
    yield found
    found.http.close()


def named(kind: str, name: str, api_version: str = "v1", labels: dict[str, str] | None = None, **rest: Any) -> Obj:
    """Return a small object."""
    meta: Obj = {"name": name} | ({"labels": labels} if labels else {})
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **rest}


def config_map(name: str, labels: dict[str, str] | None = None, **data: str) -> Obj:
    """Return a ConfigMap."""
    return named("ConfigMap", name, labels=labels, data=data)


def pod(name: str, spec: Obj | None = None, labels: dict[str, str] | None = None, **container: Any) -> Obj:
    """Return a Pod with one container."""
    whole = {"containers": [{"name": "main", "image": "engine:1", **container}]} | (spec or {})
    return named("Pod", name, labels=labels, spec=whole)


def kubectl(cluster: RunningCluster, *words: str, text: str | None = None, account: str = "admin") -> str:
    """Run the real kubectl and return what it says; a failure is said too, with its words on stderr."""
    command = [str(KUBECTL), f"--kubeconfig={cluster.kubeconfig_of(account)}", f"--cache-dir={cluster.folder}/cache"]
    done = subprocess.run([*command, *words], input=text, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr
