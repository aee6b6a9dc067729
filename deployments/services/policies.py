"""Who approves a team's requests, and what happens to it when its quota ends: admins say so."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from deployments.models import Principal, Team
from deployments.services import events, impartial
from deployments.services.errors import InvalidError, MissingError, NotAllowedError
from deployments.services.principals import anew
from deployments.services.transactions import in_transaction

MOST_GPUS = 10_000
# Whose word it takes, from nobody's to an admin's.
STRICTNESS: Mapping[str, int] = {Team.Policy.AUTO: 0, Team.Policy.LEAD: 1, Team.Policy.ASK: 2}


class Keep(Enum):
    """Stands for a value that stays as it is, where None is a value too."""

    AS_IT_IS = "as it is"


AS_IT_IS: Final = Keep.AS_IT_IS


@in_transaction
def set_policy(
    *,
    principal: Principal,
    team: Team,
    policy: str | None = None,
    ask_above: int | Keep | None = AS_IT_IS,
    at_expiry: str | None = None,
) -> Team:
    """Say who approves the team's requests; `ask_above` GPUs an admin does, whatever the policy (None: however many).

    Only an admin may, and one who belongs to the team tightens it only. What waits already goes on waiting: a new
    policy counts for later requests, and for who may decide about those that wait.
    """
    _needs_admin(principal)
    row = Team.objects.active().governed_by(principal).hold(team.pk)
    if row is None:
        raise MissingError("There is no such team.")
    # Again: who waited for the lock may be no admin any more.
    _needs_admin(anew(principal))
    before = _values(row)
    if policy is not None:
        row.policy = policy_named(policy)
    if at_expiry is not None:
        row.at_expiry = _one_of(at_expiry, Team.AtExpiry.values, "at_expiry")
    if not isinstance(ask_above, Keep):
        row.ask_above = _limit(ask_above)
    changes = events.changed(before, _values(row))
    if _loosens(before, row):
        impartial.needs_stranger(principal, row, "loosen its policy")
    if changes["after"]:
        row.save(update_fields=["policy", "ask_above", "at_expiry"])
        events.record(
            kind="team_policy",
            message=f"Approval of {row.name} is now: {in_words(row)}",
            team=row,
            actor=principal.user,
            data=changes,
        )
    return row


def _loosens(before: Mapping[str, object], row: Team) -> bool:
    """True when more is let through than before, or for longer: fewer approvals, a higher limit, no stop at the end."""
    above = before["ask_above"]
    return (
        STRICTNESS[row.policy] < STRICTNESS[str(before["policy"])]
        or (isinstance(above, int) and (row.ask_above is None or row.ask_above > above))
        or (before["at_expiry"] != row.at_expiry and row.at_expiry != Team.AtExpiry.STOP)
    )


def in_words(team: Team) -> str:
    """A team's policy as one line."""
    above = "" if team.ask_above is None else f"; above {team.ask_above} GPUs an admin decides"
    return f"{team.get_policy_display().lower()}{above}; at the end of a grant: {team.get_at_expiry_display().lower()}"


def policy_named(policy: object) -> str:
    """The policy of this name; InvalidError for none."""
    return _one_of(policy, Team.Policy.values, "policy")


def _needs_admin(principal: Principal) -> None:
    if not (principal.is_admin and principal.may("approve")):
        raise NotAllowedError("Only an admin may change who approves.")


def _one_of(value: object, choices: list[str], field: str) -> str:
    if not isinstance(value, str) or value not in choices:
        raise InvalidError(f"Choose one of: {', '.join(choices)}.", field=field, pointer=f"/{field}")
    return value


def _limit(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_GPUS:
        words = f"Must be a whole number from 0 to {MOST_GPUS:,}, or nothing."
        raise InvalidError(words, field="ask_above", pointer="/ask_above")
    return value


def _values(team: Team) -> dict[str, object]:
    return {"policy": team.policy, "ask_above": team.ask_above, "at_expiry": team.at_expiry}
