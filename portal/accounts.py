"""How people get accounts: an operator makes them, single sign-on does, or an invitation where settings allow it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest
from django.shortcuts import redirect, render

from deployments.models import User
from deployments.services import groups, invitations, tries
from deployments.services.errors import DomainError

LOGIN = "login"


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth carries no types
    """Local accounts are made by an admin, and where settings say so by people who hold an open invitation."""

    error_messages = DefaultAccountAdapter.error_messages | {
        "username_password_mismatch": "No account has this user name and this password."
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        digest = request.session.get(invitations.INVITED_WITH, "")
        if not settings.SIGNUP_BY_INVITATION or not isinstance(digest, str):
            return False
        invitation = invitations.with_digest(digest)
        return invitation is not None and invitations.standing(invitation) is invitations.Standing.OPEN

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        """Make the account and use its invitation up: one link makes one account, which belongs to the team."""
        digest = request.session.pop(invitations.INVITED_WITH, None)
        try:
            with transaction.atomic():
                made: User = super().save_user(request, user, form, commit)
                if isinstance(digest, str):
                    invitations.accept_by_sign_up(user=made, digest=digest)
        except DomainError:
            raise ImmediateHttpResponse(render(request, "account/signup_closed.html", status=409)) from None
        return made

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Count a try to sign in; a validation error when there were too many, for this account or from there."""
        name = credentials.get("username") or credentials.get("email") or ""
        try:
            address = str(self.get_client_ip(request))
        except (PermissionDenied, ValueError):
            address = ""
        self._tries = tries.limits_of(str(name), address)
        if not tries.take(self._tries):
            raise self.validation_error("too_many_login_attempts")

    def _rollback_login_failed_rl_usage(self) -> None:
        # What allauth calls after a good try.
        tries.give_back(self._tries)


class SingleSignOnAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Whom the issuer of the settings vouches for signs in; the rules about their groups are applied before that.

    Nothing here looks at whether an account is switched on, let alone switches one on: allauth turns those away that
    are off, after this.
    """

    def populate_user(self, request: HttpRequest, sociallogin: Any, data: Any) -> User:
        """Before anything is looked up or stored: OAuth2Error when the issuer does not say clearly who it is."""
        if not _one_person(sociallogin.account.extra_data):
            raise OAuth2Error("the issuer names no subject, or two")
        if not _storable(sociallogin.account.extra_data):
            raise OAuth2Error("a claim holds a character that cannot be stored")
        user: User = super().populate_user(request, sociallogin, data)
        return user

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Apply the groups of somebody who has an account. Signing in is all that an issuer is for.

        Another identity is never attached to an account that is signed in: whoever finds a session open would keep a
        way in, with that identity's groups.
        """
        if sociallogin.state.get("process", LOGIN) != LOGIN:
            messages.error(request, "Sign-ins cannot be linked to an account here. Sign out first, then sign in.")
            raise ImmediateHttpResponse(redirect("account"))
        if sociallogin.is_existing and isinstance(sociallogin.user, User):
            groups.apply(user=sociallogin.user, groups=groups_of(sociallogin.account.extra_data))

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        """Everybody gets an account, or only those whom a rule about groups gives something."""
        if settings.OIDC_SIGNUP != "groups":
            return True
        return bool(groups.matching(groups_of(sociallogin.account.extra_data)))

    def save_user(self, request: HttpRequest, sociallogin: Any, form: Any = None) -> User:
        """Make the account, with what its groups give."""
        # They have an account by their issuer: an invitation is taken on its own page, if it is theirs.
        request.session.pop(invitations.INVITED_WITH, None)
        user: User = super().save_user(request, sociallogin, form)
        groups.apply(user=user, groups=groups_of(sociallogin.account.extra_data))
        return user


def groups_of(data: Mapping[str, Any]) -> list[str]:
    """The groups that an issuer told of: at its address for user data, or else in the token."""
    for part in _parts(data):
        if found := groups.groups_in(part, settings.OIDC_GROUPS_CLAIM):
            return found
    return []


def _one_person(data: Mapping[str, Any]) -> bool:
    """True when all that the issuer sent names the same subject: an empty one would be everybody's account."""
    subjects = [part.get("sub") for part in _parts(data)]
    return bool(subjects) and all(isinstance(one, str) and one and one == subjects[0] for one in subjects)


def _storable(value: Any) -> bool:
    """False where a text holds NUL or a lone surrogate: PostgreSQL keeps neither."""
    if isinstance(value, Mapping):
        return all(_storable(key) and _storable(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(_storable(inner) for inner in value)
    return not isinstance(value, str) or _encodable(value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _parts(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [part for part in (data.get("userinfo"), data.get("id_token")) if isinstance(part, Mapping)]
