"""What somebody can press while a deployment waits for quota: ask for it, or change to what would start now."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

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
    wish = {
        "team": row.team.slug,
        "flavor": found.flavor.slug,
        "gpus": str(found.ask_for),
        "why": f"{row.name} is approved and waits for {gpus_in_words(found.more)}",
    }
    asked = QuotaRequest.objects.pending().filter(team=row.team, flavor=found.flavor).select_related("author")
    edit = reverse("deployment-edit", args=[row.pk])
    return {
        "ask": wish if may_ask and found.ask_for else {},
        "asked": asked.order_by("-pk").first(),
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
