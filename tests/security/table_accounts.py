"""The table, continued: signing in, accounts, probes and Django's admin."""

from __future__ import annotations

from .bodies import known, renewed, told_by_app
from .rules import CLOSED, EVERYBODY, Row, admin, may, opened, page

ANY = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ACCOUNTS: dict[str, Row] = {
    "/healthz": opened(GET=EVERYBODY),
    "/readyz": opened(GET=EVERYBODY),
    "/accounts/": opened(**dict.fromkeys(ANY, EVERYBODY)),
    "/accounts/login/": opened(**dict.fromkeys(ANY, EVERYBODY) | {"POST": may(EVERYBODY, by_others=True, body=known)}),
    # The link is the right to join; without it, or not signed in, nothing happens.
    "/join/{word}/": opened(GET=EVERYBODY, POST=may(EVERYBODY, body=lambda world: {})),
    "/accounts/logout/": opened(GET=EVERYBODY, POST=may(EVERYBODY, body=lambda world: {})),
    "/accounts/inactive/": opened(GET=EVERYBODY),
    # Nobody of the walk has a password or a second factor: somebody else does what needs one (`world.others`).
    "/accounts/password/change/": page(
        **dict.fromkeys(ANY, EVERYBODY) | {"POST": may(EVERYBODY, by_others=True, body=renewed)}
    ),
    "/accounts/signup/": CLOSED,
    # Nobody here has a password.
    "/accounts/reauthenticate/": page(**dict.fromkeys(ANY, may("", told=EVERYBODY))),
    "/accounts/2fa/": page(GET=EVERYBODY),
    # In the middle of a sign-in alone: all others are sent to its beginning.
    "/accounts/2fa/authenticate/": opened(**dict.fromkeys(ANY, EVERYBODY)),
    # Nobody here has a second factor: there is nothing to ask for, to show or to switch off.
    "/accounts/2fa/reauthenticate/": page(**dict.fromkeys(ANY, may("", told=EVERYBODY))),
    "/accounts/2fa/recovery-codes/": page(GET=EVERYBODY, OPTIONS=EVERYBODY),
    "/accounts/2fa/recovery-codes/download/": page(**dict.fromkeys(ANY, EVERYBODY)),
    "/accounts/2fa/recovery-codes/generate/": page(
        GET=EVERYBODY, POST=may(EVERYBODY, by_others=True, body=lambda world: {}), PUT=EVERYBODY
    ),
    "/accounts/2fa/totp/activate/": page(
        GET=EVERYBODY, POST=may(EVERYBODY, by_others=True, body=told_by_app), PUT=EVERYBODY
    ),
    "/accounts/2fa/totp/deactivate/": page(
        **dict.fromkeys(ANY, EVERYBODY) | {"POST": may(EVERYBODY, by_others=True, body=lambda world: {})}
    ),
    "/accounts/email/": CLOSED,
    "/accounts/confirm-email/": CLOSED,
    "/accounts/confirm-email/{key}/": CLOSED,
    "/accounts/password/set/": CLOSED,
    "/accounts/password/reset/": CLOSED,
    "/accounts/password/reset/done/": CLOSED,
    "/accounts/password/reset/key/done/": CLOSED,
    "/accounts/password/reset/key/{uidb36}-{key}/": CLOSED,
    "/accounts/login/code/confirm/": CLOSED,
    # Single sign-on: open only where an issuer is set (tests/portal/test_accounts.py).
    "/accounts/3rdparty/": CLOSED,
    "/accounts/3rdparty/signup/": CLOSED,
    "/accounts/3rdparty/login/cancelled/": CLOSED,
    "/accounts/3rdparty/login/error/": CLOSED,
    "/accounts/social/signup/": CLOSED,
    "/accounts/social/connections/": CLOSED,
    "/accounts/social/login/cancelled/": CLOSED,
    "/accounts/social/login/error/": CLOSED,
    "/accounts/oidc/{provider_id}/login/": CLOSED,
    "/accounts/oidc/{provider_id}/login/callback/": CLOSED,
}

ADMIN: dict[str, Row] = {
    "/django-admin/": admin(GET=may("admin", staff=200)),
    "/django-admin/login/": opened(**dict.fromkeys(ANY, EVERYBODY)),
    "/django-admin/logout/": opened(**dict.fromkeys(ANY, EVERYBODY)),
    "/django-admin/password_change/": admin(GET=may("admin", staff=200)),
    "/django-admin/password_change/done/": admin(GET=may("admin", staff=200)),
    "/django-admin/autocomplete/": admin(GET=may("")),
    "/django-admin/jsi18n/": admin(GET=may("admin", staff=200)),
    "/django-admin/r/{content_type_id}/{object_id}/": admin(GET=may("")),
    "/django-admin/{app_label}/": admin(GET=may("admin")),
    "/django-admin/{url}": admin(GET=may("")),
    "/django-admin/{model}/": admin(GET=may("admin")),
    "/django-admin/{model}/add/": admin(GET=may("")),
    "/django-admin/{model}/{object_id}/": admin(GET=may("admin")),
    "/django-admin/{model}/{object_id}/change/": admin(GET=may("admin"), POST=may("")),
    "/django-admin/{model}/{object_id}/history/": admin(GET=may("admin")),
    "/django-admin/{model}/{object_id}/delete/": admin(GET=may("")),
}
