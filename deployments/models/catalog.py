"""Models that people pick from, engines that run them, and what the hub said about a model."""

from __future__ import annotations

from dataclasses import replace

from django.db import models
from django.utils import timezone

from deployments.engine.facts import ModelFacts
from deployments.engine.flags import release
from deployments.engine.plugins import LABELS, plugins_from
from deployments.engine.proposals import Preset

from .accounts import Principal


class EngineQuerySet(models.QuerySet["EngineProfile"]):
    """The doors to engines."""

    def offered(self) -> EngineQuerySet:
        """Those that wishes may choose."""
        return self.filter(active=True)

    def visible_to(self, principal: Principal) -> EngineQuerySet:
        """What is offered; to those who say what engines have also what is not."""
        if not principal.may("read"):
            return self.none()
        return self.all() if may_edit(principal) else self.offered()

    def editable_by(self, principal: Principal) -> EngineQuerySet:
        """Those that the principal may change: all of them, for admins whose token is bound to no team."""
        return self.all() if may_edit(principal) else self.none()

    def newest_first(self) -> list[EngineProfile]:
        """By version as numbers: 0.9 is older than 0.32."""
        return sorted(self.order_by("slug"), key=lambda row: release(row.version), reverse=True)


class EngineProfile(models.Model):
    """A vLLM image (by digest) and the version whose flags it knows."""

    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=60)
    version = models.CharField(max_length=20)
    image = models.CharField(max_length=300)
    plugins = models.JSONField(  # deployments.engine.plugins.Plugin
        default=list, blank=True, help_text="Packages in the image besides vLLM, for example gguf"
    )
    active = models.BooleanField(default=True)

    objects = EngineQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def having(self) -> str:
        """What its image has besides vLLM, in words; empty for nothing."""
        return " and ".join(LABELS[plugin] for plugin in plugins_from(self.plugins))

    @property
    def title(self) -> str:
        """The name, with what its image has besides vLLM."""
        return f"{self.name} with {self.having}" if self.having else self.name


class CatalogQuerySet(models.QuerySet["CatalogEntry"]):
    """The doors to recommended models."""

    def offered(self) -> CatalogQuerySet:
        """Those that people pick from: nobody hid them."""
        return self.filter(active=True)

    def visible_to(self, principal: Principal) -> CatalogQuerySet:
        """What is offered; to those who edit the catalogue also what is hidden."""
        if not principal.may("read"):
            return self.none()
        return self.all() if may_edit(principal) else self.offered()

    def editable_by(self, principal: Principal) -> CatalogQuerySet:
        """Those that the principal may pin and hide: all of them, for admins whose token is bound to no team."""
        return self.all() if may_edit(principal) else self.none()


def may_edit(principal: Principal) -> bool:
    """True for those who say what the catalogue and engines hold: admins, with a token that is bound to no team."""
    return principal.is_admin and principal.may("approve") and principal.team_ids is None


class CatalogEntry(models.Model):
    """A model that the platform recommends, with settings that are known to work.

    `args` hold for every preset; without presets they are one, on `flavor`. `facts` is what the memory estimate knows.
    """

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=80)
    uri = models.CharField(max_length=300)
    revision = models.CharField(max_length=128, blank=True, help_text="Commit that the presets were made for")
    summary = models.CharField(max_length=300)
    licence = models.CharField(max_length=60, blank=True)
    gated = models.BooleanField(default=False)
    parameters_billion = models.DecimalField(max_digits=7, decimal_places=2)
    context = models.PositiveIntegerField(null=True, blank=True, help_text="Tokens that the model was trained for")
    capabilities = models.JSONField(default=list)
    flavor = models.SlugField(max_length=40, blank=True, help_text="Suggested flavor")
    args = models.JSONField(default=dict)
    presets = models.JSONField(default=list)  # deployments.engine.proposals.Preset as JSON, the suggested one first
    facts = models.JSONField(default=dict)  # deployments.engine.facts.ModelFacts as JSON
    position = models.PositiveIntegerField(default=0)
    pinned = models.BooleanField(default=False)
    active = models.BooleanField(default=True)

    objects = CatalogQuerySet.as_manager()

    class Meta:
        ordering = ["-pinned", "position", "name"]

    def __str__(self) -> str:
        return self.name

    @property
    def choices(self) -> list[Preset]:
        """The presets with the flags that hold for each, the suggested one first."""
        stored = [Preset.from_json(item) for item in self.presets]
        if not stored and self.flavor:
            stored = [Preset(self.flavor)]
        return [replace(preset, args={**self.args, **preset.args}) for preset in stored]

    @property
    def model(self) -> ModelFacts | None:
        """What the memory estimate knows of it; None where nobody looked."""
        if not self.facts:
            return None
        known = {"id": self.uri.partition("://")[2], "sha": self.revision, "gated": self.gated}
        return ModelFacts.from_json({**self.facts, **known})


class ModelCheck(models.Model):
    """What the source said about a model the last time somebody asked: a cache, never the truth."""

    uri = models.CharField(max_length=512)
    revision = models.CharField(max_length=128, blank=True)
    result = models.CharField(max_length=20)  # deployments.sources.checks.SourceCode
    message = models.CharField(max_length=500, blank=True)
    remedy = models.CharField(max_length=500, blank=True)
    commit = models.CharField(max_length=64, blank=True)
    facts = models.JSONField(default=dict)  # deployments.sources ModelFacts as JSON
    checked_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["uri", "revision"], name="one_check_per_source")]

    def __str__(self) -> str:
        return f"{self.uri}: {self.result}"
