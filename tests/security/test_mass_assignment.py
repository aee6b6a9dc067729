"""Every name that a column has, sent to every address that writes: only the fields that an address declares change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pytest
from django.apps import apps
from django.core.cache import cache
from django.db import connection, models
from django.http import HttpResponseBase

from .routes import django_routes
from .rules import SAFE, Row
from .table import BODILESS, HARMLESS, TABLE
from .world import Caller, World, every_row, undone

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("framed_once")]

ROUTES = django_routes()
DONE = range(200, 400)
MARK, NUMBER = "evilmark", 4_242_424
# What attackers try that no column is called.
EXTRA = [
    "is_admin",
    "admin",
    "role",
    "roles",
    "permissions",
    "scope",
    "password2",
    "owner",
    "owner_id",
    "spec_digest",
    "gpu_limit",
    "limit",
    "reserved_gpus",
    "approve",
    "verdict_id",
    "approved_by",
    "granted",
    "by_policy",
    "force",
    "skip_checks",
    "dry_run",
    "service_account",
    "serviceAccount",
    "serviceAccountName",
    "cluster_name",
    "nodeSelector",
    "image",
    "env",
    "pod_overrides",
    "annotations",
    "labels",
    "_method",
    "_state",
    "pk",
    "__class__",
    "constructor",
]
# Nested, dotted and in brackets, as other frameworks read them.
SHAPES = ("user[{}]", "deployment.{}", "team__{}", "{}[]", "{}[0]")
FIRST_ID = 1_000_000
# What a refused body of the API is told of those names that are taken.
KNOWN = re.compile(r"Known here: ([^\"]*?)\.\"")
# Of the names that are refused together one in so many is sent alone, other ones at other addresses.
FEW_ALONE = 12
CHANGES = re.compile(r"\b1\d{6}\b|[0-9a-f]{32,64}|\d{4}-\d\d-\d\d[T ][\d:.]+(?:\+00:00|Z)?")

# Fields that an address takes beside those of its good body: all that may come of a name that was not asked for.
SPAN, KEY = {"valid_from", "valid_until"}, {"personal", "deployments", "requests_per_minute", "tokens_per_minute"}
DECLARED: dict[str, set[str]] = {
    "/deployments/new/": {"note", "args"},
    "/deployments/{pk}/edit/": {"note", "args"},
    "/approvals/policies/{pk}/": {"ask_above"},
    "/approvals/selected/": {"comment"},
    "/approvals/quota/{pk}/": {"flavor", "gpus", *SPAN},
    "/quotas/ask/": SPAN,
    "/quotas/grant/": {"comment", "until"},
    "/quotas/grants/{pk}/": {"until"},
    "/flavors/new/": {"node_selector", "tolerations", "active"},
    "/flavors/{slug}/": {"node_selector", "tolerations", "active"},
    "/engines/{slug}/": {"seen"},
    "/catalogue/new/": {"revision", "name", "summary", "capabilities"},
    "/catalogue/{pk}/": set(),
    "/catalogue/{pk}/edit/": {"revision", "name", "summary", "capabilities"},
    "/keys/new/": KEY,
    "/people/teams/{slug}/invitations/": {"email"},
    "/api/v1/deployments/": {"note"},
    "/api/v1/deployments/{pk}/": {"note"},
    "/api/v1/deployments/{pk}/approve/": {"comment"},
    "/api/v1/approvals/decide/": {"comment"},
    "/api/v1/teams/{pk}/": {"archived"},
    "/api/v1/teams/{slug}/policy/": {"ask_above", "at_expiry"},
    "/api/v1/quota-grants/": {"comment", "until", "since"},
    "/api/v1/quota-grants/{pk}/": {"comment", "until"},
    "/api/v1/quota-requests/": SPAN,
    "/api/v1/quota-requests/{pk}/decide/": {"flavor", "gpus", *SPAN},
    "/api/v1/flavors/": {"node_selector", "tolerations", "active", "resource_name", "price_per_hour"},
    "/api/v1/flavors/{pk}/": {
        *("node_selector", "tolerations", "active", "resource_name", "price_per_hour", "product", "memory_mib"),
        *("compute_capability", "gpus_per_node"),
    },
    "/api/v1/catalog/": {"revision", "name", "summary", "capabilities"},
    "/api/v1/catalog/{pk}/": {"active", "revision", "name", "summary", "capabilities"},
    "/api/v1/endpoint-keys/": {"days", *KEY},
    "/api/v1/invitations/": {"email", "days"},
    "/api/v1/tokens/": {"teams"},
}
WRITES = sorted(
    (route, method)
    for route, row in TABLE.items()
    for method, rule in row.rules.items()
    if rule.body and row.kind in {"page", "api", "open"} and route in ROUTES and route not in HARMLESS
)


def test_every_address_that_takes_a_body_has_a_good_one() -> None:
    bare = {
        f"{method} {route}"
        for route, row in TABLE.items()
        for method, rule in row.rules.items()
        # Django reads forms of POST alone; its admin never writes here, which test_every_route asserts.
        if method not in SAFE and not rule.body and (row.kind == "api" or (row.kind != "admin" and method == "POST"))
    }
    assert bare == {f"POST {route}" for route in BODILESS}
    assert {route for route in DECLARED if (route, "POST") not in WRITES} <= {route for route, _ in WRITES}


@pytest.mark.parametrize("route", sorted(HARMLESS))
def test_what_stores_nothing_stores_nothing_whatever_it_is_sent(world: World, route: str) -> None:
    row = TABLE[route]
    good = row.rules["POST"].body(world)  # type: ignore[misc]
    caller = next(caller for caller in world.callers if caller.name == "lead")
    wrong = []
    for label, body in [("the good body", good), *_bodies(row, good, _more(route, good))]:
        with undone() as written:
            answer = caller.send("POST", world.url(ROUTES[route][0], row.of), body, api=row.kind == "api")
        if written or answer.status_code >= 500 or (body is good and answer.status_code not in DONE):
            wrong.append(f"{label}: {answer.status_code}, writes {written}")
    assert not wrong, "\n".join(wrong)


def columns() -> dict[str, Any]:
    """Every name of a field of a model, with a value that would matter."""
    found: dict[str, Any] = dict.fromkeys(EXTRA, MARK)
    for model in apps.get_models():
        for field in model._meta.get_fields():
            for name in {field.name, getattr(field, "attname", field.name)}:
                found[name] = _value(field)
    return found


def _value(field: Any) -> Any:
    if isinstance(field, models.BooleanField):
        return True
    if isinstance(field, models.IntegerField | models.ForeignKey):
        return NUMBER
    return MARK


NAMES = columns()


@pytest.fixture
def after_all(world: World) -> None:
    """Rows that a request makes have ids that nothing else in them looks like; limits that are counted begin anew."""
    cache.clear()
    with connection.cursor() as cursor:
        for model in apps.get_models():
            table = model._meta.db_table
            if isinstance(model._meta.pk, models.AutoField):
                # Those of the world may be past it: sequences of a database that is used again go on.
                last = f"GREATEST({FIRST_ID}, (SELECT MAX(id) FROM {table}))"
                cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last}, true)")


def changes(before: dict[tuple[str, str], str]) -> list[str]:
    """What differs now, without ids, times and digests."""
    now = every_row()
    changed = [
        (table, _in_order(now.get((table, pk), '"gone"')))
        for table, pk in sorted(before.keys() | now.keys(), key=str)
        if before.get((table, pk)) != now.get((table, pk))
    ]
    return sorted(f"{table} {CHANGES.sub('·', row)}" for table, row in changed)


def _in_order(row: str) -> str:
    return json.dumps(json.loads(row), sort_keys=True)


@pytest.mark.parametrize(("route", "method"), WRITES)
def test_only_declared_fields_change(world: World, after_all: None, route: str, method: str) -> None:
    row = TABLE[route]
    good = row.rules[method].body(world)  # type: ignore[misc]
    before = every_row()
    caller = _somebody_who_passes(world, row, route, method, good, before)
    once, twice = (_changes(world, row, route, method, caller, good, before)[0] for _ in range(2))
    assert once, "the good body changes nothing"
    wild = {index for index, pair in enumerate(zip(once, twice, strict=True)) if pair[0] != pair[1]}
    wrong = []
    more, alone = _more(route, good), set()
    tables = {line.split(" ")[0] for line in once}
    own = {
        field.column for model in apps.get_models() if model._meta.db_table in tables for field in model._meta.fields
    }
    suspects = sorted(more.keys() & {*own, *EXTRA})

    def judge(label: str, body: dict[str, Any]) -> HttpResponseBase:
        found, answer = _changes(world, row, route, method, caller, body, before)
        if answer.status_code >= 500:
            wrong.append(f"{label}: {answer.status_code}")
        if found and _tamed(found, wild) != _tamed(once, wild):
            new = [line for line in found if line not in once]
            wrong.append(f"{label}: {new[:3]}")
        if MARK in str(found) or str(NUMBER) in str(found):
            wrong.append(f"{label} is stored: {[line for line in found if MARK in line or str(NUMBER) in line][:2]}")
        return answer

    for label, body in _bodies(row, good, more):
        answer = judge(label, body)
        if row.kind == "api" and label == "many names":
            alone = _unsettled(answer, suspects) | set(suspects[len(route) % FEW_ALONE :: FEW_ALONE])
    for name in sorted(alone):
        judge(name, {**good, name: more[name]})
    assert not wrong, "\n".join(wrong)


def _unsettled(answer: HttpResponseBase, names: list[str]) -> set[str]:
    """Names of which an answer of the API to all at once says nothing: where it was done, nothing came of any of them;
    where one was refused, so are the others, but for those that it says it knows."""
    if answer.status_code in DONE:
        return set()
    known = KNOWN.search(answer.content.decode())  # type: ignore[attr-defined]
    return set(names) & set(known[1].split(", ")) if known else set(names)


def batched(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """The items, so many at a time."""
    left = iter(items)
    while part := tuple(islice(left, size)):
        yield part


def _more(route: str, good: dict[str, Any]) -> dict[str, Any]:
    """Names that an address has not declared."""
    return {name: value for name, value in NAMES.items() if name not in good and name not in DECLARED.get(route, ())}


def _bodies(row: Row, good: dict[str, Any], more: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The good body with more in it."""
    if row.kind != "api":
        # A form of more than 500 fields is refused before anybody reads it.
        for part in batched(more.items(), 400):
            yield "many names", {**dict(part), **good}
        for part in batched(more.items(), 200):
            yield "many names twice", {**{name: [value, value] for name, value in part}, **good}
        for part in batched(more.items(), 80):
            yield "many shapes", {shape.format(name): value for name, value in part for shape in SHAPES} | good
        return
    yield "many names", {**more, **good}
    for inside, values in good.items():
        if isinstance(values, dict):
            for name in ("approved", "namespace", "team_id", "image", "serviceAccountName", "env"):
                yield f"{inside}.{name}", {**good, inside: {**values, name: NAMES.get(name, MARK)}}
    yield "nested", {**good, "deployment": more, "user": more}


def _changes(
    world: World, row: Row, route: str, method: str, caller: Caller, body: Any, before: dict[tuple[str, str], str]
) -> tuple[list[str], HttpResponseBase]:
    with undone() as written:
        answer = caller.send(method, world.url(ROUTES[route][0], row.of), body, api=row.kind == "api")
        return changes(before) if written else [], answer


def _somebody_who_passes(
    world: World, row: Row, route: str, method: str, good: Any, before: dict[tuple[str, str], str]
) -> Caller:
    rule = row.rules[method]
    likely = [caller for caller in world.callers if caller.person in rule.passes]
    for caller in [*likely, *world.others, *world.callers]:
        with undone() as written:
            answer = caller.send(method, world.url(ROUTES[route][0], row.of), good, api=row.kind == "api")
            done = written and answer.status_code in DONE and changes(before)
        if done:
            return caller
    raise AssertionError("nobody gets anything done with the row's body")


def _tamed(lines: list[str], wild: set[int]) -> list[str]:
    """Without the words of those rows that hold something random; their tables stay."""
    return [line.split(" ")[0] if index in wild else line for index, line in enumerate(lines)]
