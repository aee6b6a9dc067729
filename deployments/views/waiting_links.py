"""What somebody can press while a deployment waits for quota: ask for it, or change to what would start now."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.urls import reverse
from django.utils import timezone

from deployments.findings import field_of
from deployments.models import Deployment, Principal, QuotaRequest
from deployments.services import quota_requests
from deployments.services.text import gpus_in_words
from deployments.services.waits import Waiting
from deployments.views.quotas import leads_of


def links_of(principal: Principal, row: Deployment, found: Waiting | None) -> dict[str, Any]:
    """The addresses behind the buttons; for those who may not ask, who may."""
    if found is None:
        return {}
    may_ask = quota_requests.may_ask(principal, row.team)
    asked = QuotaRequest.objects.pending().filter(team=row.team, flavor=found.flavor).select_related("author")
    open_requests = list(asked.order_by("-pk"))
    # What is asked for already, to begin at once, does not have to be asked for again.
    now = timezone.now()
    coming = sum(one.gpus for one in open_requests if one.valid_from is None or one.valid_from <= now)
    missing = max(0, found.ask_for - coming)
    wish = {
        "team": row.team.slug,
        "flavor": found.flavor.slug,
        "gpus": str(missing),
        "why": f"{row.name} is approved and waits for {gpus_in_words(found.more)}",
    }
    edit = reverse("deployment-edit", args=[row.pk])
    return {
        "ask": wish if may_ask and missing and len(open_requests) < quota_requests.MOST_PENDING else {},
        "missing": missing,
        "asked": open_requests[0] if open_requests else None,
        "may_withdraw": may_ask,
        "leads": "" if may_ask else leads_of(row.team),
        "ways": [
            {
                "text": way.text,
                "gpus": way.gpus,
                "url": f"{edit}?{urlencode([('set', f'{field_of(pointer)}={value}') for pointer, value in way.sets])}",
            }
            for way in found.alternatives
        ],
    }
