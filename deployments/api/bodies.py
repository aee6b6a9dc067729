"""Bodies through their shapes, which are closed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rest_framework import exceptions, serializers
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
    _check_names(serializer, serializer.initial_data, {_documented(kind, name): name for name in body})
    try:
        serializer.is_valid(raise_exception=True)
    except exceptions.ValidationError as error:
        if isinstance(error.detail, Mapping):
            raise exceptions.ValidationError(
                {sent.get(name, name): said for name, said in error.detail.items()}
            ) from None
        raise
    return dict(serializer.validated_data)


def _check_names(serializer: Any, values: Mapping[str, Any], sent: Mapping[str, str], place: str = "") -> None:
    """InvalidError for a name that a body does not know, in the objects of its lists too."""
    for name, value in values.items():
        field, shown = serializer.fields.get(name), str(sent.get(name, name))[:60]
        if field is None:
            words = f"Known here: {', '.join(serializer.fields)}."
            raise InvalidError(words, pointer=f"{place}/{shown}", field=shown, code="unknown_field")
        inner = getattr(field, "child", None)
        if isinstance(inner, serializers.Serializer) and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    _check_names(inner, item, {}, f"{place}/{shown}/{index}")


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
