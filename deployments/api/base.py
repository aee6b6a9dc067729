"""What all views of the API share: the principal, bodies that are objects, query parameters, keyset pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from django.db.models import QuerySet
from rest_framework.exceptions import APIException
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from deployments.api.auth import HasScope
from deployments.api.rendering import OrjsonParser
from deployments.models import Principal
from deployments.services.errors import InvalidError, StaleError
from deployments.services.principals import principal_of

DEFAULT_LIMIT = 50
MOST = 200
ID = "[0-9]{1,18}"
WORD = re.compile(r"[A-Za-z0-9._-]{1,60}")


class PreconditionRequiredError(APIException):
    """The caller has to say which version it looked at."""

    status_code = 428
    default_code = "precondition_required"


class ApiViewSet(ViewSet):
    """Base of every view: authenticated, scoped, JSON only."""

    permission_classes = [IsAuthenticated, HasScope]
    parser_classes = [OrjsonParser]
    lookup_value_regex = ID
    # Scope by action, where it is not read for safe methods and write for others.
    scopes: ClassVar[dict[str, str]] = {}

    @property
    def principal(self) -> Principal:
        """Who asks."""
        return principal_of(self.request)


def body_of(request: Request) -> dict[str, Any]:
    """The body, which must be a JSON object."""
    if not isinstance(request.data, Mapping):
        raise InvalidError("The body must be a JSON object.", code="not_an_object")
    return dict(request.data)


def word_of(request: Request, name: str) -> str | None:
    """A query parameter that is a plain word; None where absent."""
    value = request.query_params.get(name)
    if value is None or value == "":
        return None
    if not WORD.fullmatch(value):
        raise InvalidError(f"“{name}” must be a plain word.", field=name, pointer=f"?{name}")
    return value


def number_of(request: Request, name: str, *, most: int = 10**18) -> int | None:
    """A query parameter that is a whole number from 1; None where absent."""
    value = request.query_params.get(name)
    if value is None or value == "":
        return None
    if not re.fullmatch(ID, value) or not 1 <= int(value) <= most:
        raise InvalidError(f"“{name}” must be a whole number from 1 to {most:,}.", field=name, pointer=f"?{name}")
    return int(value)


def keyset(
    request: Request,
    rows: QuerySet[Any, Any],
    shape: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Response:
    """One page of `rows.values(…)`, newest first: `limit` rows after the id `after`, and where to go on."""
    limit = number_of(request, "limit", most=MOST) or DEFAULT_LIMIT
    after = number_of(request, "after")
    if after is not None:
        rows = rows.filter(pk__lt=after)
    found = list(rows.order_by("-pk")[: limit + 1])
    more = len(found) > limit
    found = found[:limit]
    following = None
    if more:
        params = request.query_params.copy()
        params["after"] = str(found[-1]["id"])
        following = f"{request.build_absolute_uri(request.path)}?{params.urlencode()}"
    results = [shape(row) for row in found] if shape else found
    return Response({"results": results, "next": following})


def if_match(request: Request) -> str | None:
    """The one entity tag of If-Match without its quotes; None where the header is absent."""
    header = request.META.get("HTTP_IF_MATCH")
    if header is None:
        return None
    tag = str(header).strip().removeprefix("W/")
    if len(tag) < 2 or not (tag.startswith('"') and tag.endswith('"')) or "," in tag:
        raise StaleError("If-Match must hold exactly one entity tag, as the answer to GET gave it.")
    return tag[1:-1]


def etag(value: object) -> dict[str, str]:
    """The header that a later If-Match repeats."""
    return {"ETag": f'"{value}"'}
