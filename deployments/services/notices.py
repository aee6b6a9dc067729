"""What people are told of: made from events by one table, kind of event → whom it concerns and where they look.

A notice stands or falls with its event, and goes only to people who may see it. Who loses access later finds neither
it nor what it links to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from deployments.models import Deployment, Event, Membership, Notification, Principal, Revision, Team, User, admins_now
from deployments.services import approvals, events, waiting
from deployments.services.asks import needs_admin
from deployments.services.errors import InvalidError, MissingError, NotAllowedError
from deployments.services.inserting import insert
from deployments.services.notice_people import people_of
from deployments.services.notice_words import cut, revision_of, sentence_of
from deployments.services.telling import listen
from deployments.services.transactions import in_transaction
from portal.lib.hints import MAIL, hint

# One deployment that fails again and again is told of once in this time.
QUIET = timedelta(hours=1)
# Read notices go after this time; what they told of stays in the audit.
KEPT = timedelta(days=90)
AT_ONCE = 1000
TROUBLE = frozenset({Deployment.State.FAILED, Deployment.State.BLOCKED})


@dataclass(frozen=True)
class Rule:
    """Whom an event concerns, as a condition on users or a user's key (None: nobody), and the page that shows more."""

    whom: Callable[[Event], Q | int | None]
    link: Callable[[Event], str]


@listen
def notify(happened: Sequence[Event]) -> None:
    """Write the notices of these events."""
    failures = [event for event in happened if event.kind == "state" and event.data.get("to") in TROUBLE]
    if failures:
        _tell_failures(failures)
    for event in happened:
        if event.kind == "waits_for_quota":
            _add_place(event)
        rule = RULES.get(event.kind)
        if rule is not None and (whom := rule.whom(event)) is not None:
            _write([(person, event, rule.link(event)) for person in people_of(event, whom)])


@in_transaction
def read(*, principal: Principal, pk: int) -> Notification:
    """Mark one notice as read. MissingError for somebody else's, and for one whose team was left."""
    _may_write(principal)
    row = Notification.objects.visible_to(principal).filter(pk=pk).first()
    if row is None:
        raise MissingError("There is no such notice.")
    if row.read_at is None:
        row.read_at = timezone.now()
        row.save(update_fields=["read_at"])
    return row


@in_transaction
def read_all(*, principal: Principal, upto: int | None = None) -> int:
    """Mark all notices as read, or those up to the newest that the page showed. Returns how many were not."""
    _may_write(principal)
    rows = Notification.objects.filter(user=principal.user).unread()
    return (rows if upto is None else rows.filter(pk__lte=upto)).update(read_at=timezone.now())


@in_transaction
def set_mail(*, principal: Principal, wanted: bool) -> User:
    """Say whether one's notices are sent by e-mail too."""
    _may_write(principal)
    if not isinstance(wanted, bool):
        raise InvalidError("Must be true or false.", field="mail_notices", pointer="/mail_notices")
    user = User.objects.select_for_update(no_key=True).get(pk=principal.user.pk)
    if user.mail_notices != wanted:
        events.record(
            kind="account_changed",
            message=f"Notices of {user.username} are {'sent' if wanted else 'no longer sent'} by e-mail",
            actor=user,
            data={"user": user.pk, **events.changed({"mail_notices": not wanted}, {"mail_notices": wanted})},
        )
        user.mail_notices = wanted
        user.save(update_fields=["mail_notices"])
    return user


def forget_read() -> int:
    """Remove notices that were read long ago; the sweep calls this. Returns how many."""
    old = Notification.objects.filter(read_at__lt=timezone.now() - KEPT).order_by("pk")
    removed, _ = Notification.objects.filter(pk__in=old.values("pk")[:AT_ONCE]).delete()
    return removed


def _may_write(principal: Principal) -> None:
    if not principal.may("write"):
        raise NotAllowedError("This token may not change anything.")


def _write(found: Iterable[tuple[User, Event, str]]) -> None:
    listed = list(found)
    sentences = {event.pk: sentence_of(event) for event in {event.pk: event for _, event, _ in listed}.values()}
    rows = [
        Notification(
            user=person,
            event=event,
            message=sentences[event.pk],
            link=link,
            mail_due=bool(settings.SENDS_MAIL and person.mail_notices and person.email),
        )
        for person, event, link in listed
    ]
    if not rows:
        return
    insert(rows, ignore_conflicts=True)
    for pk in sorted({row.event_id for row in rows if row.mail_due}):
        hint(MAIL, pk)


