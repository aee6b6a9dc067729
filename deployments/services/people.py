"""Accounts that an operator makes at the command line: people without single sign-on, and the first admin."""

from __future__ import annotations

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

from deployments.models import User
from deployments.services import events
from deployments.services.errors import InvalidError
from deployments.services.transactions import in_transaction


@in_transaction
def make_account(*, username: str, password: str | None, admin: bool = False) -> User:
    """Make an account, or give one a new password; `admin` makes it a platform admin. InvalidError for bad values."""
    user = User.objects.select_for_update().filter(username=username).first()
    kind = "account_made" if user is None else "account_changed"
    user = user or User(username=username)
    before = {"admin": user.is_platform_admin} if user.pk else {}
    user.is_platform_admin = user.is_platform_admin or admin
    user.is_staff = user.is_staff or admin
    try:
        if password is not None:
            validate_password(password, user)
            user.set_password(password)
        elif user.pk is None:
            user.set_unusable_password()
        user.full_clean()
    except ValidationError as error:
        raise InvalidError(" ".join(error.messages), field="password" if password else "username") from None
    user.save()
    what = "is a platform admin" if user.is_platform_admin else "has an account"
    changed = events.changed(before, {"admin": user.is_platform_admin})
    if password is not None:
        changed["after"]["password"] = "set anew"  # noqa: S105 - says that there is one
    events.record(kind=kind, message=f"{username} {what}, by the operator", data={"user": user.pk, **changed})
    return user
