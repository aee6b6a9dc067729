"""What all views of the API share: the principal, bodies that are objects, query parameters, keyset pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from django.db.models import QuerySet
from rest_framework.exceptions import APIException
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from deployments.api import idempotency
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


PAGING = ("limit", "after")
# What a parameter takes that asks yes or no.
YES_OR_NO = ("true", "false")


class ApiViewSet(ViewSet):
    """Base of every view: authenticated, scoped, JSON only, and strict about query parameters."""

    permission_classes = [IsAuthenticated, HasScope]
    parser_classes = [OrjsonParser]
    lookup_value_regex = ID
    # Scope by action, where it is not read for safe methods and write for others.
    scopes: ClassVar[dict[str, str]] = {}
    # Query parameters by action; others are refused, or a typo in a filter would answer with everything.
    parameters: ClassVar[dict[str, tuple[str, ...]]] = {}
    # Actions whose answer holds something that no other answer ever shows.
    shown_once: ClassVar[frozenset[str]] = frozenset()
    # Actions by POST that store nothing: they are simply done again.
    harmless: ClassVar[frozenset[str]] = frozenset()
    # Actions by POST that are refused when the same person sent the same within a minute, without an Idempotency-Key.
    not_twice: ClassVar[frozenset[str]] = frozenset()
    # True while an answer is made again: whoever wrote it may read it, even with a token that only writes.
    rereading = False

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """After authentication and permission: refuse parameters that this action does not take."""
        super().initial(request, *args, **kwargs)
        check_parameters(request, self.parameters.get(self.action or "", ()))
        if request.method == "POST" and self.action:
            # Where the framework looks for the handler next; without one it answers 405.
            self.post: Callable[..., Response] = idempotency.once(self, getattr(self, "post"))  # noqa: B009

    @property
    def principal(self) -> Principal:
        """Who asks."""
        who = principal_of(self.request)
        return replace(who, scopes=who.scopes | {"read"}) if self.rereading else who

    def location_of(self, answer: Response) -> str:
        """The address whose GET answers what this POST answered: of the row that it made or changed. Empty for none."""
        name = "id" if self.lookup_value_regex == ID else "slug"
        if not hasattr(self, "retrieve") or not isinstance(answer.data, Mapping) or name not in answer.data:
            return ""
        found, asked = str(answer.data[name]), self.kwargs.get("pk")
        if asked is None:
            return f"{self.request.path}{found}/"
        return self.request.path.rstrip("/").rpartition("/")[0] + "/" if asked == found else ""

    def rebuilt(self, location: str) -> Response:
        """The answer to a POST that was done before, made anew."""
        return idempotency.answer_at(self, location)


def body_of(request: Request) -> dict[str, Any]:
    """The body, which must be a JSON object."""
    if not isinstance(request.data, Mapping):
        raise InvalidError("The body must be a JSON object.", code="not_an_object")
    return dict(request.data)


def check_parameters(request: Request, known: Collection[str], *, many: Collection[str] = ()) -> None:
    """Raise InvalidError for a query parameter that is not known here, or given twice unless it is one of `many`."""
    for name in request.query_params:
        shown = name[:60]
        if name not in known:
            words = f"Known here: {', '.join(known)}." if known else "None are known here."
            raise _wrong(shown, f"“{shown}” is not a parameter. {words}", code="unknown_parameter")
        if name not in many and len(request.query_params.getlist(name)) > 1:
            raise _wrong(shown, f"“{shown}” is given twice.")


def word_of(request: Request, name: str) -> str | None:
    """A query parameter that is a plain word; None where absent."""
    value = request.query_params.get(name)
    if value is not None and not WORD.fullmatch(value):
        raise _wrong(name, f"“{name}” must be a plain word.")
    return value


def choices_of(request: Request, name: str, choices: Collection[str]) -> list[str]:
    """The values of a query parameter, each one of `choices`; empty where absent."""
    values = request.query_params.getlist(name)
    for value in values:
        if value not in choices:
            raise _wrong(name, f"“{name}” takes one of: {', '.join(choices)}.")
    return values


def number_of(request: Request, name: str, *, most: int = 10**18) -> int | None:
    """A query parameter that is a whole number from 1; None where absent."""
    value = request.query_params.get(name)
    if value is None:
        return None
    if not re.fullmatch(ID, value) or not 1 <= int(value) <= most:
        raise _wrong(name, f"“{name}” must be a whole number from 1 to {most:,}.")
    return int(value)


def _wrong(name: str, words: str, *, code: str = "") -> InvalidError:
    return InvalidError(words, field=name, pointer=f"?{name}", code=code)


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
        raise StaleError("If-Match must hold exactly one entity tag in quotes, as the answer to GET gave it (ETag).")
    return tag[1:-1]


def etag(value: object) -> dict[str, str]:
    """The header that a later If-Match repeats."""
    return {"ETag": f'"{value}"'}