def _add_place(event: Event) -> None:
    """The notice of the approval says that it waits, and where: one decision makes one notice."""
    place = waiting.place_of(event.deployment_id) if event.deployment_id else None
    told = Notification.objects.filter(event__deployment=event.deployment_id, event__kind="approved", read_at=None)
    last = Event.objects.filter(deployment=event.deployment_id, kind="approved").order_by("-pk").first()
    if place is None or last is None:
        return
    for row in told.filter(event=last):
        row.message = cut(f"{row.message}. It does not run yet: {place.words}")
        row.save(update_fields=["message"])


def _tell_failures(failures: Sequence[Event]) -> None:
    """Those who asked, and the leads: in a fixed number of queries, for the watcher sees hundreds fail together."""
    pks = {event.deployment_id for event in failures if event.deployment_id is not None}
    stored = Deployment.objects.filter(pk__in=pks).select_related("latest")
    rows = {row.pk: row for row in stored.only("name", "team", "created_by", "latest__author")}
    askers = {row.pk: {row.created_by_id, row.latest.author_id if row.latest else 0} for row in rows.values()}
    members: dict[int, dict[int, str]] = {}
    for team, user, role in (
        Membership.objects.in_force()
        .filter(team__in={row.team_id for row in rows.values()})
        .values_list("team_id", "user_id", "role")
    ):
        members.setdefault(team, {})[user] = role
    people = {
        person.pk: person
        for person in User.objects.filter(
            Q(pk__in={pk for asked in askers.values() for pk in asked})
            | Q(pk__in={pk for team in members.values() for pk, role in team.items() if role == Membership.Role.LEAD}),
            is_active=True,
        )
    }
    told = set(
        Notification.objects.filter(
            event__deployment__in=pks, event__kind="state", created_at__gt=timezone.now() - QUIET
        ).values_list("user_id", "event__deployment_id")
    )
    found = []
    for event in failures:
        row = rows.get(event.deployment_id or 0)
        if row is None:
            continue
        event.deployment = row
        roles = members.get(row.team_id, {})
        whom = {pk for pk, role in roles.items() if role == Membership.Role.LEAD}
        whom |= {pk for pk in askers[row.pk] if pk in roles or (pk in people and people[pk].rules)}
        found += [
            (people[pk], event, _of_deployment(event))
            for pk in sorted(whom)
            if pk in people and (pk, row.pk) not in told
        ]
    _write(found)


def _deciders(event: Event) -> Q | None:
    """Those who may approve a request; nobody where the team's policy is about to."""
    revision = revision_of(event)
    if revision is None:
        return None
    asks = approvals.asks_of(revision)
    if not asks and revision.deployment.team.policy == Team.Policy.AUTO:
        return None
    whom = admins_now()
    if not needs_admin(asks):
        whom |= _leads(event)
    return whom & ~Q(pk__in=approvals.authors_of(revision))


def _asker(event: Event) -> int | None:
    number = event.data.get("revision")
    # What was decided just now is in hand mostly: then nobody is asked.
    if event.deployment is not None and Deployment.latest.is_cached(event.deployment):
        latest = event.deployment.latest
        if latest is not None and latest.number == number:
            return latest.author_id
    asked = Revision.objects.filter(deployment=event.deployment_id, number=number)
    return asked.values_list("author_id", flat=True).first()


def _its_people(event: Event) -> Q:
    """Who made the deployment, and who asked for its newest revision."""
    asked = Deployment.objects.filter(pk=event.deployment_id or 0)
    return Q(pk__in=asked.values("created_by")) | Q(pk__in=asked.values("latest__author"))


def _admins(event: Event) -> Q:
    return admins_now()


def _leads_and_admins(event: Event) -> Q:
    return _leads(event) | _admins(event)


def _told_of_grant(event: Event) -> Q:
    """Leads and admins; who asked for it hears of the decision instead."""
    return _leads_and_admins(event) & ~Q(pk=event.data.get("author") or 0)


def _joined(event: Event) -> Q | int | None:
    """Who was let in; and every admin where an admin was: a team of theirs is one that they rule."""
    pk = event.data.get("user")
    if not isinstance(pk, int):
        return None
    rules = User.objects.filter(admins_now(), pk=pk).exists()
    return Q(pk=pk) | _admins(event) if rules else pk


