"""Bodies through their shapes, which are closed."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request

from deployments.api.base import body_of
from deployments.services.errors import InvalidError


def validated(kind: type[Any], request: Request) -> dict[str, Any]:
    """The body through a serializer, which is closed: a name that it does not know is refused."""
    body = body_of(request)
    serializer = kind(data=body)
    for name in body:
        if name not in serializer.fields:
            shown = name[:60]
            raise InvalidError(
                f"Known here: {', '.join(serializer.fields)}.",
                pointer=f"/{shown}",
                field=shown,
                code="unknown_field",
            )
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)
