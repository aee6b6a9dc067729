"""The servers of the stack, really started."""

from __future__ import annotations

import urllib.error
import urllib.request

import psycopg
import pytest
import redis

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
