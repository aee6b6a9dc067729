"""Whether this process lives, whether it can work, and what people see when it cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from psycopg_pool import PoolTimeout

logger = logging.getLogger(__name__)

RETRY_AFTER = 5
GONE = (OperationalError, InterfaceError, PoolTimeout)


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
    """The page for a mistake of ours; JSON for programs."""
    if request.path.startswith("/api/"):
        problem = {"type": "about:blank", "title": "Internal error", "status": 500, "code": "internal"}
        return JsonResponse(problem, status=500, content_type="application/problem+json")
    return render(request, "500.html", status=500, context={"site": None})


class DatabaseAwayMiddleware:
    """A database that is away is not a mistake of ours: answer 503 with a page that needs no query."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Turn a lost database into a 503; everything else stays what it is."""
        return unavailable(request) if isinstance(exception, GONE) else None


def unavailable(request: HttpRequest) -> HttpResponse:
    """503 with a time to come back."""
    if request.path.startswith("/api/"):
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": "Database not reachable",
            "status": 503,
            "code": "unavailable",
        }
        response: HttpResponse = JsonResponse(body, status=503, content_type="application/problem+json")
    else:
        response = HttpResponse(_page(), status=503)
    response["Retry-After"] = str(RETRY_AFTER)
    return response


def _page() -> str:
    from django.template.loader import render_to_string

    # Without a request: no context processor may ask the database that is away.
    return render_to_string("503.html")
