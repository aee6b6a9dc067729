"""The database ends what takes too long, and people are told so: with the settings of a process that serves them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection
from django.test import Client

from deployments.models import User
from tests.deployments import factories as make

ROOT = Path(__file__).resolve().parents[2]
LOCKED = "deployments_user", "deployments_apitoken", "django_session"
SCRIPT = """
import json, time
import django
django.setup()
from django.db import connection
from django.test import Client
client = Client(raise_request_exception=False)
with connection.cursor() as cursor:
    cursor.execute("SHOW statement_timeout")
    found = {"timeout": cursor.fetchone()[0]}
connection.close()
def asked(name, method, path, **more):
    begun = time.monotonic()
    answer = getattr(client, method)(path, **more)
    found[name] = [answer.status_code, answer.headers.get("retry-after"), answer.headers["content-type"],
                   answer.content.decode(), round(time.monotonic() - begun, 1)]
asked("page", "post", "/accounts/login/", data={"login": "ann", "password": "x"})
asked("api", "get", "/api/v1/whoami/", headers={"authorization": "Bearer slp_" + "x" * 43})
print(json.dumps(found))
"""


def test_whoever_waits_for_a_table_is_told_before_they_give_up(transactional_db: None) -> None:
    """Another session holds the tables, as a migration may: each statement that waits for them is ended."""
    database = connection.settings_dict
    given = f"postgres://{database['USER']}:{database['PASSWORD']}@{database['HOST']}:{database['PORT']}"
    url = f"{given}/{database['NAME']}"
    environment = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "DATABASE_URL": url,
        "SLIPWAY_ALLOWED_HOSTS": "testserver",
        "SLIPWAY_DB_POOL": "1",
        "SLIPWAY_DB_STATEMENT_SECONDS": "0.4",
    }
    with psycopg.connect(url) as other:
        other.execute(f"LOCK TABLE {', '.join(LOCKED)} IN ACCESS EXCLUSIVE MODE")
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )

    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["timeout"] == "400ms"
    for name, kind in ("page", "text/html; charset=utf-8"), ("api", "application/problem+json"):
        status, retry, content_type, text, seconds = found[name]
        assert (status, retry, content_type) == (503, "5", kind), text
        assert "The database took longer over this than Slipway waits." in text
        assert "canceling statement" not in text
        assert "Traceback" not in text
        # One statement or two were ended, and nobody waited for the lock.
        assert seconds < 10
    assert json.loads(found["api"][3])["code"] == "too_slow"


@pytest.mark.parametrize("error", ["gone", "canceling statement due to statement timeout"])
def test_only_what_the_database_itself_ended_is_called_slow(
    db: None, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """The words of an error count for nothing, its code does."""

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError(error)

    carol: User = make.make_user("carol", admin=True)
    client = Client(raise_request_exception=False)
    client.force_login(carol)
    monkeypatch.setattr("django.contrib.sessions.backends.db.SessionStore.load", away)

    answer = client.get("/api/v1/flavors/")

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
