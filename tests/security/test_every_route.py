"""Every address, every method, every principal: nobody passes whom the table does not name, who is refused changes
nothing, and what somebody changes stands in the audit under their name."""

from __future__ import annotations

import re

import pytest
from django.http import HttpResponseBase

from .routes import METHODS, django_routes
from .rules import SAFE, Row, Rule
from .table import HARMLESS, TABLE, UNHEARD
from .world import Caller, World, undone

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("framed_once")]

ROUTES = django_routes()
SIGN_IN = ("/accounts/login/", "/django-admin/login/")
DONE = range(200, 400)
FEW = {"anonymous", "lead", "admin", "staff"}
FOR_THE_API = {
    "token-invoke",
    "token-elsewhere",
    "token-admin-elsewhere",
    "token-expired",
    "token-revoked",
    "token-disabled",
}
# Somebody passed, and what was sent is wrong or late.
BODY = {400, 409, 412, 415, 422, 428, 429}


def test_the_table_names_every_route_and_no_other() -> None:
    assert len(ROUTES) > 80
    missing = sorted(ROUTES.keys() - TABLE.keys())
    gone = sorted(TABLE.keys() - ROUTES.keys())
    assert not missing, f"routes without a row in tests/security/table.py: {missing}"
    assert not gone, f"rows of routes that are gone: {gone}"


@pytest.mark.parametrize("route", sorted(ROUTES.keys() & TABLE.keys()))
def test_a_route_is_for_those_whom_the_table_names(world: World, route: str) -> None:
    row = TABLE[route]
    wrong = []
    for number, address in enumerate(ROUTES[route]):
        # The views of the models of Django's admin are the same ones: a few questions show what registers other.
        for method in METHODS if number == 0 else ("GET", "POST"):
            done = False
            for caller in _callers(world, row, few=number > 0):
                problem, did = _ask(world, row, address, method, caller)
                done = done or did
                if problem:
                    wrong.append(f"{method} {address} by {caller.name}: {problem}")
            rule = row.rules.get(method)
            if rule and rule.body and not rule.by_others and address not in HARMLESS and not done:
                wrong.append(f"{method} {address}: nobody gets anything done with the row's body")
    assert not wrong, "\n".join(wrong)


def _callers(world: World, row: Row, *, few: bool) -> list[Caller]:
    """All eighteen in the API; twelve where no token counts."""
    if few:
        return [caller for caller in world.callers if caller.name in FEW]
    return [caller for caller in world.callers if row.kind == "api" or caller.name not in FOR_THE_API]


def _ask(world: World, row: Row, address: str, method: str, caller: Caller) -> tuple[str, bool]:
    """What is wrong with the answer to one caller, and whether it did something."""
    rule = row.rule(method)
    # Who signs in is somebody else from then on: with a good body everybody may, whoever they were.
    signs_in = row.kind == "open" and rule is not None and rule.by_others
    body = rule.body(world) if rule and rule.body and not signs_in else {}
    is_api = row.kind == "api"
    with undone() as written:
        answer = caller.send(method, world.url(address, row.of), body, api=is_api)
        silent = written and answer.status_code in DONE and not world.heard_of(caller)
    if answer.status_code >= 500:
        return f"answers {answer.status_code}", False
    standing = _standing(row, rule, method, caller)
    problem = _problem(standing, answer, row, method)
    if standing != "passes" or method in SAFE or row.kind == "admin" or caller.out or (caller.headers and not is_api):
        problem = problem or (f"writes {written}" if written else "")
    elif silent and address not in UNHEARD:
        problem = problem or f"writes {written}, and the audit has no line by them"
    if not problem and _hears_nothing(standing, caller) and ("{pk}" in address or "{slug}" in address):
        with undone():
            other = caller.send(method, world.url(address, row.of, foreign=True), body, api=is_api)
        if _told(other) != _told(answer):
            (status, words), (other_status, others) = _told(answer), _told(other)
            apart = sorted(set(words.splitlines()) ^ set(others.splitlines()))[:4]
            problem = f"is {status}, of what is not there {other_status}: {apart}"
    return problem, bool(written) and answer.status_code in DONE


def _hears_nothing(standing: str, caller: Caller) -> bool:
    """True for whom what is there and what is not must look the same."""
    return standing == "hidden" or (standing == "told" and caller.person == "stranger")


def _standing(row: Row, rule: Rule | None, method: str, caller: Caller) -> str:
    """What the table makes of a caller: passes, told, unknown, hidden, scope, out, or a status of its own."""
    by_session = not caller.headers
    if row.kind == "closed":
        return "hidden"
    if row.kind == "open":
        return "passes" if rule or method == "OPTIONS" else "refused"
    if caller.out or (row.kind != "api" and not by_session):
        return "out"
    if rule is not None and caller.name in rule.but:
        return str(rule.but[caller.name])
    if row.kind == "admin":
        if caller.name not in {"admin", "staff"}:
            return "out"
        return "passes" if caller.name in (rule.passes if rule else ()) else "refused"
    needed = (rule.scope if rule else "") or ("read" if method in SAFE else "write")
    if not by_session and needed not in caller.scopes:
        return "scope" if rule else "lacking"
    if method == "OPTIONS" and rule is None:
        return "options" if row.kind == "api" else "refused"
    if rule is None:
        return "refused"
    person = "stranger" if caller.elsewhere else caller.person
    for standing in ("passes", "told", "unknown", "idle"):
        if person in getattr(rule, standing):
            return standing
    return "hidden"


def _problem(standing: str, answer: HttpResponseBase, row: Row, method: str) -> str:
    """Empty where the status is what the standing asks for."""
    status, api = answer.status_code, row.kind == "api"
    to_sign_in = status == 302 and answer["Location"].startswith(SIGN_IN)
    if standing in {"passes", "idle"}:
        fine = status in DONE or status in BODY
        fine = fine and (not to_sign_in or row.kind == "open")
        # Views of Django and allauth know their methods themselves.
        fine = fine or (status == 405 and (method == "HEAD" or row.kind == "admin"))
        fine = fine or (row.kind == "open" and status in {403, 404, 405, 410})
    elif standing == "out":
        fine = status == 401 if api else to_sign_in or status == 405
    elif standing == "told":
        fine = status == 403 if api else status in DONE or status in {403, 409, 412, 422}
    elif standing == "lacking":
        fine = status in {403, 405} or (status == 200 and method == "OPTIONS")
    elif standing == "refused":
        fine = (
            to_sign_in
            or status in {404, 405}
            or (status == 200 and method == "OPTIONS")
            or (row.kind == "admin" and status in {302, 403})
        )
    else:
        fine = status == {"scope": 403, "hidden": 404, "unknown": 422, "options": 200}.get(standing) or (
            standing.isdigit() and (status == int(standing) or (status == 405 and row.kind == "admin"))
        )
    where = f" to {answer['Location']}" if status in {301, 302} else ""
    return "" if fine else f"should be {standing}, is {status}{where}"


def _told(answer: HttpResponseBase) -> tuple[int, str]:
    """An answer without what differs from request to request."""
    # Request ids, words against forgery, moments, and the address itself.
    words = re.sub(r"[A-Za-z0-9]{32,}|/[\w/.-]*/|\d+ (?:s|min) ago|\d{9,}", "", answer.content.decode())
    return answer.status_code, words
