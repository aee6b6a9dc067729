"""Models that people pick from, engines that run them, and what the hub said about a model."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class EngineProfile(models.Model):
    """A vLLM image (by digest) and the version whose flags it knows."""

    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=60)
    version = models.CharField(max_length=20)
    image = models.CharField(max_length=300)
    active = models.BooleanField(default=True)

    def __str__(self) -> str:
        return self.name


class CatalogEntry(models.Model):
    """A model that the platform recommends, with arguments that are known to work."""

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=80)
    uri = models.CharField(max_length=300)
    summary = models.CharField(max_length=300)
    licence = models.CharField(max_length=60, blank=True)
    gated = models.BooleanField(default=False)
    parameters_billion = models.DecimalField(max_digits=7, decimal_places=2)
    flavor = models.SlugField(max_length=40, blank=True, help_text="Suggested flavor")
    args = models.JSONField(default=dict)
    position = models.PositiveIntegerField(default=0)
    active = models.BooleanField(default=True)

    class Meta:
        ordering = ["position", "name"]

    def __str__(self) -> str:
        return self.name


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
