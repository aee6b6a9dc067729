"""Every form that makes something carries a nonce, and sent again makes no second one: all forms, found in the code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html import unescape

import pytest
from django.apps import apps
from django.urls import Resolver404, resolve

from .routes import django_routes
from .table import TABLE
from .world import Caller, World, undone

pytestmark = pytest.mark.django_db

FORM = re.compile(r"<form\b([^>]*)>(.*?)</form>", re.S)
TABS = re.compile(r'<nav class="tabs"[^>]*>(.*?)</nav>', re.S)
LINK = re.compile(r'href="([^"]*)"')
ACTION = re.compile(r'action="([^"]*)"')
# What is written of a submit, and not made by it.
ABOUT = {"django_session", "deployments_idempotencykey", "deployments_event", "deployments_notification"}
PAGES = sorted(route for route, row in TABLE.items() if row.kind == "page" and route in django_routes())
WRITING = [route for route in PAGES if (rule := TABLE[route].rules.get("POST")) and rule.body and rule.passes]


def forms_of(caller: Caller, path: str) -> Iterator[tuple[str, str]]:
    """Attributes and content of each form of a page, of all its tabs, that posts."""
    first = caller.send("GET", path, api=False).content.decode(errors="replace")
    tabs = {unescape(link) for nav in TABS.findall(first) for link in LINK.findall(nav)}
    others = (tab for tab in sorted(tabs) if tab.startswith((f"{path}?", "?")))
    pages = (caller.send("GET", f"{path}?{tab.partition('?')[2]}", api=False).content.decode() for tab in others)
    for html in (first, *pages):
        yield from (form for form in FORM.findall(html) if 'method="post"' in form[0])


def counts() -> Counter[str]:
    tables = {model._meta.db_table: model for model in apps.get_models(include_auto_created=True)}
    return Counter({name: model._base_manager.count() for name, model in tables.items() if name not in ABOUT})


def by_session(world: World, names: frozenset[str]) -> Caller:
    return next(caller for caller in world.callers if caller.name in names and not caller.headers)


@pytest.mark.parametrize("nonce", ["n" * 32, ""], ids=["nonce", "no nonce"])
def test_a_form_sent_twice_makes_what_it_makes_once(world: World, nonce: str) -> None:
    """Each address that a page posts to, with a body that gets something done."""
    makes, twice = set(), {}
    for route in WRITING:
        rule = TABLE[route].rules["POST"]
        assert rule.body is not None
        caller, path = by_session(world, rule.passes), world.url(route, TABLE[route].of)
        with undone():
            before = counts()
            caller.send("POST", path, rule.body(world) | {"once": nonce}, api=False)
            once = counts()
            caller.send("POST", path, rule.body(world) | {"once": nonce}, api=False)
            if more := counts() - once:
                twice[route] = more
            if once - before:
                makes.add(route)
    assert not twice
    assert {"/quotas/grant/", "/keys/new/", "/keys/{pk}/rotate/", "/account/", "/flavors/new/"} <= makes
    assert {"/people/teams/{slug}/invitations/", "/people/", "/quotas/ask/", "/credentials/new/"} <= makes


def test_every_form_that_leads_to_such_an_address_carries_a_nonce(world: World) -> None:
    without, found = [], set()
    for route in PAGES:
        if "GET" not in TABLE[route].rules:
            continue
        path = world.url(route, TABLE[route].of)
        for name in ("member", "lead", "admin"):
            for attributes, inside in forms_of(by_session(world, frozenset({name})), path):
                action = (ACTION.search(attributes) or [path, path])[1].partition("?")[0] or path
                try:
                    view = resolve(action).func
                except Resolver404:
                    continue
                if getattr(view, "done_once", False):
                    found.add(resolve(action).url_name)
                    if 'name="once"' not in inside:
                        without.append((route, action))
    assert not without
    assert found == {
        "account",
        "catalogue-add",
        "catalogue-edit",
        "credentials-create",
        "credentials-rotate",
        "deployment-create",
        "flavor-create",
        "keys-create",
        "keys-rotate",
        "people",
        "people-groups",
        "people-invite",
        "quotas-ask",
        "quotas-grant",
    }
