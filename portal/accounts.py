"""How people get accounts: an operator makes them, or single sign-on does. There is no open sign-up."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.http import HttpRequest


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth carries no types
    """Local accounts are made by an admin alone."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False


class SingleSignOnAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Whom the issuer of the settings vouches for gets an account: without a team it sees nothing yet."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        return True
