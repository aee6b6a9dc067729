"""Which fields of an answer each role sees: a new one fails until it stands in `tests/data/answer_fields.json`.

`SLIPWAY_WRITE_FIELDS=1 pytest tests/security/test_fields.py` writes the file anew: read what changed before it is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from portal.demo.layout import REPOSITORY

from .routes import django_routes
from .table import TABLE
from .world import World, undone

pytestmark = pytest.mark.django_db

ROUTES = django_routes()
READ = sorted(
    route for route, row in TABLE.items() if route in ROUTES and row.kind == "api" and row.rules.get("GET") is not None
)
KEPT = REPOSITORY / "tests" / "data" / "answer_fields.json"
ROLES = ("stranger", "member", "lead", "admin")
# What is in these is not fields of ours: flags, objects of Kubernetes, what an event changed, quantities by name.
OPEN = {"spec", "args", "objects", "object", "resolution", "data", "values", "set", "labels", "facts", "facets"}
# The document of the API itself.
SKIPPED = ("/api/v1/schema/",)


def fields(value: Any, at: str = "") -> Iterator[str]:
    """The path of each field of an answer; all items of a list are one."""
    if isinstance(value, list):
        for item in value:
            yield from fields(item, f"{at}[]")
    elif isinstance(value, dict) and at.rpartition(".")[2].removesuffix("[]") not in OPEN:
        for name, inner in value.items():
            here = f"{at}.{name}" if at else name
            yield here
            yield from fields(inner, here)


def seen(world: World) -> dict[str, dict[str, str]]:
    """By address and field the roles that see it."""
    found: dict[str, dict[str, str]] = {}
    for route in READ:
        if route in SKIPPED:
            continue
        path, by_field = world.url(ROUTES[route][0], TABLE[route].of), {}
        for caller in (caller for role in ROLES for caller in world.callers if caller.name == role):
            with undone():
                answer: Any = caller.send("GET", path, api=True)
            if answer.status_code != 200 or not answer.headers["Content-Type"].startswith("application/json"):
                continue
            for name in fields(json.loads(answer.content)):
                if caller.name not in by_field.setdefault(name, []):
                    by_field[name].append(caller.name)
        found[route] = {name: " ".join(roles) for name, roles in sorted(by_field.items())}
    return found


def test_each_role_sees_the_fields_that_are_declared_and_no_other(world: World) -> None:
    found = seen(world)
    if os.environ.get("SLIPWAY_WRITE_FIELDS"):
        KEPT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    assert found.keys() == kept.keys()
    changed = [
        f"{route} {name}: seen by {found[route].get(name, 'nobody')}, declared for {kept[route].get(name, 'nobody')}"
        for route in found
        for name in sorted(found[route].keys() | kept[route].keys())
        if found[route].get(name) != kept[route].get(name)
    ]
    assert not changed, "\n".join(changed)
    assert any(roles == "admin" for by_field in found.values() for roles in by_field.values()), "some are for admins"
