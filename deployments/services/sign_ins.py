"""What the audit keeps of signing in: who came and went, who was refused, who changed a password, who is new."""

from __future__ import annotations

from deployments.models import User
from deployments.services import events
from deployments.services.transactions import in_transaction


@in_transaction
def signed_in(*, user: User, address: str = "") -> None:
    """Somebody signed in, from this address of the network."""
    events.record(
        kind="signed_in",
        message=f"{user.username} signed in",
        actor=user,
        data={"user": user.pk, "address": address},
    )


@in_transaction
def signed_out(*, user: User, address: str = "") -> None:
    """Somebody signed out."""
    events.record(
        kind="signed_out",
        message=f"{user.username} signed out",
        actor=user,
        data={"user": user.pk, "address": address},
    )


@in_transaction
def refused(*, username: str, address: str = "") -> None:
    """Somebody gave a wrong password. A name that is nobody's is not kept: people type passwords into that field."""
    user = User.objects.filter(username=username).first() if username and "\0" not in username else None
    events.record(
        kind="sign_in_refused",
        message=f"Sign-in as {user.username} refused" if user else "Sign-in refused: nobody has that name",
        level="warning",
        data={"user": user.pk if user else None, "address": address},
    )


@in_transaction
def password_changed(*, user: User, address: str = "") -> None:
    """Somebody changed their own password. Neither is kept, nor anything made from them."""
    events.record(
        kind="password_changed",
        message=f"{user.username} changed the password",
        actor=user,
        level="warning",
        data={"user": user.pk, "address": address},
    )


@in_transaction
def account_made(*, user: User, how: str, address: str = "") -> None:
    """An account was made by who uses it: by single sign-on, or by an invitation."""
    events.record(
        kind="account_made",
        message=f"{user.username} has an account, by {how}",
        actor=user,
        data={
            "user": user.pk,
            "address": address,
            **events.changed({"username": None}, {"username": user.username, "admin": user.is_platform_admin}),
        },
    )


@in_transaction
def second_factor(*, user: User, factor: str, had: bool, has: bool, address: str = "") -> None:
    """Somebody set up a second factor, gave it up, or had its codes made anew."""
    what = "set up" if has and not had else "gave up" if had and not has else "renewed"
    events.record(
        kind="second_factor",
        message=f"{user.username} {what} a second factor: {factor}",
        actor=user,
        level="warning",
        data={"user": user.pk, "address": address, "factor": factor, **events.changed({factor: had}, {factor: has})},
    )


@in_transaction
def linked(*, user: User, provider: str, linked: bool, address: str = "") -> None:
    """Single sign-on was attached to an account that was there, or taken off it."""
    events.record(
        kind="sign_in_linked" if linked else "sign_in_unlinked",
        message=f"Single sign-on “{provider}” {'attached to' if linked else 'taken off'} the account {user.username}",
        actor=user,
        level="warning",
        data={"user": user.pk, "address": address, **events.changed({provider: not linked}, {provider: linked})},
    )


@in_transaction
def code_refused(*, user: User, address: str = "") -> None:
    """Somebody who knew the password gave a wrong code."""
    events.record(
        kind="sign_in_refused",
        message=f"Sign-in as {user.username} refused: wrong code of the second factor",
        level="warning",
        data={"user": user.pk, "address": address},
    )
