"""Asks endpoints themselves, through the gateway, as a caller would: pods that are ready may still not answer."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Case, DurationField, ExpressionWrapper, F, Q, Value, When
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from deployments.models import Deployment, Wanted
from deployments.services import invoke, states, telling
from portal.lib import outbound
from portal.lib.outbound import OutboundError

logger = logging.getLogger(__name__)

SECONDS = 20.0
# How long an answer is believed: an endpoint that answers is left alone, one that does not is asked again.
BELIEVED = timedelta(seconds=60)
AGAIN = timedelta(seconds=10)
# The gateway may see a ready pod a moment after we do: the first questions that fail are asked again at once.
AT_ONCE, HASTY = timedelta(seconds=3), 3
# States in which something may answer.
ASKED = (
    Deployment.State.STARTING,
    Deployment.State.RUNNING,
    Deployment.State.DEGRADED,
    Deployment.State.STALLED,
    Deployment.State.FAILED,
)
SKEW = timedelta(seconds=30)  # between the cluster's clock and ours; no start of a revision takes less than that
TOKENS = 4
PROMPT = "Say OK."


def due() -> list[int]:
    """Deployments whose endpoint was not asked lately, those that did not answer more often; in one query."""
    wait = Case(
        When(probe__ok=True, then=Value(BELIEVED)),
        When(probe__failures__lt=HASTY, then=Value(AT_ONCE)),
        default=Value(AGAIN),
        output_field=DurationField(),
    )
    believed_until = ExpressionWrapper(F("probed_at") + wait, output_field=Deployment._meta.get_field("probed_at"))
    rows = (
        Deployment.objects.alive()
        .filter(wanted=Wanted.RUNNING, state__in=ASKED, status__observed__pods__contains=[{"ready": True}])
        .annotate(believed_until=believed_until)
        .filter(Q(probed_at=None) | Q(believed_until__lte=Now()))
        .order_by(F("probed_at").asc(nulls_first=True))
    )
    return list(rows.values_list("pk", flat=True)[:1000])


def probe(pk: int) -> None:
    """Ask one endpoint which models it serves and for a few tokens; store the answer and refresh the state."""
    row = Deployment.objects.alive().select_related("team", "status").filter(pk=pk, wanted=Wanted.RUNNING).first()
    if row is None:
        return
    # Claimed by the clock: messages that come twice ask once.
    claimed = Deployment.objects.filter(Q(probed_at=None) | Q(probed_at__lt=Now() - timedelta(seconds=2)), pk=pk)
    if not claimed.update(probed_at=Now()):
        return
    result, before = ask(row), row.probe or {}
    failures = 0 if result["ok"] else int(before.get("failures", 0)) + 1
    stored = {**result, "failures": failures, "answered": _answered(row, result, before)}
    Deployment.objects.filter(pk=pk).update(probe=stored, probed_at=Now())
    states.refresh(pk)
    # The state often stays as it is, but the deployment's page says what came of the question. A further answer like
    # the one before is no news: at thousands of deployments lists would be fetched without end.
    if any(result[key] != before.get(key) for key in ("ok", "detail")):
        telling.notify([f"deployment:{pk}"])


def _answered(row: Deployment, result: dict[str, Any], before: dict[str, Any]) -> dict[str, Any] | None:
    """Which revision was ready when the endpoint first answered, and when: kept until another is or it starts again."""
    known: dict[str, Any] | None = before.get("answered")
    observed = states.observed_of(row)
    ready = [pod.revision for pod in (observed.live_pods if observed else ()) if pod.ready and pod.revision]
    if observed is None or not ready or not result["ok"]:
        return known
    newest = max(ready)
    if known and known["revision"] == newest:
        began = observed.moments.get(str(newest), {}).get("ready")
        at = parse_datetime(known["at"])
        if began is None or (at is not None and began - at < SKEW):
            return known
    return {"revision": newest, "at": result["at"]}


def ask(row: Deployment) -> dict[str, Any]:
    """Send the two requests; the result says `ok`, `detail`, `latency_ms`, `answer` and `at`."""
    started = time.monotonic()
    base = f"{settings.GATEWAY_URL.rstrip('/')}/{row.team.namespace}/{row.name}/v1"
    headers = {"authorization": f"Bearer {invoke.probe_token(deployment_id=row.pk)}"}
    try:
        model = _model(base, headers)
        answer = _complete(base, headers, model)
    except (OutboundError, _NoAnswer) as error:
        return _result(False, str(error), started)
    return {**_result(True, "", started), "answer": answer, "model": model}


class _NoAnswer(Exception):
    """The endpoint said something else than an answer."""


def _model(base: str, headers: dict[str, str]) -> str:
    status, body = outbound.get_json(
        f"{base}/models", operator_origins=[settings.GATEWAY_URL], headers=headers, seconds=SECONDS / 2
    )
    if status != 200:
        raise _NoAnswer(f"The list of models answers {status}{_words(body)}.")
    try:
        return str(body["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise _NoAnswer("The list of models is empty.") from None


def _complete(base: str, headers: dict[str, str], model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": TOKENS, "temperature": 0}
    answer = outbound.request(
        "POST",
        f"{base}/chat/completions",
        operator_origins=[settings.GATEWAY_URL],
        headers=headers,
        json=body,
        seconds=SECONDS,
        max_bytes=64 * 1024,
    )
    reply = answer.json()
    if answer.status != 200:
        raise _NoAnswer(f"A short prompt is answered with {answer.status}{_words(reply)}.")
    try:
        return str(reply["choices"][0]["message"]["content"] or "")[:200]
    except (KeyError, IndexError, TypeError):
        raise _NoAnswer("A short prompt gets no text back.") from None


def _words(body: Any) -> str:
    """The error text of an OpenAI-style answer, cut; it is hostile and only ever shown escaped."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error if isinstance(error, str) else ""
    return f": {str(message)[:200]}" if message else ""


def _result(ok: bool, detail: str, started: float) -> dict[str, Any]:
    latency = round((time.monotonic() - started) * 1000)
    return {"ok": ok, "detail": detail[:300], "latency_ms": latency, "at": timezone.now().isoformat()}
