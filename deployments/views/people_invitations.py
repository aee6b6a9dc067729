"""Invitations into teams: made and revoked by leads and admins, accepted by whoever opens the link."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods, require_POST

from deployments.models import Invitation, Membership, User
from deployments.services import invitations
from deployments.services.errors import DomainError, MissingError
from deployments.services.principals import principal_of
from deployments.services.tokens import digest_of
from deployments.views.once import once_showing, submission_of
from deployments.views.people import at_field, managed_team_of, team_page, typed
from portal.lib.htmx import PortalRequest, signed_in

PAGE = "pages/people_invitation.html"


@require_POST
@signed_in
@once_showing
def invite(request: PortalRequest, slug: str) -> HttpResponse:
    """Make a link, which workers mail where an address is given. The answer itself shows the link, this once."""
    row, values = managed_team_of(request, slug), typed(request, "email", "role", "days")
    days, submission = values["days"], submission_of(request)
    word = submission.secret()
    if submission.again:
        made = invitations.found(word) if word is not None else None
        if word is None or made is None or made.team_id != row.pk:
            messages.warning(request, "This form was sent already. The link that it made was shown then.")
            return redirect("people-team", slug)
        return _invited(request, made, word)
    try:
        invitation, word = invitations.invite(
            principal=principal_of(request),
            team=row,
            role=values["role"],
            email=values["email"],
            days=int(days) if days.isascii() and days.isdigit() and len(days) < 6 else 0,
            word=word,
        )
    except DomainError as error:
        return team_page(request, row, form="invite", errors=at_field(error, values), values=values)
    return _invited(request, invitation, word)


@require_POST
@signed_in
def revoke(request: PortalRequest, pk: int) -> HttpResponse:
    """End a link that nobody has used."""
    try:
        invitation = invitations.revoke(principal=principal_of(request), invitation_id=pk)
    except MissingError:
        messages.error(request, "There is no such invitation any more.")
        return redirect("people")
    except DomainError as error:
        messages.error(request, error.message)
        return redirect("people")
    messages.success(request, "The invitation is revoked: its link lets nobody in any more.")
    return redirect("people-team", invitation.team.slug)


@require_http_methods(["GET", "HEAD", "POST"])
def invitation(request: PortalRequest, word: str) -> HttpResponse:
    """What a link is worth, and a button to join; who is not signed in does that first and comes back here."""
    answer = _sign_up(request, word) if request.POST.get("do") == "sign-up" else _answer(request, word)
    answer["Cache-Control"] = "no-store"
    # Not "no-referrer": a browser then posts `Origin: null`, and joining is refused as a request of another site.
    answer["Referrer-Policy"] = "same-origin"
    return answer


def _invited(request: PortalRequest, row: Invitation, word: str) -> HttpResponse:
    mailed = row.mail_due or row.mailed_at is not None
    made = {"link": invitations.link_of(word), "email": row.email, "mailed": mailed}
    return render(request, "pages/people_invited.html", {"team": row.team, "made": made}, status=201)


def _answer(request: PortalRequest, word: str) -> HttpResponse:
    known = invitations.found(word)
    if known is None:
        return render(request, PAGE, {"worth": "unknown"}, status=404)
    user = request.user if isinstance(request.user, User) and request.user.is_active else None
    worth = invitations.standing(known)
    if user is not None and request.method == "POST":
        try:
            member = invitations.accept(user=user, word=word)
        except DomainError as error:
            return render(request, PAGE, {"worth": error.code, "team": known.team, "known": known}, status=409)
        messages.success(request, f"You belong to {known.team.name} now, as {member.get_role_display().lower()}.")
        return redirect("people-team", known.team.slug)
    if worth is not invitations.Standing.OPEN:
        # Who has used it themselves is where they wanted to be.
        if user is not None and known.accepted_by_id == user.pk and _belongs(user, known.team_id):
            return redirect("people-team", known.team.slug)
        return render(request, PAGE, {"worth": worth.value}, status=410)
    login = f"{resolve_url(settings.LOGIN_URL)}?{urlencode({'next': request.path})}"
    if user is None and request.method == "POST":
        return redirect(login)
    if user is not None and not invitations.is_for(user, known):
        return render(request, PAGE, {"worth": "elsewhere"}, status=409)
    context = {
        "worth": "member" if user is not None and invitations.gains_nothing(user, known) else worth.value,
        "team": known.team,
        "known": known,
        "person": user,
        "login": login,
        "signup": settings.SIGNUP_BY_INVITATION,
    }
    return render(request, PAGE, context)


def _sign_up(request: PortalRequest, word: str) -> HttpResponse:
    """Remember the invitation for the page on which an account is made; that one asks what it is worth."""
    if not settings.SIGNUP_BY_INVITATION or request.user.is_authenticated or invitations.found(word) is None:
        return _answer(request, word)
    request.session[invitations.INVITED_WITH] = digest_of(word)
    return redirect(f"{reverse('account_signup')}?{urlencode({'next': request.path})}")


def _belongs(user: User, team_id: int) -> bool:
    return Membership.objects.filter(user=user, team=team_id).exists()
