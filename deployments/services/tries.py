"""Limits of failed sign-ins, per account and per address: counted in the database, exactly, for all processes together.

A try is counted before the password is looked at, so that many at once are no way around it; a good one is given back.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection
from django.db.models import F
from django.utils import timezone
from django.utils.crypto import salted_hmac

from deployments.models import SignInTries, User

KEPT = timedelta(days=1)
# Kept counts stay below what their column holds.
TAKE = """
    INSERT INTO deployments_signintries AS t (key, began_at, tries) VALUES (%(key)s, clock_timestamp(), 1)
    ON CONFLICT (key) DO UPDATE SET (tries, began_at) = (
        SELECT
            CASE WHEN over THEN 1 ELSE LEAST(t.tries, 1000000) + 1 END,
            CASE WHEN over THEN clock_timestamp() ELSE t.began_at END
        FROM (SELECT t.began_at + make_interval(secs => %(seconds)s) <= clock_timestamp() AS over) AS window_is
    )
    RETURNING tries
"""


@dataclass(frozen=True)
class Limit:
    """So many failures under a key within the window that the first of them begins."""

    key: str
    most: int
    window: timedelta


def limits_of(username: str, address: str) -> tuple[Limit, ...]:
    """What counts for a try: its account, however its name is spelled, and where it comes from. Never the host."""
    found = [Limit(_key("account", _account(username)), 5, timedelta(minutes=5))]
    if address:
        found.append(Limit(_key("address", address), 10, timedelta(minutes=1)))
    return tuple(found)


def take(limits: Iterable[Limit]) -> bool:
    """Count a try under each; False when it is one too many under any."""
    good = True
    for limit in sorted(limits, key=lambda one: one.key):  # In one order: two tries never wait for each other.
        with connection.cursor() as cursor:
            cursor.execute(TAKE, {"key": limit.key, "seconds": limit.window.total_seconds()})
            row = cursor.fetchone()
        good = good and row is not None and row[0] <= limit.most
    return good


def give_back(limits: Iterable[Limit]) -> None:
    """A try was good: it counts for nothing. Those before it stay, or one's own sign-ins would hide a stranger's."""
    SignInTries.objects.filter(key__in=[limit.key for limit in limits], tries__gt=0).update(tries=F("tries") - 1)


def forget_old() -> int:
    """Remove counts whose windows are long over; the sweep calls this. Returns how many."""
    return SignInTries.objects.filter(began_at__lt=timezone.now() - KEPT).delete()[0]


def _account(username: str) -> str:
    """The account that a name means to the database, or the name where it means none."""
    name = username.replace("\0", "")
    user = User.objects.filter(username__iexact=name).order_by("pk").values_list("pk", flat=True).first()
    return f"#{user}" if user is not None else unicodedata.normalize("NFKC", name).upper().casefold()


def _key(kind: str, value: str) -> str:
    # A digest: people type passwords into the field for names.
    return salted_hmac(f"slipway sign-in tries {kind}", value, algorithm="sha256").hexdigest()
