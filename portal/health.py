"""Whether this process lives, whether it can work, and what people see when it cannot."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable

from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.views import defaults
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from psycopg_pool import PoolTimeout

from portal.lib.problems import MEDIA_TYPE, problem

logger = logging.getLogger(__name__)

RETRY_AFTER = 5
DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)
# PostgreSQL's code of a statement that was ended because it took too long (SLIPWAY_DB_STATEMENT_SECONDS).
QUERY_CANCELED = "57014"


@require_safe
@never_cache
def alive(request: HttpRequest) -> HttpResponse:
    """The process answers. Asks nothing of anybody."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
@never_cache
def ready(request: HttpRequest) -> HttpResponse:
    """The process can do its work: the database answers and has the tables that this code wants.

    Others (Redis, Prometheus, the cluster) may be away.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        current = _is_migrated()
    except (DatabaseError, InterfaceError, PoolTimeout) as error:
        logger.warning("not ready: %s", error)
        return JsonResponse({"status": "unavailable", "database": "unreachable"}, status=503)
    if not current:
        logger.warning("not ready: the database waits for manage.py migrate")
        return JsonResponse({"status": "unavailable", "database": "not migrated"}, status=503)
    return JsonResponse({"status": "ok", "database": "ok"})


PROBES: dict[str, Callable[[HttpRequest], HttpResponse]] = {"/healthz": alive, "/readyz": ready}

_migrated = threading.Event()


def _is_migrated() -> bool:
    """Tell whether every migration of this code is applied. Once they are they stay so: then nobody asks again."""
    if not _migrated.is_set():
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return False
        _migrated.set()
    return True


def server_error(request: HttpRequest) -> HttpResponse:
    """The answer when a page raised: 503 while the database is away or too slow, 500 for a mistake of ours."""
    error = sys.exc_info()[1]
    away = isinstance(error, DATABASE_AWAY)
    slow = away and getattr(getattr(error, "__cause__", None), "sqlstate", None) == QUERY_CANCELED
    status = 503 if away else 500
    response = _problem(request, status, slow=slow) if is_api(request.path) else _page(status, slow=slow)
    if away:
        response["Retry-After"] = str(RETRY_AFTER)
    return response


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The answer where there is nothing: a problem in the API, a page elsewhere."""
    return _problem(request, 404) if is_api(request.path) else defaults.page_not_found(request, exception)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The answer to a request that cannot be read, or is larger than anything people type."""
    status = 413 if isinstance(exception, RequestDataTooBig | TooManyFieldsSent) else 400
    return _problem(request, status) if is_api(request.path) else _page(status)


def is_api(path: str) -> bool:
    """True where programs ask: there every error is a problem document."""
    return path.startswith("/api/")


PROBLEMS = {
    400: ("bad_request", "This is not a request that can be read."),
    404: ("not_found", "There is nothing at this address."),
    413: ("too_large", "This is more than is read of one request."),
    500: ("internal", "Something broke in Slipway. The request_id finds it in the log."),
    503: ("unavailable", "Slipway cannot reach its database just now."),
}
TOO_SLOW = "too_slow", "The database took longer over this than Slipway waits. Try again in a moment, or ask for less."


def _problem(request: HttpRequest, status: int, *, slow: bool = False) -> HttpResponse:
    code, detail = TOO_SLOW if slow else PROBLEMS[status]
    body = problem(
        status, code, detail, instance=request.path, request_id=str(request.META.get("SLIPWAY_REQUEST_ID", ""))
    )
    return JsonResponse(body, status=status, content_type=MEDIA_TYPE)


def _page(status: int, *, slow: bool = False) -> HttpResponse:
    # Without a request: no context processor may ask the database that is away.
    return HttpResponse(render_to_string(f"{status}.html", {"slow": slow}), status=status)
