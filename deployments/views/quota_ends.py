"""Grants that end soon, as the page shows them: when, what it means, and how they are prolonged or asked for again."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from deployments.models import Team
from deployments.services import quota_outlook
from deployments.services.grants import tag_of
from deployments.services.holds import Usage
from deployments.services.quota_outlook import Ending
from deployments.services.text import gpus_in_words
from deployments.views.quota_grants import asked_again, extended_of


class End(Ending):
    """The end of one grant with what may be done about it."""

    @property
    def days(self) -> int:
        """Days from today, by the calendar."""
        assert self.grant.valid_until is not None
        return (timezone.localdate(self.grant.valid_until) - timezone.localdate()).days

    @property
    def tag(self) -> str:
        """How the grant is now, for the form that prolongs it."""
        return tag_of(self.grant)

    @property
    def extended(self) -> datetime | None:
        """Its end, prolonged once."""
        return extended_of(self.grant, timezone.now())

    @property
    def ask(self) -> str:
        """Where a lead asks for it to go on."""
        return asked_again(self.grant, timezone.now())

    @property
    def fate(self) -> str:
        """What happens then to what runs, in words."""
        if not self.over:
            return "Nothing: what is held fits in what is left."
        held = f"{gpus_in_words(self.over)} held beyond the quota"
        if self.grant.team.at_expiry == Team.AtExpiry.STOP:
            return f"{held}: the newest deployments are stopped."
        return f"{held}: what runs goes on, and cannot grow."


def ends_of(teams: list[Team], usages: dict[int, list[Usage]]) -> list[End]:
    """The ends that come next, the soonest first (two queries)."""
    return [End(one.grant, one.left, one.over) for one in quota_outlook.endings_of(teams, usages)]
