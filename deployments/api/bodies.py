"""Bodies through their shapes, which are closed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rest_framework import exceptions
from rest_framework.request import Request

from deployments.api.base import body_of
from deployments.services.errors import DomainError, InvalidError


def validated(kind: type[Any], request: Request) -> dict[str, Any]:
    """The body through a serializer, which is closed: a name that it does not know is refused.

    A serializer may have `also`, other names of its fields: they are read too, and what is wrong is said of them.
    """
    body = body_of(request)
    sent = _sent(kind, body)
    for name, other in sent.items():
        if name in body:
            words = f"This is “{name}” again: send that alone."
            raise InvalidError(words, pointer=f"/{other}", field=other, code="twice")
    serializer = kind(data={_documented(kind, name): value for name, value in body.items()})
    for name in body:
        if _documented(kind, name) not in serializer.fields:
            shown = name[:60]
            raise InvalidError(
                f"Known here: {', '.join(serializer.fields)}.",
                pointer=f"/{shown}",
                field=shown,
                code="unknown_field",
            )
    try:
        serializer.is_valid(raise_exception=True)
    except exceptions.ValidationError as error:
        if isinstance(error.detail, Mapping):
            raise exceptions.ValidationError(
                {sent.get(name, name): said for name, said in error.detail.items()}
            ) from None
        raise
    return dict(serializer.validated_data)


@contextmanager
def said_as_sent(kind: type[Any], request: Request) -> Iterator[None]:
    """What a service says of a field is said of the name under which the body has it."""
    try:
        yield
    except DomainError as error:
        sent = _sent(kind, body_of(request))
        for one in (error, *error.also):
            other = sent.get(one.field)
            if other is not None:
                one.field, one.pointer = other, f"/{other}"
        raise


def _sent(kind: type[Any], body: Mapping[str, Any]) -> dict[str, str]:
    """By documented name the other name under which the body has it."""
    return {name: other for other, name in getattr(kind, "also", {}).items() if other in body}


def _documented(kind: type[Any], name: str) -> str:
    return str(getattr(kind, "also", {}).get(name, name))
