"""Here, too, nobody asks for more than was granted. Runs after every other scenario of this cluster."""

from __future__ import annotations

from tests.scenarios.grounds import Ground
from tests.scenarios.test_privileges import ACCOUNTS, beyond_what_was_granted


def test_nobody_aside_asks_for_what_was_not_granted(ground: Ground):
    assert beyond_what_was_granted(ground) == {account: [] for account in ACCOUNTS}
