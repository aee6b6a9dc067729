"""The servers of the stack, really started."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import psycopg
import pytest
import redis

from portal.demo.running import running
from tests.conftest import PrometheusServer


def test_postgres_takes_the_password_it_was_given_and_no_other(servers: dict[str, str]) -> None:
    with psycopg.connect(servers["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT current_user, current_database()").fetchone() == ("slipway", "slipway")
    user_and_password = servers["DATABASE_URL"].split("//")[1].split("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(servers["DATABASE_URL"].replace(user_and_password, "slipway:wrong"))


def test_redis_asks_for_its_password_and_writes_nothing_to_disk(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}
    without = redis_url.split("://:")[0] + "://" + redis_url.split("@")[1]
    with redis.Redis.from_url(without) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_prometheus_scrapes_itself_and_reloads_rules(prometheus: PrometheusServer) -> None:
    rule = "groups: [{name: g, rules: [{record: 'slipway:one', expr: '1'}]}]"
    (prometheus.rules / "one.yml").write_text(rule)
    prometheus.reload()
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/rules", timeout=10) as answer:
        assert b"slipway:one" in answer.read()
    (prometheus.rules / "one.yml").write_text("groups: nonsense")
    with pytest.raises(urllib.error.HTTPError):
        prometheus.reload()
    (prometheus.rules / "one.yml").unlink()
    prometheus.reload()


def test_a_killed_postgres_is_back_with_what_was_committed(tmp_path: Path) -> None:
    with running(tmp_path, only=["postgres"]) as environment:
        with psycopg.connect(environment["DATABASE_URL"]) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        holder = psycopg.connect(environment["DATABASE_URL"])
        pid = json.loads((tmp_path / "processes.json").read_text())["postgres"]["pid"]
        os.kill(pid, signal.SIGKILL)
        assert _when_back(environment["DATABASE_URL"], "SELECT n FROM kept") == (7,)
        holder.close()
        assert json.loads((tmp_path / "processes.json").read_text())["postgres"]["restarts"] >= 1


def test_a_second_start_on_the_same_folder_is_refused_and_leaves_the_first(tmp_path: Path) -> None:
    with running(tmp_path, only=["redis"]) as environment:
        with pytest.raises(RuntimeError, match="Already running"), running(tmp_path, only=["redis"]):
            raise AssertionError("two on one folder")
        with redis.Redis.from_url(environment["REDIS_URL"]) as client:
            assert client.ping()


def _when_back(url: str, query: str) -> object:
    deadline = time.monotonic() + 20
    while True:
        try:
            with psycopg.connect(url, connect_timeout=2) as connection:
                return connection.execute(query).fetchone()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
