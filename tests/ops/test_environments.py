"""Slipway as k8s/portal and compose start it: their environment works, their names and commands exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from django.core.management import get_commands
from django.db import connection

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "slipway:" in str(service.get("image"))}
MANIFESTS = [obj for path in sorted((ROOT / "k8s/portal").glob("*.yaml")) for obj in yaml.safe_load_all(path.open())]
CONFIG: dict[str, str] = next(obj["data"] for obj in MANIFESTS if obj["kind"] == "ConfigMap")
PODS = {obj["metadata"]["name"]: obj["spec"]["template"]["spec"] for obj in MANIFESTS if obj["kind"] == "Deployment"}
CONTAINERS = [box for pod in PODS.values() for box in (*pod["containers"], *pod.get("initContainers", ()))]
COMMANDS = [service["command"] for service in OURS.values()] + [box["args"] for box in CONTAINERS]
# What an operator writes into .env beside docker-compose.yml, with TLS ended by a proxy in front.
DOTENV = {
    "SLIPWAY_SECRET_KEY": "k" * 40,
    "SLIPWAY_ALLOWED_HOSTS": "slipway.example.com",
    "SLIPWAY_URL": "https://slipway.example.com",
    "POSTGRES_PASSWORD": "p",
    "POSTGRES_OWNER_PASSWORD": "o",
    "REDIS_PASSWORD": "r",
    "GATEWAY_URL": "http://gateway.example.com",
}

SCRIPT = """
import json, sys
import django
django.setup()
from allauth.account.adapter import get_adapter
from django.conf import settings
from django.test import Client, RequestFactory
probe = json.loads(sys.argv[1])
client = Client(enforce_csrf_checks=True)
front = {"host": "slipway.example.com", "x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.7, 198.51.100.9"}
page = client.get("/accounts/login/", headers=front)
form = {"login": "nobody", "password": "wrong", "csrfmiddlewaretoken": client.cookies[settings.CSRF_COOKIE_NAME].value}
def post(origin):
    return client.post("/accounts/login/", form, headers={**front, "origin": origin}).status_code
print(json.dumps({
    "ready": client.get(probe["path"], headers=probe["headers"]).status_code,
    "login": [post("https://slipway.example.com"), post("https://evil.example.com")],
    "secure": settings.SESSION_COOKIE_SECURE,
    "cookies": {name: [morsel["secure"], morsel["httponly"], morsel["path"], morsel["domain"], morsel["samesite"]]
                for name, morsel in client.cookies.items()},
    "caller": get_adapter().get_client_ip(RequestFactory().get("/", headers=front)),
    "public": settings.GATEWAY_PUBLIC_URL,
}))
"""


def filled(text: str) -> str:
    """A value of docker-compose.yml as compose would fill it in."""

    def value(found: re.Match[str]) -> str:
        name, kind, default = found.group(1), found.group(2), found.group(3)
        return DOTENV.get(name) or (default if kind == ":-" else pytest.fail(f"{name} is not in .env"))

    return re.sub(r"\$\{([A-Z_]+)(:[-?])([^}]*)\}", value, text)


def answers(environment: dict[str, str], probe: dict[str, Any]) -> dict[str, Any]:
    """What a process with this environment answers, on the database of the tests, where what it writes is committed."""
    database = connection.settings_dict
    given = f"postgres://{database['USER']}:{database['PASSWORD']}@{database['HOST']}:{database['PORT']}"
    environment = {**environment, "DATABASE_URL": f"{given}/{database['NAME']}"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(probe)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "portal.settings", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_config_map_makes_a_site_that_answers(transactional_db: None, tmp_path: Path) -> None:
    environment = {name: value for name, value in CONFIG.items() if not name.startswith("DATABASE_URL")}
    for name in [name for name in environment if name.endswith("_FILE")]:
        environment[name] = str(tmp_path / name)
        (tmp_path / name).write_text("redis://redis:6379/0" if name.startswith("REDIS") else "k" * 40)
    probe = next(box for box in CONTAINERS if box["name"] == "web")["readinessProbe"]["httpGet"]
    # The kubelet asks by the pod's address unless the probe says otherwise.
    headers = {"host": "10.1.2.3:8000"} | {row["name"]: row["value"] for row in probe.get("httpHeaders", ())}

    found = answers(environment, {"path": probe["path"], "headers": headers})

    assert found["ready"] == 200
    assert found["login"] == [200, 403]
    assert found["secure"] is True
    # Secure, not for scripts, for this host alone: what browsers ask of a name that begins so.
    assert found["cookies"]["__Host-csrftoken"] == [True, True, "/", "", "Lax"]
    assert [name for name in found["cookies"] if not name.startswith("__Host-")] == []
    assert found["caller"] == "198.51.100.9"


def test_compose_makes_a_site_that_answers(transactional_db: None) -> None:
    environment = {name: filled(value) for name, value in OURS["web"]["environment"].items()}

    found = answers(environment, {"path": "/readyz", "headers": {"host": "web:8000"}})

    assert (found["ready"], found["login"]) == (200, [200, 403])
    assert found["public"] == "http://gateway.example.com"


def test_every_name_given_is_a_setting() -> None:
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE))
    given = {*CONFIG}
    given |= {row["name"] for box in CONTAINERS for row in box.get("env", ())}
    given |= {name for service in OURS.values() for name in service["environment"]}

    assert {name.removesuffix("_FILE") for name in given} <= documented


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:4]))
def test_every_command_names_something_that_exists(command: list[str]) -> None:
    program, *rest = command
    if program == "python":
        assert (ROOT / rest[0]).exists()
        assert rest[1] in get_commands()
        return
    assert f"\n{program}" in (ROOT / "requirements/portal.txt").read_text()
    if program == "celery":
        assert rest[0] == "-A"
        assert import_module(rest[1]).app.main
        assert rest[2] in {"worker", "beat"}
    else:
        module, _, name = rest[0].partition(":")
        assert callable(getattr(import_module(module), name or "application"))


def test_a_process_that_works_on_the_cluster_has_an_account_there() -> None:
    for name in ("worker", "watcher", "live"):
        assert PODS[name]["serviceAccountName"] == name
        assert PODS[name].get("automountServiceAccountToken", True)
        assert OURS[name]["environment"][f"KUBECONFIG_{name.upper()}"] == "/run/kubeconfig"


def test_the_gateway_that_is_configured_is_the_one_that_the_manifests_name() -> None:
    route = next(obj for obj in MANIFESTS if obj["kind"] == "HTTPRoute")
    parent = route["spec"]["parentRefs"][0]
    namespaces = set(
        re.findall(r"kubernetes.io/metadata.name: ([a-z-]+)", (ROOT / "k8s/portal/network.yaml").read_text())
    )

    assert CONFIG["GATEWAY_REF"] == f"{parent['namespace']}/{parent['name']}"
    assert {CONFIG["GATEWAY_PODS"].split("/")[0], CONFIG["MONITORING_NAMESPACE"]} <= namespaces
    assert urlsplit(CONFIG["SLIPWAY_URL"]).hostname in CONFIG["SLIPWAY_ALLOWED_HOSTS"].split(",")