def _leads(event: Event) -> Q:
    leads = Membership.objects.in_force().filter(team=event.team_id, role=Membership.Role.LEAD)
    return Q(pk__in=leads.values("user"))


def _named(name: str) -> Callable[[Event], int | None]:
    """The user whose key the event carries under this name."""

    def whom(event: Event) -> int | None:
        pk = event.data.get(name)
        return pk if isinstance(pk, int) else None

    return whom


def _of_deployment(event: Event) -> str:
    return reverse("deployment-detail", args=[event.deployment_id]) if event.deployment_id else ""


def _inbox(event: Event) -> str:
    """The card on which it is decided."""
    if event.kind == "quota_asked":
        card = f"q{event.data.get('request')}"
    else:
        revision = revision_of(event)
        card = f"r{revision.pk}" if revision else ""
    return reverse("approvals") + (f"?team={event.team.slug}" if event.team else "") + f"#{card}"


def _waited(event: Event) -> int | None:
    """Who asked for what waited for quota and starts now."""
    return _asker(event) if event.data.get("waited") else None


def _quotas(event: Event) -> str:
    return reverse("quotas") + (f"?team={event.team.slug}" if event.team else "")


def _quota_requests(event: Event) -> str:
    return reverse("quotas") + "?show=requests" + (f"&team={event.team.slug}" if event.team else "")


def _quota_ends(event: Event) -> str:
    return reverse("quotas") + "?show=ends" + (f"&team={event.team.slug}" if event.team else "")


def _of_key(event: Event) -> Q | int:
    pk = event.data.get("person")
    return pk if isinstance(pk, int) else _leads(event)


def _keys(event: Event) -> str:
    return reverse("keys") + (f"?team={event.team.slug}" if event.team else "")


def _left_keys(event: Event) -> str:
    return reverse("keys") + "?left=1" + (f"&team={event.team.slug}" if event.team else "")


def _credentials(event: Event) -> str:
    return reverse("credentials") + (f"?team={event.team.slug}" if event.team else "")


def _team(event: Event) -> str:
    return reverse("deployment-list") + (f"?team={event.team.slug}" if event.team else "")


def _policies(event: Event) -> str:
    return reverse("approvals-policies")


def _groups(event: Event) -> str:
    return reverse("people-groups")


def _account(event: Event) -> str:
    return reverse("account")


RULES: dict[str, Rule] = {
    # A decision is wanted: those who may decide.
    "requested": Rule(_deciders, _inbox),
    "revised": Rule(_deciders, _inbox),
    "approval_void": Rule(_deciders, _inbox),
    "emergency_called": Rule(_admins, _inbox),
    "quota_asked": Rule(_admins, _inbox),
    # It was decided, or nobody did: who asked.
    "approved": Rule(_asker, _of_deployment),
    "rejected": Rule(_asker, _of_deployment),
    "expired": Rule(_asker, _of_deployment),
    # It was approved without quota, and now has it.
    "gpus_reserved": Rule(_waited, _of_deployment),
    "quota_request_granted": Rule(_named("author"), _quota_requests),
    "quota_denied": Rule(_named("author"), _quota_requests),
    "quota_expired": Rule(_named("author"), _quota_requests),
    # It stops, or goes: who asked for it, if somebody else did that.
    "stopped": Rule(_its_people, _of_deployment),
    "delete_asked": Rule(_its_people, _of_deployment),
    # What a team may hold changed or ends: its leads.
    "quota_granted": Rule(_told_of_grant, _quotas),
    "quota_begun": Rule(_leads, _quotas),
    "quota_ends_soon": Rule(_leads, _quota_ends),
    "quota_ended": Rule(_leads, _quotas),
    # Who rules what changed: every admin hears of it, whoever did it.
    "team_policy": Rule(_admins, _policies),
    "group_rule_added": Rule(_admins, _groups),
    "group_rule_removed": Rule(_admins, _groups),
    # What a team entered is not in use: its leads.
    "credential_refused": Rule(_leads, _credentials),
    "credential_expired": Rule(_leads, _credentials),
    # A key ends soon: whose it is, or the leads of its team.
    "key_ends_soon": Rule(_of_key, _keys),
    # Who made keys of the team leads it no more: who can rotate them.
    "key_maker_left": Rule(_leads_and_admins, _left_keys),
    # Something was done to one's own account.
    "member_added": Rule(_joined, _team),
    "member_changed": Rule(_joined, _team),
    "token_created": Rule(_named("owner"), _account),
    "token_revoked": Rule(_named("owner"), _account),
}
