"""Engines: which are offered, who runs on them, and what their images have besides vLLM, which admins say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from django.db.models import Count

from deployments.engine.plugins import plugins_from
from deployments.models import Deployment, EngineProfile, Principal, User
from deployments.models.catalog import may_edit as may_edit
from deployments.services import events
from deployments.services.errors import InvalidError, MissingError, NotAllowedError, StaleError
from deployments.services.facts import stands_in
from deployments.services.transactions import in_transaction
from deployments.spec import DeploymentSpec
from deployments.spec_errors import FieldError, profile_named
from deployments.spec_errors import parse_spec as parse_with

PLUGINS = "plugins"


@dataclass(frozen=True)
class Engine:
    """An engine as a principal sees it: `deployments` counts those visible to them whose newest revision names it."""

    profile: EngineProfile
    is_default: bool
    deployments: int

    @property
    def stands_in(self) -> bool:
        """True while its image stands for the sandbox's, and could not be pulled by a cluster."""
        return stands_in(self.profile)


def engines(principal: Principal) -> list[Engine]:
    """All engines that the principal may see, the newest first."""
    return _as_seen(principal, EngineProfile.objects.visible_to(principal).newest_first())


def engine(principal: Principal, slug: str) -> Engine:
    """One of them; MissingError where there is none of that name, or the principal may not know of it."""
    for found in engines(principal):
        if found.profile.slug == slug:
            return found
    raise MissingError("There is no such engine.")


def as_seen(principal: Principal, row: EngineProfile) -> Engine:
    """An engine that the principal has just changed, also with a token that only writes."""
    return _as_seen(principal, [row])[0]


def _as_seen(principal: Principal, rows: list[EngineProfile]) -> list[Engine]:
    offered = EngineProfile.objects.offered().newest_first()
    named = Deployment.objects.alive().visible_to(principal).values_list("latest__spec__engine__profile")
    users = dict(named.annotate(count=Count("pk")).order_by())
    return [Engine(row, row in offered[:1], users.get(row.slug, 0)) for row in rows]


@in_transaction
def change(*, principal: Principal, slug: str, plugins: object = None, seen: str | None = None) -> EngineProfile:
    """Say what the image of an engine has besides vLLM; None leaves it as it is. Later revisions follow.

    InvalidError names a plugin that is not known. StaleError where the engine is not as its `tag_of` that was `seen`
    says.
    """
    if not may_edit(principal):
        raise NotAllowedError("Only an admin says what engines have.")
    rows = EngineProfile.objects.editable_by(principal).select_for_update(no_key=True)
    row = rows.filter(slug=slug).first() if "\0" not in slug else None
    if row is None:
        raise MissingError("There is no such engine.")
    if seen is not None and seen != tag_of(row):
        having = row.having or "nothing"
        raise StaleError(f"Somebody changed this engine meanwhile: besides vLLM it has {having} now. Look at it again.")
    if plugins is not None:
        if not isinstance(plugins, list):
            raise InvalidError("Must be a list of plugins.", field=PLUGINS, pointer=f"/{PLUGINS}")
        try:
            give(row, plugins, actor=principal.user)
        except ValueError as error:
            raise InvalidError(str(error), field=PLUGINS, pointer=f"/{PLUGINS}", code="plugin_unknown") from None
    return row


def move(row: EngineProfile, image: str, *, actor: User | None = None) -> bool:
    """Offer an engine with another image; returns whether that is new.

    What was said of the image before is not said of another digest: its plugins are taken back.
    """
    before, having, same = _as_said(row), row.having, _digest(row.image) == _digest(image)
    row.image, row.active, row.plugins = image, True, row.plugins if same else []
    after = _as_said(row)
    if before == after:
        return False
    row.save(update_fields=["image", "active", PLUGINS])
    gone = f" {having} were said of another one: say again what this has." if after[PLUGINS] != before[PLUGINS] else ""
    events.record(
        kind="engine_changed",
        message=f"The image of {row.name} is {image}.{gone}" if gone else f"The image of {row.name} is {image}",
        actor=actor,
        data={"engine": row.slug, "before": before, "after": after},
    )
    return True


def give(row: EngineProfile, names: Iterable[object], *, actor: User | None = None) -> bool:
    """Store which plugins an image has; returns whether that is new. ValueError for one that is not known."""
    before, after = list(row.plugins), [plugin.value for plugin in plugins_from(names)]
    if before == after:
        return False
    row.plugins = after
    row.save(update_fields=[PLUGINS])
    events.record(
        kind="engine_changed",
        message=f"Besides vLLM the image of {row.name} has {row.having or 'nothing'}",
        actor=actor,
        data={"engine": row.slug, "before": {PLUGINS: before}, "after": {PLUGINS: after}},
    )
    return True


def parse_spec(data: object) -> tuple[DeploymentSpec | None, list[FieldError]]:
    """The spec in `data`, or what is wrong with it; its flags are those of the engine that is stored by that name."""
    spec, problems = parse_with(data)
    slug = profile_named(data)
    # Only where something is wrong: what is right is right whoever looks at it.
    row = EngineProfile.objects.filter(slug=slug).first() if problems and "\0" not in slug else None
    return parse_with(data, row.version) if row is not None else (spec, problems)


def _as_said(row: EngineProfile) -> dict[str, object]:
    return {"image": row.image, "active": row.active, PLUGINS: list(row.plugins)}


def _digest(image: str) -> str:
    return image.rpartition("@")[2]


def tag_of(row: EngineProfile) -> str:
    """A word for how an engine is now: another one as soon as its image or its plugins are others."""
    return sha256(" ".join((row.slug, row.image, str(row.active), *row.plugins)).encode()).hexdigest()[:16]
