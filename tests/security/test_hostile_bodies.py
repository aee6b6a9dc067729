"""Odd numbers, odd dates and bodies that are only large, in every field and at every address that takes one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deployments.api.rendering import MOST_BYTES, MOST_PARTS
from portal.lib import plain

from .routes import django_routes
from .table import HARMLESS, TABLE
from .world import Caller, World, undone

pytestmark = pytest.mark.django_db

ROUTES = django_routes()
DOCUMENT = yaml.safe_load((Path(__file__).parents[2] / "docs" / "schema.yml").read_text(encoding="utf-8"))
WRITES = sorted(
    (route, method)
    for route, row in TABLE.items()
    for method, rule in row.rules.items()
    if row.kind == "api" and rule.body and (rule.passes or rule.by_others) and route in ROUTES
)
ODD_NUMBERS = [
    *(" 1", "1 ", "+1", "1_0", "1e2", "0x1", "1.0", "٣", "１", "1\u0000", "one", "", "NaN", "Infinity"),
    *(True, False, 0.5, 1e308, -1e308, -1, 2**31, 2**63, -(2**63), [], {}, [1]),
]
# What may be meant where fractions may.
FINE_DECIMALS = {"1.0", 0.5}
ODD_MOMENTS = [
    *("2026-W53-1", "20261231", "2026-12-31", "2026-12-31T10:00:00Z\u0000", " 2026-12-31T10:00:00Z", "now", "", "0"),
    *("2026-12-31T10:00:00Z ", "٢٠٢٦-12-31T10:00:00Z", "2026-02-30T10:00:00Z", "2026-12-31T25:00:00Z", "1e9"),
    *("2026-12-31T10:00:00+99:99", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 5, 1e308, True, [], {}),
]


def fields(route: str, method: str) -> Iterator[tuple[str, str]]:
    """Numeric fields and moments of a body, as the OpenAPI document has them: (name, kind)."""
    documented = {re.sub(r"\{\w+\}", "{}", path): methods for path, methods in DOCUMENT["paths"].items()}
    operation = documented[re.sub(r"\{\w+\}", "{}", route)][method.lower()]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    shape = DOCUMENT["components"]["schemas"].get(body.get("$ref", "").rsplit("/", 1)[-1], body)
    for name, field in shape.get("properties", {}).items():
        if field.get("type") in {"integer", "number"}:
            yield name, field["type"]
        elif field.get("format") == "date-time":
            yield name, "moment"


FIELDS = [(route, method, name, kind) for route, method in WRITES for name, kind in fields(route, method)]


def somebody(world: World, route: str, method: str) -> Caller:
    """Who gets something done there."""
    rule = TABLE[route].rules[method]
    names = [name for name in ("admin", "lead", "member", "stranger") if name in rule.passes]
    return next(caller for caller in [*world.callers, *world.others] if caller.name in (names or ["boss"]))


def test_every_numeric_field_is_known() -> None:
    assert len(FIELDS) > 15
    assert {kind for *_, kind in FIELDS} == {"integer", "number", "moment"}


@pytest.mark.parametrize(("route", "method"), sorted({field[:2] for field in FIELDS}))
def test_odd_numbers_and_dates_are_told_and_stored_nowhere(world: World, route: str, method: str) -> None:
    row = TABLE[route]
    path = world.url(ROUTES[route][0], row.of)
    wrong, refused = [], 0
    for name, kind in (field[2:] for field in FIELDS if field[:2] == (route, method)):
        for value in ODD_MOMENTS if kind == "moment" else ODD_NUMBERS:
            if kind == "number" and not isinstance(value, list | dict) and value in FINE_DECIMALS:
                continue
            body = {**row.rules[method].body(world), name: value}  # type: ignore[misc]
            with undone() as written:
                status = somebody(world, route, method).send(method, path, body, api=True).status_code
            refused += status == 422
            # False is no number either, and 404 would say that nobody looked.
            if status not in {409, 412, 422} or written:
                wrong.append(f"{name} = {value!r}: {status}, writes {written}")
    assert not wrong, "\n".join(wrong)
    assert refused


def hostile(good: dict[str, Any]) -> Iterator[tuple[str, Any, set[int]]]:
    """Bodies that cost much to look at, and the answers that are fine."""
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    yield "deep", {**deepcopy(good), "deep": deep}, {422}
    yield "many names", {**good, **{f"name{number}": number for number in range(MOST_PARTS)}}, {422}
    yield "many values", {**good, "more": [0] * (MOST_PARTS + 1)}, {422}
    yield "a long text", {**good, "more": "x" * 100_000}, {422}
    yield "a long name", {**good, "x" * 100_000: 1}, {422}
    yield "large", {**good, "more": "x" * MOST_BYTES}, {413}


@pytest.mark.parametrize(("route", "method"), WRITES)
def test_a_body_that_is_only_large_is_refused_or_never_read(world: World, route: str, method: str) -> None:
    row = TABLE[route]
    path, caller = world.url(ROUTES[route][0], row.of), somebody(world, route, method)
    good: dict[str, Any] = row.rules[method].body(world)  # type: ignore[misc]
    wrong = []
    for label, body, fine in hostile(good):
        with undone() as written:
            answer = caller.send(method, path, body, api=True)
        # What takes no field leaves the body where it is.
        unread = not good and answer.status_code in range(200, 300)
        if not unread and (answer.status_code not in fine or written):
            wrong.append(f"{label}: {answer.status_code}, writes {written}")
        if len(answer.content) > 20_000:  # type: ignore[attr-defined]
            wrong.append(f"{label}: answered at length")
    assert not wrong, "\n".join(wrong)


def test_many_unknown_fields_of_a_spec_are_told_in_part(world: World) -> None:
    """A search for what was meant takes a while for each: the first ones are told."""
    spec = {**world.spec, **{f"unknown{number}": number for number in range(3000)}}
    lead = next(caller for caller in world.callers if caller.name == "lead")
    answers = {
        path: lead.send("POST", path, {"team": "search", "name": "fresh", "spec": spec}, api=True)
        for path in ("/api/v1/deployments/", *(route for route in HARMLESS if route.startswith("/api/")))
    }
    for path, answer in answers.items():
        told = answer.content.decode()  # type: ignore[attr-defined]
        assert "/spec/unknown1" in told, path
        assert told.count('"unknown_field"') <= 50, path
    assert answers["/api/v1/deployments/"].status_code == 422


@given(st.one_of(st.text(max_size=30), st.integers(), st.floats(), st.booleans(), st.none()))
def test_readers_take_what_is_spelled_in_plain_digits_and_nothing_else(value: object) -> None:
    number, decimal, day, moment = (read(value) for read in (plain.whole, plain.decimal, plain.day, plain.moment))
    if number is not None:
        assert isinstance(value, str)
        assert set(value) <= set("0123456789")
        assert number == int(value)
    if decimal is not None:
        assert not isinstance(value, bool)
        assert decimal.is_finite()
    assert day is None or str(day) == value
    assert moment is None or isinstance(value, str)


@given(st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)), st.integers(0, 10**18 - 1))
def test_what_is_written_is_read_back(at: datetime, number: int) -> None:
    assert plain.moment(at.isoformat().replace("+00:00", "Z")) == at
    assert plain.day(at.date().isoformat()) == at.date()
    assert plain.whole(str(number)) == number
