"""How people get accounts: an operator makes them, or single sign-on does. There is no open sign-up."""

from __future__ import annotations

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth carries no types
    """Local accounts are made by an admin alone."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False
