"""API tokens as credentials of a request, and the scope that each action needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from deployments.models import ApiToken, User
from deployments.services import tokens
from deployments.services.principals import principal_of

if TYPE_CHECKING:
    # At run time this module is one of the framework's settings, read while its views are still being imported.
    from rest_framework.views import APIView


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer slp_…`. A token that is not good is refused, never taken for an anonymous request."""

    keyword = "bearer"

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        """The token's user and the token; None without such a header."""
        scheme, _, text = str(request.META.get("HTTP_AUTHORIZATION", "")).partition(" ")
        if scheme.lower() != self.keyword:
            return None
        token = tokens.authenticate(text.strip())
        if token is None:
            raise AuthenticationFailed("This token is unknown, expired or revoked.", code="invalid_token")
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        """What a 401 asks for."""
        return 'Bearer realm="slipway"'


class HasScope(BasePermission):
    """The token must carry the scope of the action: `scopes` of the view, else read or write by method."""

    message = "This token lacks the scope for it."

    def has_permission(self, request: Request, view: APIView) -> bool:
        """True when the principal's scopes cover the action."""
        default = "read" if request.method in SAFE_METHODS else "write"
        scopes: dict[str, Any] = getattr(view, "scopes", {})
        return principal_of(request).may(scopes.get(getattr(view, "action", None) or "", default))
