"""The grounds of the scenarios: a cluster run by the demo's own supervisor, looked at through the official client."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
from kubernetes import client as official
from kubernetes import config as official_config

from deployments.kube.kinds import KINDS, Kind
from portal.demo.layout import REPOSITORY
from portal.demo.running import idle_folder, running
from sandbox.certificates import signing_key
from sandbox.lite.auth import ISSUER
from sandbox.real import tools
from tests.scenarios.agents import Agents

Object = dict[str, Any]

KEPT = REPOSITORY / ".demo-test"
PROGRAMS = {
    "lite": ["apiserver", "hub", "model", "gateway"],
    "real": ["install-webhooks", "hub", "model", "gateway"],  # and with it everything that it comes after
}
API_SERVER = {"lite": "apiserver", "real": "kube-apiserver"}
JSON, MERGE_PATCH, JSON_PATCH = "application/json", "application/merge-patch+json", "application/json-patch+json"
# Kinds that only scenarios look at, beside those that Slipway knows.
OTHERS = (
    Kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", namespaced=False),
    Kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
    Kind(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        namespaced=False,
    ),
    Kind("inference.networking.k8s.io/v1", "InferencePool", "inferencepools"),
    Kind("v1", "PersistentVolume", "persistentvolumes", namespaced=False),
)


def why_not(name: str) -> str:
    """Why a ground cannot run on this machine; empty when it can."""
    if name != "real" or not (missing := tools.missing()):
        return ""
    names = ", ".join(getattr(tool, "name", str(tool)) for tool in missing)
    if tools.go() is None:
        return f"{names} not found, and no Go to build them with"
    return f"{names} not built yet (`make control-plane`)"


@contextmanager
def started(name: str) -> Iterator[Ground]:
    """Run a fresh cluster with its GPU nodes; RuntimeError with the programs' output when it does not come up."""
    with ExitStack() as stack:
        data = idle_folder(KEPT / f"scenarios-{name}")
        clear(data)
        begun = time.monotonic()
        environment = stack.enter_context(running(data, only=PROGRAMS[name], ground=name))
        ground = Ground(name, data, environment)
        stack.callback(ground.close)
        stack.enter_context(ground.agents.running())
        ground.start_seconds = time.monotonic() - begun
        yield ground


def clear(data: Path) -> None:
    """Remove a cluster's data; the folder's ports and lock stay."""
    subprocess.run([sys.executable, "-m", "portal.demo", "reset", "--data", str(data)], cwd=REPOSITORY, check=True)


@dataclass(frozen=True)
class Event:
    """A change of an object; `version` tells which of several came first, whatever their kinds."""

    type: str
    object: Object
    version: int


