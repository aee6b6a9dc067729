"""What a question may ask: no column by a filter's back door, and no switch in the environment that opens the door."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest
from django.apps import apps
from django.db import models

from portal.demo.layout import REPOSITORY

from .routes import django_routes
from .table import TABLE
from .world import World, undone

pytestmark = pytest.mark.django_db

ROUTES = django_routes()
LISTS = sorted(
    route for route, row in TABLE.items() if route in ROUTES and row.kind == "api" and row.rules.get("GET") is not None
)
# What the document of the API itself is asked, in the words of the library that serves it.
OF_LIBRARIES = ("/api/v1/schema/",)
LOOKUPS = ("", "__startswith", "__regex", "__in", "__isnull", "__gt")
ORDERS = ("ordering", "order_by", "sort", "fields", "expand", "_connector", "_negated", "where", "extra")
DEPTH, EACH = 3, 12
BACK_DOOR = "team__members__password__startswith"
TEMPTING = (
    *(
        "DEBUG",
        "DJANGO_DEBUG",
        "APP_NO_AUTHNZ",
        "NO_AUTH",
        "SKIP_AUTH",
        "DISABLE_AUTH",
        "AUTH_DISABLED",
        "ALLOW_ANONYMOUS",
    ),
    *("DEV_MODE", "DEVELOPMENT", "ENVIRONMENT", "TESTING", "TEST", "INSECURE", "SLIPWAY_NO_AUTH", "SLIPWAY_SKIP_AUTH"),
    *("SLIPWAY_DEV", "SLIPWAY_TEST", "SLIPWAY_INSECURE", "SLIPWAY_ADMIN", "REMOTE_USER", "AUTHENTICATION_BACKENDS"),
)
# Who comes in without a name, and by which settings that is decided.
ASK = """
import json, django
django.setup()
from django.conf import settings
from django.test import Client
names = ("DEBUG", "AUTHENTICATION_BACKENDS", "MIDDLEWARE", "REST_FRAMEWORK", "ALLOWED_HOSTS", "SESSION_COOKIE_SECURE")
names += ("CSRF_COOKIE_SECURE", "INSTALLED_APPS", "ACCOUNT_ADAPTER", "SOCIALACCOUNT_PROVIDERS", "SLIPWAY_SANDBOX")
client = Client(headers={"host": "127.0.0.1"})
told = {path: client.get(path).status_code for path in ("/api/v1/deployments/", "/", "/cluster/", "/django-admin/")}
print(json.dumps([{name: repr(getattr(settings, name, None)) for name in names}, told]))
"""


def paths(model: type[models.Model], depth: int) -> Iterator[str]:
    """Every name by which a filter reaches a column from this model."""
    for field in model._meta.get_fields():
        yield field.name
        inner = field.related_model
        if depth > 1 and isinstance(inner, type):
            yield from (f"{field.name}__{name}" for name in paths(inner, depth - 1))


def test_no_list_is_narrowed_by_a_column_that_it_does_not_name(world: World) -> None:
    """Each name of a column within three steps, with lookups, is refused by every address of the API that is read."""
    every = [name for model in apps.get_app_config("deployments").get_models() for name in paths(model, DEPTH)]
    assert any(name.endswith("user__password") for name in every), "a password is within reach of a filter"
    admin = next(caller for caller in world.callers if caller.name == "admin")
    wrong = []
    for number, route in enumerate(LISTS):
        if route in OF_LIBRARIES:
            continue
        path = world.url(ROUTES[route][0], TABLE[route].of)
        drawn = random.Random(number)
        names = [name for name in drawn.sample(every, EACH) if "__" in name]  # a plain word may be a parameter here
        with undone():
            plain = admin.send("GET", path, api=True).status_code
        for name in (BACK_DOOR, *(f"{name}{drawn.choice(LOOKUPS)}" for name in names), *ORDERS):
            with undone():
                status = admin.send("GET", f"{path}?{name}=a", api=True).status_code
            if status not in {422, plain} or status == 200:
                wrong.append(f"{route}?{name}: {status}, without it {plain}")
    assert not wrong, "\n".join(wrong)


def test_no_word_in_the_environment_lets_anybody_in() -> None:
    """A site as it is run answers strangers alike whatever tempting names stand around it."""
    plain = {name: value for name, value in os.environ.items() if name not in TEMPTING}
    plain |= {"DJANGO_SETTINGS_MODULE": "portal.settings", "SLIPWAY_SECRET_KEY": "k" * 50}
    plain["SLIPWAY_URL"] = "https://slipway.example.com"
    told = [_ask(plain), _ask(plain | dict.fromkeys(TEMPTING, "1"))]
    assert told[0] == told[1]
    settings, statuses = told[0]
    assert settings["DEBUG"] == "False"
    assert statuses == {"/api/v1/deployments/": 401, "/": 302, "/cluster/": 302, "/django-admin/": 302}


def _ask(environment: dict[str, str]) -> list[dict[str, str]]:
    words = [sys.executable, "-c", ASK]
    done = subprocess.run(
        words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return found
