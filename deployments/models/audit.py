"""The append-only record of who did what, and what happened by itself."""

from __future__ import annotations

import re
from datetime import datetime

from django.contrib.postgres.indexes import BrinIndex, GinIndex
from django.contrib.postgres.search import SearchQuery, SearchVector
from django.db import connection, models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Now
from django.utils import timezone

from .accounts import Principal, Team, User
from .deployment import Deployment

# Letters and digits alone: PostgreSQL's parser would take “Qwen2.5-7B” for the name of a host.
_PLAIN = Func(
    F("message"),
    Value("[^[:alnum:]]+"),
    Value(" "),
    Value("g"),
    function="regexp_replace",
    output_field=models.TextField(),
)
WORDS = SearchVector(_PLAIN, config="simple")
REQUEST_ID = re.compile(r"[0-9a-f]{32}")
NO_LIMIT = 2**62
MOST_WORDS = 8


class EventQuerySet(models.QuerySet["Event"]):
    def visible_to(self, principal: Principal) -> EventQuerySet:
        """Events of the teams that the principal may see; an admin also sees those of no team."""
        return self.all() if principal.sees_all else self.filter(team__in=Team.objects.visible_to(principal))

    def auditable_by(self, principal: Principal) -> EventQuerySet:
        """Events that the principal answers for: of the teams they lead, for an admin all."""
        if principal.is_admin:
            return self.visible_to(principal)
        return self.visible_to(principal).filter(team__in=Team.objects.led_by(principal))

    def narrowed(
        self,
        *,
        team: str = "",
        actor: str = "",
        kind: str = "",
        level: str = "",
        deployment: str | int = "",
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> EventQuerySet:
        """Those of a team (slug), an actor (user name), a deployment (id or name), from `since` and before `until`.

        A `kind` that ends with * stands for all that begin so.
        """
        rows = self
        if kind.endswith("*"):
            rows, kind = rows.filter(kind__startswith=kind[:-1]), ""
        for column, value in (("team__slug", team), ("actor__username", actor), ("kind", kind), ("level", level)):
            if value:
                rows = rows.filter(**{column: value})
        if isinstance(deployment, int):
            rows = rows.filter(deployment_id=deployment)
        elif deployment:
            rows = rows.filter(deployment__name=deployment)
        if since is not None:
            rows = rows.filter(created_at__gte=since)
        return rows if until is None else rows.filter(created_at__lt=until)

    def search(self, text: str) -> EventQuerySet:
        """Those whose message holds words that begin with each word of `text`; a request id finds what it caused."""
        if REQUEST_ID.fullmatch(text.strip()):
            return self.filter(request_id=text.strip())
        words = re.findall(r"[^\W_]+", text)[:MOST_WORDS]
        if not words:
            return self.none() if text.strip() else self
        query = SearchQuery(" & ".join(f"'{word}':*" for word in words), search_type="raw", config="simple")
        # With a limit, however high, PostgreSQL looks for the words on their own, by their index. Without, it believes
        # that a rare word will soon turn up among the newest, and reads every event there is.
        found = Event.objects.alias(words=WORDS).filter(words=query).order_by()
        return self.filter(pk__in=found.values("pk")[:NO_LIMIT])

    def kinds(self) -> list[str]:
        """Every kind that there is. One index probe for each: it takes no longer with more events."""
        with connection.cursor() as cursor:
            cursor.execute(_KINDS)
            return [kind for (kind,) in cursor.fetchall()]


_KINDS = """
WITH RECURSIVE found AS (
    (SELECT kind FROM deployments_event ORDER BY kind LIMIT 1)
    UNION ALL
    SELECT (SELECT e.kind FROM deployments_event e WHERE e.kind > found.kind ORDER BY e.kind LIMIT 1)
      FROM found WHERE found.kind IS NOT NULL
) SELECT kind FROM found WHERE kind IS NOT NULL
"""


class Event(models.Model):
    """One line of a timeline. Rows are never changed or removed (a trigger refuses)."""

    class Level(models.TextChoices):
        INFO = "info", "Info"
        GOOD = "good", "Good"
        WARNING = "warning", "Warning"
        BAD = "bad", "Bad"

    team = models.ForeignKey(Team, null=True, on_delete=models.PROTECT, related_name="events")
    deployment = models.ForeignKey(Deployment, null=True, on_delete=models.PROTECT, related_name="events")
    actor = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=40)
    level = models.CharField(max_length=8, choices=Level, default=Level.INFO)
    message = models.CharField(max_length=500)
    data = models.JSONField(default=dict)
    request_id = models.CharField(max_length=40, blank=True)
    # Where the request came from; for admins alone. Empty for what no request did.
    address = models.CharField(max_length=45, blank=True, default="", db_default="")
    created_at = models.DateTimeField(default=timezone.now)

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["deployment", "-id"], name="event_timeline"),
            models.Index(fields=["team", "-id"], name="event_team"),
            models.Index(fields=["actor", "-id"], name="event_actor"),
            models.Index(fields=["kind", "-id"], name="event_kind"),
            models.Index(fields=["-id"], condition=Q(level__in=["warning", "bad"]), name="event_trouble"),
            models.Index(fields=["request_id"], condition=~Q(request_id=""), name="event_request"),
            BrinIndex(fields=["created_at"], name="event_age"),
            GinIndex(WORDS, name="event_words"),
        ]

    def __str__(self) -> str:
        return self.message


class AuditSeal(models.Model):
    """A batch of events that is complete, bound to the batch before it (`services.seals`). Rows are never changed."""

    first = models.BigIntegerField()
    last = models.BigIntegerField(unique=True)
    # Key and SHA-256 of each event, one after the other: 40 bytes each.
    entries = models.BinaryField()
    digest = models.CharField(max_length=64)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"events {self.first} to {self.last}"
