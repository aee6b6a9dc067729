"""What the inbox of those who decide shows: cards for what waits, rows for what was decided, and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict
from django.utils import timezone

from deployments.models import Flavor, Principal, QuotaRequest, Revision
from deployments.services import approvals, asks, facts, inbox, quota_requests, verdicts
from deployments.services.capacity_now import flavors_now
from deployments.services.inbox import Case, QuotaCase
from deployments.views import present
from portal.lib.pages import query_with

SIZE = 30
# What preflight said of the moment at which somebody asked: once that is over it helps nobody to decide.
OF_THE_MOMENT = frozenset({"cluster_unseen"})
TABS = (("", "All"), (inbox.DEPLOYMENT, "Deployments"), (inbox.QUOTA, "Quota"))


@dataclass(frozen=True)
class Refused:
    """Why a word was not taken, at which field, and what the fields held: nothing that was typed is lost."""

    message: str
    at: str
    values: Mapping[str, str]
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def comment(self) -> str:
        """What stands in the comment."""
        return self.values.get("comment", "")

    @property
    def about_comment(self) -> bool:
        """True where the comment is what is wrong."""
        return "comment" in self.errors or self.at == "comment"


def inbox_page(principal: Principal, asked: QueryDict, said: Mapping[str, Refused] | None = None) -> dict[str, Any]:
    """The cards: first those that wait for this person, then those that others decide."""
    kind = chosen_kind(asked)
    line = inbox.waiting(
        principal,
        kinds=(kind,) if kind else inbox.KINDS,
        team=asked.get("team", "") if "\x00" not in asked.get("team", "") else "",
        after=asked.get("after", ""),
        size=SIZE,
    )
    cards = cards_of(principal, line.cases, said)
    mine = [card for card in cards if card["standing"].approve or card["signs"]]
    own = [card for card in cards if card not in mine and card["mine"]]
    admins = [card for card in cards if card not in mine and card not in own]
    groups = [("", mine), ("An admin decides", admins), ("You asked: somebody else decides", own)]
    return {
        "cards": cards,
        "groups": groups,
        "mine": len(mine),
        "after": line.after,
        "kind": kind,
        "tabs": TABS,
        "paged": bool(asked.get("after")),
    }


def cards_of(
    principal: Principal, cases: list[Case | QuotaCase], said: Mapping[str, Refused] | None = None
) -> list[dict[str, Any]]:
    """Each case with what surrounds it: what is free on the cluster, what else the quota is promised to."""
    if not cases:
        return []
    flavors = {row.slug: row for row in flavors_now()}
    cluster = facts.main_cluster()
    over = OF_THE_MOMENT if cluster is not None and facts.is_seen(cluster) else frozenset()
    asked = [case.request for case in cases if isinstance(case, QuotaCase)]
    contexts = quota_requests.contexts_of(asked, named=principal.is_admin) if asked else {}
    offered = list(Flavor.objects.filter(active=True)) if asked else []
    cards = []
    for case in cases:
        key = key_of(case)
        card: dict[str, Any] = {
            "case": case,
            "kind": case.kind,
            "key": key,
            "standing": case.standing,
            "mine": case.author,
            "month": case.month,
            "refused": (said or {}).get(key),
        }
        if isinstance(case, QuotaCase):
            card |= {
                "request": case.request,
                "context": contexts[case.request.pk],
                "flavor": flavors.get(case.request.flavor.slug),
                "offered": offered,
                "signs": False,
                "fold": _differs(case.request, card["refused"]),
            }
        else:
            card |= _of_revision(principal, case, over) | {"flavor": flavors.get(case.revision.flavor.slug)}
        cards.append(card)
    return cards


def _differs(asked: QuotaRequest, refused: Refused | None) -> bool:
    """True where something else was typed than was asked for: the fold that holds it stays open."""
    if refused is None:
        return False
    as_asked = {
        "gpus": str(asked.gpus),
        "flavor": asked.flavor.slug,
        "valid_from": timezone.localdate(asked.valid_from).isoformat() if asked.valid_from else "",
        "valid_until": timezone.localdate(asked.valid_until).isoformat() if asked.valid_until else "",
        "beyond": "",
    }
    return any(name in refused.errors or refused.values.get(name, was) != was for name, was in as_asked.items())


def key_of(case: Case | QuotaCase) -> str:
    """The name of a card on the page: what anchors and answers of htmx find it by."""
    return f"q{case.request.pk}" if isinstance(case, QuotaCase) else f"r{case.revision.pk}"


def history_page(principal: Principal, asked: QueryDict) -> dict[str, Any]:
    """What was decided, filtered as the address says."""
    kind, verdict = chosen_kind(asked), asked.get("verdict", "")
    verdict = verdict if verdict in verdicts.VERDICTS else ""
    search = asked.get("q", "").replace("\x00", "")[: verdicts.LONGEST_SEARCH]
    page = verdicts.history(
        principal,
        kinds=(kind,) if kind else inbox.KINDS,
        verdict=verdict,
        search=search,
        after=asked.get("after", ""),
        size=SIZE,
    )
    return {
        "page": page,
        "rows": [(inbox.QUOTA if isinstance(row, QuotaRequest) else inbox.DEPLOYMENT, row) for row in page.rows],
        "kind": kind,
        "verdict": verdict,
        "search": search,
        "query": query_with({"show": "history"}, kind=kind, verdict=verdict, q=search),
        "filtered": bool(kind or verdict or search),
        "tabs": TABS,
        "paged": bool(asked.get("after")),
    }


def chosen_kind(asked: QueryDict) -> str:
    """The kind that the address asks for; empty for both."""
    kind = asked.get("kind", "")
    return kind if kind in inbox.KINDS else ""


def decider_of(revision: Revision | None) -> str:
    """Who may approve a revision, in words; empty where none waits."""
    if revision is None or revision.verdict != Revision.Verdict.PENDING:
        return ""
    why = approvals.asks_of(revision)
    # Without a reason policy would approve it now: it did not when it was asked for.
    return asks.in_words(why) if why else "A lead of the team or an admin approves."


def _of_revision(principal: Principal, case: Case, over: frozenset[str]) -> dict[str, Any]:
    revision, approved = case.revision, case.revision.deployment.approved
    emergency = case.emergency
    signs = emergency is not None and principal.is_admin and emergency.called_by_id != principal.user.pk
    return {
        "revision": revision,
        "findings": [finding for finding in revision.findings if finding.get("code") not in over],
        "cost": case.cost,
        "leaves": case.leaves,
        "asks": case.asks,
        "changes": present.differences(approved.spec, revision.spec) if approved else None,
        "emergency": emergency,
        "signs": signs,
        "may_call": case.may_call,
    }
