"""Whether this process lives, whether it can work, and what people see when it cannot."""

from __future__ import annotations

import logging
import sys
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from psycopg_pool import PoolTimeout

logger = logging.getLogger(__name__)

RETRY_AFTER = 5
DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)


@require_safe
@never_cache
def alive(request: HttpRequest) -> HttpResponse:
    """The process answers. Asks nothing of anybody."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
@never_cache
def ready(request: HttpRequest) -> HttpResponse:
    """The process can do its work: the database answers. Others (Redis, Prometheus, the cluster) may be away."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError, PoolTimeout) as error:
        logger.warning("not ready: %s", error)
        return JsonResponse({"status": "unavailable", "database": "unreachable"}, status=503)
    return JsonResponse({"status": "ok", "database": "ok"})


def server_error(request: HttpRequest) -> HttpResponse:
    """The answer when a page raised: 503 while the database is away, 500 for a mistake of ours."""
    away = isinstance(sys.exc_info()[1], DATABASE_AWAY)
    status = 503 if away else 500
    response = _problem(status) if request.path.startswith("/api/") else _page(status)
    if away:
        response["Retry-After"] = str(RETRY_AFTER)
    return response


def _problem(status: int) -> HttpResponse:
    title, code = ("Database not reachable", "unavailable") if status == 503 else ("Internal error", "internal")
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "code": code}
    return JsonResponse(body, status=status, content_type="application/problem+json")


def _page(status: int) -> HttpResponse:
    # Without a request: no context processor may ask the database that is away.
    return HttpResponse(render_to_string(f"{status}.html"), status=status)
