"""Dockerfile, compose and nginx: valid, pinned to hashes, no secret written down, one origin in front."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = "web", "live", "worker", "beat", "watcher", "migrate"


def test_compose_keeps_to_its_specification() -> None:
    schema = json.loads((ROOT / "tests/data/schemas/compose-spec.json").read_text())
    errors = [str(error) for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(COMPOSE)]
    assert errors == []


def test_the_schema_would_notice_a_mistake() -> None:
    schema = json.loads((ROOT / "tests/data/schemas/compose-spec.json").read_text())
    broken = {"services": {"web": {"imgae": "slipway"}}}
    assert not jsonschema_rs.Draft202012Validator(schema).is_valid(broken)


def test_compose_has_every_part() -> None:
    assert set(SERVICES) == {"db", "redis", "prometheus", "nginx", *OURS}


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_closed(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "ports" not in service


def test_only_nginx_is_reachable_and_only_from_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["nginx"]
    assert "127.0.0.1:8000" in published["nginx"][0]


def test_database_and_broker_have_no_way_out() -> None:
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert SERVICES["db"]["networks"] == SERVICES["redis"]["networks"] == ["inside"]


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name in ("SLIPWAY_SECRET_KEY", "POSTGRES_PASSWORD", "POSTGRES_OWNER_PASSWORD", "REDIS_PASSWORD"):
        assert set(re.findall(r"\$\{" + name + r"(..)", text)) == {":?"}
        assert f"\n{name}=\n" in (ROOT / "docker" / "env.example").read_text()


def test_the_migration_alone_is_the_owner_of_the_database() -> None:
    """The audit cannot be emptied by who serves pages."""
    roles = {
        name: service["environment"]["DATABASE_URL"].removeprefix("postgres://").partition(":")[0]
        for name, service in SERVICES.items()
        if "DATABASE_URL" in (service.get("environment") or {})
    }
    assert {name for name, role in roles.items() if role == "slipway_owner"} == {"migrate"}
    assert {role for name, role in roles.items() if name != "migrate"} == {"slipway"}
    assert SERVICES["migrate"]["environment"]["SLIPWAY_APP_ROLE"] == "slipway"
    assert SERVICES["db"]["environment"]["POSTGRES_USER"] == "slipway_owner"


def test_every_variable_that_must_be_set_is_in_the_example() -> None:
    wanted = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "docker-compose.yml").read_text()))
    example = set(re.findall(r"^([A-Z_]+)=", (ROOT / "docker" / "env.example").read_text(), re.MULTILINE))
    assert wanted <= example


def test_mounted_files_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./") and "kubeconfigs/" not in source:
                assert (ROOT / source).exists(), source


def test_nginx_splits_the_origin_as_the_route_does() -> None:
    nginx = (ROOT / "docker" / "nginx.conf.template").read_text()
    assert nginx.count("{") == nginx.count("}")
    route = next(
        obj for obj in yaml.safe_load_all((ROOT / "k8s/portal/services.yaml").read_text()) if obj["kind"] == "HTTPRoute"
    )
    to_live = [
        match["path"]["value"]
        for rule in route["spec"]["rules"]
        for match in rule["matches"]
        if rule.get("backendRefs", [{}])[0].get("name") == "live"
    ]
    assert to_live == ["/live", "/api/v1/deployments/[^/]+/logs/?"]
    assert "location /live/ {" in nginx
    assert "location ~ ^/api/v1/deployments/[^/]+/logs/?$ {" in nginx
    assert re.search(r"location /live/authorize/ \{ return 404; \}", nginx)


def test_nginx_believes_a_proxy_in_front_only_where_that_is_configured() -> None:
    template = (ROOT / "docker" / "nginx.conf.template").read_text()
    service = SERVICES["nginx"]

    assert "proxy_set_header X-Forwarded-Proto $outer_scheme;" in template
    assert "proxy_set_header X-Forwarded-For $outer_callers;" in template
    assert re.findall(r"map \"\$outer_is_trusted:\$http_x_forwarded_(proto|for)\"", template) == ["proto", "for"]
    assert template.count("default $scheme;") == template.count("default $remote_addr;") == 1
    # Whoever reads the template fills in this one name, into a file that nginx then reads.
    assert set(re.findall(r"\$\{(\w+)\}", template)) == {"SLIPWAY_TRUST_PROXY"}
    assert service["environment"]["SLIPWAY_TRUST_PROXY"] == "${SLIPWAY_TRUST_PROXY:-}"
    folder = service["environment"]["NGINX_ENVSUBST_OUTPUT_DIR"]
    assert service["command"][:3] == ["nginx", "-c", f"{folder}/nginx.conf"]
    assert folder in service["tmpfs"]


def dockerfile() -> list[str]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_installs_by_hash_and_drops_root() -> None:
    lines = dockerfile()
    (install,) = [line for line in lines if "pip install" in line]
    assert "--require-hashes" in install
    assert lines.index("USER 10001:10001") > max(i for i, line in enumerate(lines) if line.startswith(("RUN", "COPY")))
    assert lines[-1].startswith("CMD [")


def test_the_image_copies_only_what_exists_and_what_the_ignore_file_lets_in() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[1] for line in dockerfile() if line.startswith("COPY") and "--from" not in line]
    assert set(copied) == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_has_the_versions_that_the_tests_ran_with() -> None:
    def pins(name: str) -> set[str]:
        return set(
            re.findall(r"^[a-z0-9-]+(?:\[[^]]+])?==\S+", (ROOT / "requirements" / name).read_text(), re.MULTILINE)
        )

    assert pins("portal.txt") <= pins("dev.txt")
