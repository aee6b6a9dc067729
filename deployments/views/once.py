"""Forms that make something, sent more than once: it is made once, and every answer leads to it.

A form carries a nonce (`{% once %}`). The first submit of it claims it, others wait for what became of that one. Posts
without a nonce count as one when the same person sends the same within a minute.
"""

from __future__ import annotations

import re
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import wraps
from typing import Any, cast

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import Http404, HttpResponse
from django.utils import timezone
from django.utils.crypto import salted_hmac

from deployments.models import IdempotencyKey, User
from deployments.services import idempotency
from deployments.services.errors import DomainError
from portal.lib.htmx import PortalRequest, View, go_to

FIELD = "once"
NONCE = re.compile(r"[A-Za-z0-9_-]{32,64}")
# So long the same form is answered with what it made, which is shown to nobody else and never again.
SHOWN_FOR = timedelta(minutes=2)
# Longer than a write takes that asks a model hub first, seconds.
PATIENCE = 15.0
STEP = 0.05


@dataclass(frozen=True)
class Submission:
    """One submit of a form: whether an earlier one did its work, and a secret that only its sender can ask for."""

    nonce: str
    said: str
    again: bool = False
    late: bool = False

    def secret(self, prefix: str = "") -> str | None:
        """A text of 256 bits that each submit of the same form gets, so that it need not be kept anywhere.

        It follows from the nonce, which lies in the page alone, and from this site's secret key. None without a nonce,
        and for who sends the form again later than a second press of its button or a reload.
        """
        if not self.nonce or self.late:
            return None
        made = salted_hmac("slipway.once.secret", self.said, algorithm="sha256").digest()
        return prefix + urlsafe_b64encode(made).decode().rstrip("=")


def once(view: View) -> View:
    """Do the work of a form's POST once. It is done when the view redirects; anything else may be tried again."""
    return _once(view, shows=False)


def once_showing(view: View) -> View:
    """As `once`, for views that answer with what is shown once: done is what answers 201.

    Sent again, such a form comes to the view with `submission_of(request).again`.
    """
    return _once(view, shows=True)


def submission_of(request: PortalRequest) -> Submission:
    """What `once_showing` knows of this POST."""
    return cast(Submission, vars(request)["submission"])


def _once(view: View, *, shows: bool) -> View:
    @wraps(view)
    def guarded(request: PortalRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        submission = _read(request)
        row, first = _claim(request, submission)
        if row is None:
            messages.error(request, "What became of this form is not known. Look before you send it again.")
            return go_to(request, request.path)
        if not first and not shows:
            return go_to(request, row.location or request.path)
        late = not first and timezone.now() - row.created_at > SHOWN_FOR
        vars(request)["submission"] = replace(submission, again=not first, late=late)
        if not first:
            return view(request, *args, **kwargs)
        try:
            answer = view(request, *args, **kwargs)
        except (DomainError, Http404, PermissionDenied):
            idempotency.give_back(row)
            raise
        location = answer.headers.get("HX-Redirect") or answer.headers.get("Location") or ""
        if location or (shows and answer.status_code == 201):
            kept = location if len(location) <= 200 else ""
            idempotency.settle(row, status=answer.status_code, location=kept)
        else:
            idempotency.give_back(row)
        return answer

    vars(guarded)["done_once"] = True  # a test looks which forms lead here
    return guarded


def _read(request: PortalRequest) -> Submission:
    given = request.POST.get(FIELD, "")
    nonce = given if NONCE.fullmatch(given) else ""
    fields = sorted((name, request.POST.getlist(name)) for name in request.POST)
    said = [item for item in fields if item[0] not in {FIELD, "csrfmiddlewaretoken"}]
    # A form that was changed after its first submit, with the Back button, is another wish.
    return Submission(nonce, repr((nonce, request.user.pk, request.get_full_path(), said)))


def _claim(request: PortalRequest, submission: Submission) -> tuple[IdempotencyKey | None, bool]:
    """The row of this submit and whether it is the first; no row when the first one's end is not known."""
    key = salted_hmac("slipway.once", submission.said, algorithm="sha256").hexdigest()
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return idempotency.claim(
                user=cast(User, request.user),
                key=key,
                route=f"FORM {request.path}"[:200],
                request_hash=key,
                kept=idempotency.KEPT if submission.nonce else idempotency.SOON,
            )
        except idempotency.InFlightError:
            if time.monotonic() > until:
                return None, False
        except idempotency.UnknownOutcomeError:
            return None, False
        if not connection.in_atomic_block:
            connection.close()  # Who waits holds no connection: the one who works may need it.
        time.sleep(STEP)
