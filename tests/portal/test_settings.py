"""The settings import with nothing set, and each of them is documented."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def read_by_settings() -> set[str]:
    source = (ROOT / "portal" / "settings.py").read_text()
    return set(re.findall(r'env(?:_bool|_list)?\("([A-Z_]+)"', source))


def test_every_setting_is_documented_and_nothing_else() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)

    assert set(rows) == read_by_settings()


def test_settings_import_with_an_empty_environment() -> None:
    code = "import portal.settings as s; print(s.DEBUG, len(s.SECRET_KEY))"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )

    assert done.stdout.split() == ["False", "64"], done.stderr


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    code = "import portal.settings as s; print(s.SECRET_KEY)"
    environment = {"PATH": os.environ["PATH"], "SLIPWAY_SECRET_KEY_FILE": str(tmp_path / "key")}

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)

    assert done.stdout.strip() == "from-a-file", done.stderr


def settings_with(expression: str, **environment: str) -> str:
    """What an expression over the settings `s` gives with these variables alone."""
    code = f"import portal.settings as s; print(({expression}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_empty_value_is_none() -> None:
    given = {"GATEWAY_URL": "http://gateway", "GATEWAY_PUBLIC_URL": "", "SLIPWAY_DEBUG": ""}

    assert settings_with("s.GATEWAY_PUBLIC_URL, s.DEBUG", **given) == "('http://gateway', False)"


def test_forms_of_the_address_people_use_are_trusted() -> None:
    given = {"SLIPWAY_URL": "https://slipway.example.com/", "SLIPWAY_CSRF_TRUSTED_ORIGINS": "https://other.example.com"}

    assert settings_with("s.CSRF_TRUSTED_ORIGINS", **given) == str(
        ["https://slipway.example.com", "https://other.example.com"]
    )


def test_cookies_are_bound_to_this_host_where_tls_allows_it() -> None:
    asked = "s.SESSION_COOKIE_NAME, s.CSRF_COOKIE_NAME, s.SESSION_COOKIE_SECURE"

    secure = settings_with(asked, SLIPWAY_URL="https://slipway.example.com")
    assert secure == "('__Host-sessionid', '__Host-csrftoken', True)"
    # A browser would take none of those names over plain HTTP, which the demo speaks.
    assert settings_with(asked, SLIPWAY_URL="http://127.0.0.1:8000") == "('sessionid', 'csrftoken', False)"


def test_a_proxys_headers_are_believed_only_where_that_is_set() -> None:
    asked = "s.SECURE_PROXY_SSL_HEADER, s.ALLAUTH_TRUSTED_PROXY_COUNT"

    assert settings_with(asked) == "(None, 0)"
    assert settings_with(asked, SLIPWAY_TRUST_PROXY="1") == "(('HTTP_X_FORWARDED_PROTO', 'https'), 1)"


def test_the_log_of_workers_is_not_buried_under_sweeps() -> None:
    code = """
import logging
import django
django.setup()
from portal.celery import app
app.log.setup_logging_subsystem(loglevel="INFO")
names = "celery.worker.strategy", "celery.app.trace", "deployments.tasks"
print([logging.getLogger(name).getEffectiveLevel() for name in names])
"""
    environment = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "portal.settings"}

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)

    assert done.stdout.strip() == "[30, 30, 20]", done.stderr


def test_a_list_of_registries_holds_hosts_and_places_below_them() -> None:
    good = "registry.example.com:5000/acme/models,ghcr.io"
    assert settings_with("s.SLIPWAY_OCI_REGISTRIES", SLIPWAY_OCI_REGISTRIES=good) == str(good.split(","))

    code = """
import importlib, os
import portal.settings as s
from django.core.exceptions import ImproperlyConfigured
for entry in "https://a.example.com", "*.example.com", "me@a.example.com", "a.example.com/../x", ".":
    os.environ["SLIPWAY_OCI_REGISTRIES"] = f"ghcr.io,{entry}"
    try:
        importlib.reload(s)
    except ImproperlyConfigured as failure:
        assert repr(entry) in str(failure), failure
    else:
        print(entry)
"""
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
