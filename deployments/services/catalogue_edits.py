"""Models that admins added to the catalogue: their words and version change, and they go again.

Those that come with Slipway stay as they are: they are hidden where nobody wants them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from deployments.engine.facts import ModelFacts
from deployments.engine.profiles import DATA
from deployments.models import CatalogEntry, Principal
from deployments.services import catalogue, events, model_checks
from deployments.services.errors import Checks, ConflictError, MissingError
from deployments.services.transactions import in_transaction

WORDS = ("name", "summary", "capabilities")
LOOKED_UP = ("revision", "licence", "gated", "parameters_billion", "context", "flavor", "presets", "facts")


@cache
def seeded() -> frozenset[str]:
    """Addresses of the models that come with Slipway."""
    rows = json.loads((DATA / "catalog.json").read_text(encoding="utf-8"))["models"]
    return frozenset(row["uri"] for row in rows)


def is_own(row: CatalogEntry) -> bool:
    """True for what an admin added here."""
    return row.uri not in seeded()


def edit(
    *,
    principal: Principal,
    slug: str,
    name: object = None,
    summary: object = None,
    capabilities: object = None,
    revision: object = None,
) -> CatalogEntry:
    """Say something else of a model, or pin it to another version; None leaves as it is.

    With a version it is looked up again (at most once, outside of the transaction) and gets settings anew, and with an
    empty one the newest. InvalidError names the field, ConflictError is for models that come with Slipway.
    """
    row = _own(principal, slug, lock=False)
    checks = Checks()
    clean: dict[str, Any] = {}
    nothing: list[str] = []
    for field, value in (("name", name), ("summary", summary), ("revision", revision)):
        if value is not None:
            clean[field] = checks.of(partial(catalogue.line_for, field, value), "")
    if capabilities is not None:
        clean["capabilities"] = checks.of(partial(catalogue.capabilities_of, capabilities), nothing)
    checks.done()
    model = None
    if "revision" in clean:
        found = model_checks.look_up(row.uri, clean["revision"] or None)
        model = catalogue.usable(found, field="revision")
        clean["revision"] = model_checks.commit_of(row.uri, clean["revision"] or None, found) or clean["revision"]
    return _edit(principal, slug, clean, model)


@in_transaction
def delete(*, principal: Principal, slug: str) -> None:
    """Take a model that somebody added out of the catalogue; what runs of it goes on."""
    row = _own(principal, slug)
    before = {field: getattr(row, field) for field in ("uri", "revision", *WORDS, "presets")}
    row.delete()
    events.record(
        kind="catalogue_removed",
        message=f"{row.name} is no longer in the catalogue",
        actor=principal.user,
        data={"model": slug, "before": before},
    )


@in_transaction
def _edit(principal: Principal, slug: str, clean: Mapping[str, Any], model: ModelFacts | None) -> CatalogEntry:
    row = _own(principal, slug)
    fields = [*WORDS, *(LOOKED_UP if model is not None else ())]
    before = {field: _plain(getattr(row, field)) for field in fields}
    for field in WORDS:
        setattr(row, field, clean.get(field, getattr(row, field)))
    row.name = row.name or row.uri.rpartition("/")[2][:80]
    if model is not None:
        for field, value in {**catalogue.looked_up(model), "revision": clean["revision"]}.items():
            setattr(row, field, value)
    changed = events.changed(before, {field: _plain(getattr(row, field)) for field in fields})
    if not changed["after"]:
        return row
    row.save(update_fields=fields)
    events.record(
        kind="catalogue_edited",
        message=f"{row.name} in the catalogue is changed",
        actor=principal.user,
        data={"model": row.slug, **changed},
    )
    return row


def _own(principal: Principal, slug: str, *, lock: bool = True) -> CatalogEntry:
    catalogue.needs_admin(principal)
    rows = CatalogEntry.objects.editable_by(principal)
    rows = rows.select_for_update() if lock else rows
    row = rows.filter(slug=slug).first() if "\0" not in slug else None
    if row is None:
        raise MissingError("There is no such model in the catalogue.")
    if not is_own(row):
        words = f"{row.name} comes with Slipway and stays as it is: hide it, or add a model of your own."
        raise ConflictError(words, code="comes_with_slipway")
    return row


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | bool | list | dict | None) else float(value)
