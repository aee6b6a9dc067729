"""Real servers for the tests that need them, started when the first such test asks and ended with the session."""

from __future__ import annotations

import json
import os
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from _pytest.terminal import TerminalReporter

from portal.demo.layout import REPOSITORY
from portal.demo.running import idle_folder, running
from tests import emptying, lanes
from tests.scenarios import comparison, timings

INNER_LOOP = "not integration"  # what `make test-fast` selects
TESTS = Path(__file__).parent
KEPT = REPOSITORY / ".demo-test"  # survives the session: the next one finds its database made
# Modules that run programs or a cluster of their own, by path below tests/.
RUN_THINGS = (
    "demo/test_identity.py",
    "demo/test_real_demo.py",
    "demo/test_servers.py",
    "demo/test_stack.py",
    "demo/test_supervisor.py",
    "deployments/converging/*",
    "deployments/test_pure_imports.py",
    "ops/test_envoy.py",
    "ops/test_kubernetes.py",
    "portal/test_meter.py",
    "portal/test_settings.py",
    "differential/test_*.py",
    "scenarios/*.py",
    "sandbox/test_controllers_cluster*.py",
    "sandbox/test_gateway_keys.py",
    "sandbox/test_gateway_serving.py",
    "sandbox/test_lite_[!p]*.py",  # all but test_lite_pieces.py
    "sandbox/test_lite_python*.py",
    "sandbox/test_metrics_lite.py",
    "sandbox/test_model_server.py",
    "sandbox/test_node_pods*.py",
)
NEEDS_A_SERVER = {"db", "transactional_db", "servers", "redis_url", "prometheus", "demo", "live_server"}


@dataclass(frozen=True)
class PrometheusServer:
    """A running Prometheus: put target files into `targets`, rule files into `rules`."""

    url: str
    targets: Path
    rules: Path

    def reload(self) -> None:
        """Make it read its files again."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/-/reload", method="POST"), timeout=10).close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query."""
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return result


def pytest_configure(config: pytest.Config) -> None:
    # How long a machine under load takes to think of inputs says nothing about the code.
    patient = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("slipway", suppress_health_check=patient, deadline=None)
    hypothesis.settings.load_profile("slipway")
    config.addinivalue_line("markers", "integration: needs a server or runs programs (set by itself)")
    config.pluginmanager.register(lanes, "lanes")
    config.pluginmanager.register(comparison, "comparison")


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Show the grounds of the scenarios side by side, and where several processes spent their time."""
    for title, lines in (("scenarios on two grounds", timings.lines()), ("processes and lanes", lanes.lines())):
        for number, line in enumerate(lines):
            if number == 0:
                terminalreporter.section(title)
            terminalreporter.write_line(line)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # Importing what will not run costs the inner loop seconds.
    return True if config.option.markexpr == INNER_LOOP and runs_things(collection_path) else None


def runs_things(path: Path) -> bool:
    """Tell whether a module starts programs."""
    return any(fnmatch(path.relative_to(TESTS).as_posix(), pattern) for pattern in RUN_THINGS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        own = item.get_closest_marker("django_db") or item.get_closest_marker("stack")
        if own or fixtures & NEEDS_A_SERVER or runs_things(item.path):
            item.add_marker("integration")
        if "demo" in fixtures:
            item.add_marker("stack")
    items.sort(key=turn)
    if hasattr(config, "workerinput"):  # one of several processes
        items[:] = lanes.in_turn(items)


def turn(item: pytest.Item) -> int:
    """Place of a test in the run: cheap ones tell early what is broken, and nothing runs beside an idle stack.

    The browser comes before the tests that kill parts of the stack both share; clusters of their own come after all,
    the real one last, and on each of them what asks which privileges were used on it. No ground comes up twice: its
    audit log would begin anew.
    """
    ground = item.callspec.params.get("ground", "real") if hasattr(item, "callspec") else "real"
    real = ground == "real" and item.get_closest_marker("cluster") is not None
    if item.path.is_relative_to(TESTS / "scenarios") or real:
        return 4 + 2 * real + (item.path.name == "test_privileges.py")
    if item.get_closest_marker("browser"):
        return 2
    if item.get_closest_marker("stack"):
        return 3
    return 1 if item.get_closest_marker("integration") else 0


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, str]]:
    """Environment with DATABASE_URL and REDIS_URL of running servers; those given from outside win."""
    given = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL") if name in os.environ}
    if len(given) == 2:
        yield given
        return
    with running(idle_folder(KEPT / "servers"), only=["postgres", "redis"], quick=True) as environment:
        yield environment | given


@pytest.fixture(scope="session")
def django_db_modify_db_settings(servers: dict[str, str]) -> None:
    """Point Django and Celery at the servers of the tests before the test database is made."""
    from django.conf import settings

    from portal.celery import app
    from portal.settings import database_from_url

    settings.DATABASES["default"].update(database_from_url(servers["DATABASE_URL"]))
    # After a test that commits Django empties all tables, those too that a trigger protects.
    settings.DATABASES["default"]["OPTIONS"]["options"] = "-c slipway.may_truncate=on"
    emptying.install()
    settings.REDIS_URL = settings.CELERY_BROKER_URL = app.conf.broker_url = servers["REDIS_URL"]


@pytest.fixture(scope="session")
def redis_url(servers: dict[str, str]) -> str:
    """Address of a running Redis."""
    return servers["REDIS_URL"]


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A Prometheus of its own, without targets."""
    data = tmp_path_factory.mktemp("prometheus")
    with running(data, only=["prometheus"]) as environment:
        folder = data / "prometheus"
        yield PrometheusServer(environment["PROMETHEUS_URL"], folder / "targets", folder / "rules")


@pytest.fixture(scope="session")
def demo() -> Iterator[dict[str, Any]]:
    """The whole stack on data of its own, fresh: what demo.json says, and `data`, the folder."""
    data = idle_folder(KEPT / "stack")
    shutil.rmtree(data, ignore_errors=True)
    with running(data):
        description: dict[str, Any] = json.loads((data / "demo.json").read_text())
        yield description | {"data": str(data)}
