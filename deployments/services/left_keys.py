"""Keys of a team whose maker leads it no more: they go on, for programs use them, and somebody has to rotate them."""

from __future__ import annotations

from deployments.models import EndpointKey, Team, User
from deployments.services import events

KIND = "key_maker_left"
# Keys that the event names; all of them stand on the page of keys.
NAMED = 5


def tell_of(user: User, team: Team | None = None) -> int:
    """Tell leads and admins of the keys that this person leaves behind, in one team or in all. Returns how many.

    To be called once the right has ended, in the same transaction.
    """
    rows = EndpointKey.objects.left_behind().filter(created_by=user).select_related("team").order_by("team_id", "pk")
    found: dict[int, list[EndpointKey]] = {}
    for row in rows if team is None else rows.filter(team=team):
        found.setdefault(row.team_id, []).append(row)
    for keys in found.values():
        names = ", ".join(f"“{key.name}” ({key.prefix}…)" for key in keys[:NAMED])
        more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
        many = "the key" if len(keys) == 1 else f"{len(keys)} keys"
        events.record(
            kind=KIND,
            message=f"{user.username} made {many} {names}{more} and knows the text, but leads {keys[0].team.name} no "
            "more. Rotate what programs still use, revoke the rest.",
            team=keys[0].team,
            level="warning",
            data={"user": user.pk, "keys": [key.pk for key in keys]},
        )
    return sum(len(keys) for keys in found.values())
