"""Every address of the site, found in the code that answers it: nobody has to remember to list one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

from portal import health
from portal.live import app as live

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PLACE = re.compile(r"\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)|<(?:\w+:)?(\w+)>")
ADMIN_MODEL = re.compile(r"(/django-admin/)(?:deployments|[a-z]+)/[a-z]+(/(?:add/|\{object_id\}/.*)?)$")
ADMIN_PAGES = re.compile(r"/django-admin/(?:login|logout|password_change|autocomplete|jsi18n|r|\{)")


def django_routes() -> dict[str, list[str]]:
    """By row of the table: the addresses that it stands for. Models of Django's admin share their rows."""
    found: dict[str, list[str]] = defaultdict(list)
    for route in [*_walk(get_resolver().url_patterns, "/"), *health.PROBES]:
        shared = route if ADMIN_PAGES.match(route) else ADMIN_MODEL.sub(r"\1{model}\2", route)
        found[shared].append(route)
    return dict(found)


def live_routes() -> set[str]:
    """The addresses of the streams: every text and pattern that their application looks at to choose a handler."""
    code = live.LiveApp._route.__code__
    looked_at = [vars(live).get(name) for name in code.co_names]
    texts = [item for item in (*looked_at, *code.co_consts) if isinstance(item, str) and item.startswith("/")]
    patterns = [item.pattern for item in looked_at if isinstance(item, re.Pattern)]
    return {re.sub(r"\(\[0-9\][^)]*\)", "{pk}", route) for route in (*texts, *patterns)}


def _walk(patterns: list[Any], prefix: str) -> Iterator[str]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern).removeprefix("^").removesuffix("$").removesuffix("\\Z")
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern.url_patterns, route)
        else:
            assert isinstance(pattern, URLPattern)
            yield PLACE.sub(lambda found: f"{{{found.group(1) or found.group(2)}}}", route)