@dataclass
class Ground:
    """A running cluster: hands and eyes on it through the official client, and a grip on its programs."""

    name: str
    data: Path
    environment: dict[str, str]
    start_seconds: float = 0.0
    # The modules whose scenarios were played on this very cluster, and so are in its audit log.
    played: set[Path] = field(default_factory=set)
    _closing: list[Callable[[], None]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where the cluster keeps its certificates and kubeconfigs."""
        return self.data / "cluster"

    def kubeconfig_of(self, account: str) -> Path:
        """The kubeconfig of `admin` or of one of Slipway's accounts."""
        return self.folder / f"{account}.kubeconfig"

    def close(self) -> None:
        """Close what was opened."""
        for step in self._closing:
            step()

    @cached_property
    def agents(self) -> Agents:
        """The agents of its nodes."""
        return Agents(self)

    @property
    def audit_log(self) -> Path:
        """Where the real API server writes what was asked of it, until this cluster is cleared."""
        return self.folder / "audit.jsonl"

    # Eyes and hands

    @cached_property
    def api(self) -> official.ApiClient:
        """The official client with the administrator's credentials."""
        configuration = official.Configuration()
        official_config.load_kube_config(
            config_file=str(self.kubeconfig_of("admin")), client_configuration=configuration, persist_config=False
        )
        configuration.proxy = None
        client = official.ApiClient(configuration)
        self._closing.append(client.close)
        return client

    def call(
        self, method: str, path: str, body: Any = None, *, kind: str = JSON, query: dict[str, str] | None = None
    ) -> Object:
        """Send one request as the administrator; the client's ApiException for an answer of 400 or more."""
        found: Object = json.loads(self._ask(method, path, body, kind, query))
        return found

    def _ask(self, method: str, path: str, body: Any, kind: str, query: dict[str, str] | None) -> bytes:
        arguments = self.api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": JSON, "Content-Type": kind},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self.api.call_api(*arguments)
        raw: bytes = answer.read()
        if answer.status >= 400:
            raise official.ApiException(http_resp=answer, body=raw.decode(errors="replace"))
        return raw

    def read(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """Return one object as it is now, or None when it is not there."""
        try:
            return self.call("GET", path_of(kind, namespace, name))
        except official.ApiException as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str = "", selector: str = "") -> list[Object]:
        """Return every object of a kind."""
        query = {"labelSelector": selector} if selector else {}
        found: list[Object] = self.call("GET", path_of(kind, namespace), query=query)["items"]
        return found

    def version_of(self, kind: str, namespace: str = "") -> str:
        """The version of a collection as it is now, from which `events` goes on."""
        found: str = self.call("GET", path_of(kind, namespace))["metadata"]["resourceVersion"]
        return found

    def events(self, kind: str, namespace: str, since: str) -> Iterator[Event]:
        """What became of a kind's objects since a version, oldest first."""
        query = {"watch": "1", "resourceVersion": since, "timeoutSeconds": "1"}
        for line in self._ask("GET", path_of(kind, namespace), None, JSON, query).splitlines():
            told = json.loads(line)
            yield Event(told["type"], told["object"], int(told["object"]["metadata"]["resourceVersion"]))

    def create(self, obj: Object) -> Object:
        """Make an object by hand."""
        kind = _known(obj["kind"], obj["apiVersion"])
        return self.call("POST", kind.path(obj["metadata"].get("namespace", "")), obj)

    def edit(self, kind: str, name: str, namespace: str, patch: Object, *, manager: str = "kubectl-edit") -> Object:
        """Change an object by hand, as `kubectl edit` would."""
        path = path_of(kind, namespace, name)
        return self.call("PATCH", path, patch, kind=MERGE_PATCH, query={"fieldManager": manager})

    def resize(self, kind: str, name: str, namespace: str, replicas: int) -> None:
        """Set the size of a workload as an autoscaler does."""
        path = f"{path_of(kind, namespace, name)}/scale"
        self.call("PATCH", path, {"spec": {"replicas": replicas}}, kind=MERGE_PATCH)

    def remove(self, kind: str, name: str, namespace: str = "", *, propagation: str = "Background") -> None:
        """Delete an object by hand, if it is there."""
        try:
            self.call("DELETE", path_of(kind, namespace, name), {"propagationPolicy": propagation})
        except official.ApiException as error:
            if error.status != 404:
                raise

    def expired_token(self, namespace: str, account: str) -> str:
        """A token of a ServiceAccount as the cluster issues them, signed by its key, that ended a minute ago."""
        uid = (self.read("ServiceAccount", account, namespace) or {})["metadata"]["uid"]
        now = int(time.time())
        claims = {
            "aud": [ISSUER],
            "exp": now - 60,
            "iat": now - 3660,
            "nbf": now - 3660,
            "iss": ISSUER,
            "jti": str(uuid4()),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": uid}},
            "sub": f"system:serviceaccount:{namespace}:{account}",
        }
        if self.name == "real":
            private, _ = signing_key(self.folder, "service-accounts")
            return jwt.encode(claims, private.read_bytes(), "RS256")
        with sqlite3.connect(self.folder / "cluster.db") as database:
            [[secret]] = database.execute("SELECT value FROM meta WHERE key = 'token-secret'").fetchall()
        return jwt.encode(claims, bytes.fromhex(secret), "HS256")

    # Its programs

    def pid(self, program: str) -> int:
        """The process of a program of the control plane; 0 between two lives."""
        rows: dict[str, dict[str, int]] = json.loads((self.data / "processes.json").read_text())
        return rows[program]["pid"]

    def kill(self, program: str) -> None:
        """End a program at once; the supervisor starts it again."""
        os.kill(self.pid(program), signal.SIGKILL)

    @property
    def api_server(self) -> str:
        """The name of the API server's program."""
        return API_SERVER[self.name]

    def answers(self) -> bool:
        """Tell whether the API server is ready."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(f"{self.api.configuration.host}/readyz", timeout=2, context=context) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            return error.code in (401, 403)
        except OSError:
            return False


def path_of(kind: str, namespace: str = "", name: str = "") -> str:
    """The URL path of a collection or of one object."""
    return _known(kind).path(namespace, name)


def _known(kind: str, api_version: str = "") -> Kind:
    found = (item for item in (*KINDS, *OTHERS) if item.kind == kind and api_version in ("", item.api_version))
    return next(found)
