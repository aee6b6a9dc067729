"""How rows look in the API. Lists come from `.values()` and never build model objects."""

from __future__ import annotations

from typing import Any, TypeAlias

from django.conf import settings
from django.db.models import F, QuerySet

from deployments.manifests import route_prefix
from deployments.models import ApiToken, Deployment, Event, QuotaGrant, Reservation, Revision

Rows: TypeAlias = QuerySet[Any, Any]

DEPLOYMENT_FIELDS = (
    "id",
    "name",
    "state",
    "state_since",
    "reason",
    "detail",
    "wanted",
    "created_at",
    "updated_at",
)


def deployments(rows: QuerySet[Deployment]) -> Rows:
    """The columns of a deployment as the API shows it (one query)."""
    shown: Rows = rows.values(
        *DEPLOYMENT_FIELDS,
        team_slug=F("team__slug"),
        namespace=F("team__namespace"),
        by=F("created_by__username"),
        revision=F("latest__number"),
        verdict=F("latest__verdict"),
        digest=F("latest__digest"),
        flavor=F("latest__flavor__slug"),
        gpus=F("latest__gpus"),
        spec=F("latest__spec"),
        approved_revision=F("approved__number"),
        applied_revision=F("applied__number"),
    )
    return shown


def deployment(row: dict[str, Any]) -> dict[str, Any]:
    """One of those rows in the shape that `POST` takes, with what is known beside it."""
    namespace = row.pop("namespace")
    return {
        "id": row.pop("id"),
        "team": row.pop("team_slug"),
        "name": row["name"],
        "spec": row.pop("spec"),
        **_renamed(row, by="created_by"),
        "endpoint": f"{settings.GATEWAY_PUBLIC_URL.rstrip('/')}{route_prefix(namespace, row['name'])}/v1",
    }


def revisions(rows: QuerySet[Revision]) -> Rows:
    """The columns of a revision, without its objects."""
    return rows.values(
        "id",
        "number",
        "spec",
        "resolution",
        "digest",
        "gpus",
        "surge",
        "guarded",
        "findings",
        "verdict",
        "note",
        "created_at",
        flavor_slug=F("flavor__slug"),
        author_name=F("author__username"),
    )


def revision(row: dict[str, Any]) -> dict[str, Any]:
    """One of those rows."""
    return _renamed(row, flavor_slug="flavor", author_name="author")


def events(rows: QuerySet[Event]) -> Rows:
    """The columns of an event."""
    return rows.values(
        "id",
        "kind",
        "level",
        "message",
        "data",
        "request_id",
        "created_at",
        "deployment_id",
        team_slug=F("team__slug"),
        actor_name=F("actor__username"),
    )


def event(row: dict[str, Any]) -> dict[str, Any]:
    """One of those rows."""
    return _renamed(row, team_slug="team", actor_name="actor", deployment_id="deployment")


def grants(rows: QuerySet[QuotaGrant]) -> Rows:
    """The columns of a grant."""
    return rows.values(
        "id",
        "gpus",
        "valid_from",
        "valid_until",
        "comment",
        "created_at",
        team_slug=F("team__slug"),
        flavor_slug=F("flavor__slug"),
        by=F("granted_by__username"),
    )


def grant(row: dict[str, Any]) -> dict[str, Any]:
    """One of those rows."""
    return _renamed(row, team_slug="team", flavor_slug="flavor", by="granted_by")


def reservations(rows: QuerySet[Reservation]) -> Rows:
    """The columns of a line of the ledger."""
    return rows.values(
        "id",
        "delta",
        "balance_before",
        "kind",
        "reason",
        "created_at",
        "deployment_id",
        team_slug=F("account__team__slug"),
        flavor_slug=F("account__flavor__slug"),
        revision_number=F("revision__number"),
        actor_name=F("actor__username"),
    )


def reservation(row: dict[str, Any]) -> dict[str, Any]:
    """One of those rows."""
    return _renamed(
        row,
        team_slug="team",
        flavor_slug="flavor",
        revision_number="revision",
        actor_name="actor",
        deployment_id="deployment",
    )


def tokens(rows: QuerySet[ApiToken]) -> Rows:
    """The columns of a token: never its digest."""
    return rows.values("id", "name", "prefix", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")


def _renamed(row: dict[str, Any], **names: str) -> dict[str, Any]:
    # values() cannot name an annotation like a column of the model.
    return {names.get(key, key): value for key, value in row.items()}
