"""Why somebody has to decide about a request, one typed reason each; none: the team's policy approves it at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deployments.models import Team
from deployments.services.text import gpus_in_words

ADMIN, LEAD = "admin", "lead"
OVER_QUOTA = "over_quota"
# Stands among the guarded options of a revision; said in words of its own.
UNSEEN = "source_unseen"


@dataclass(frozen=True)
class Ask:
    """One reason, in words, and who the least person is that may decide: a lead or an admin."""

    code: str
    message: str
    who: str = ADMIN

    def as_json(self) -> dict[str, str]:
        """This reason as the API shows it."""
        return {"code": self.code, "message": self.message, "who": self.who}


def reasons(team: Team, *, gpus: int, guarded: Sequence[str], within: bool) -> tuple[Ask, ...]:
    """The reasons for a request of `gpus` GPUs at its most; `within`: the team's quota covers it now."""
    found: list[Ask] = []
    if team.policy == Team.Policy.ASK:
        found.append(Ask("team_policy", "An admin approves every request of this team."))
    elif team.policy == Team.Policy.LEAD:
        found.append(Ask("lead_policy", "A lead of the team approves its requests.", LEAD))
    if team.ask_above is not None and gpus > team.ask_above:
        words = f"It asks for {gpus_in_words(gpus)}: for more than {team.ask_above} an admin decides."
        found.append(Ask("ask_above", words))
    if options := [name for name in guarded if name != UNSEEN]:
        found.append(Ask("guarded", f"It uses guarded options: {', '.join(options)}."))
    if UNSEEN in guarded:
        words = "Slipway has never reached the server of its model, and the cluster would load from there all the same."
        found.append(Ask(UNSEEN, words))
    if not within:
        found.append(Ask(OVER_QUOTA, "It goes beyond the team's quota as it is now."))
    return tuple(found)


def needs_admin(asks: Iterable[Ask]) -> bool:
    """True when a lead's word is not enough."""
    return any(ask.who == ADMIN for ask in asks)


def in_words(asks: Sequence[Ask]) -> str:
    """Who would decide, in one sentence: the first reason that needs an admin says it."""
    if not asks:
        return "Approved at once by the team's policy."
    codes = {ask.code for ask in asks}
    if "guarded" in codes:
        return "An admin approves: the request uses guarded options."
    if UNSEEN in codes:
        return "An admin approves: Slipway has never reached the server that the model comes from."
    if "team_policy" in codes:
        return "An admin approves every request of this team."
    if OVER_QUOTA in codes:
        return "An admin approves: the request goes beyond the team's quota."
    if "ask_above" in codes:
        return "An admin approves: the request is for more GPUs than the team's policy leaves to others."
    if codes == {"author_rules"}:
        return "Another lead of the team or an admin approves: who asks has a say in the team's policy or quota."
    return "Another lead of the team or an admin approves."
