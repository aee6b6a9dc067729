"""What the API says of the catalogue, and takes."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from deployments.services.catalogue import CAPABILITIES, LONGEST


class CatalogPreset(serializers.Serializer[Any]):
    """Settings for one kind of GPU. `fit` is fits or tight, null while the model's shape is not known."""

    flavor = serializers.SlugField()
    args = serializers.JSONField()
    replicas = serializers.IntegerField()
    gpus = serializers.IntegerField(help_text="GPUs of all replicas")
    fit = serializers.CharField(allow_null=True)
    concurrency = serializers.FloatField(allow_null=True, help_text="Requests of full length at once, per replica")
    fits_quota = serializers.BooleanField(help_text="The quota of an own team takes it now")


class CatalogAnswer(serializers.Serializer[Any]):
    """A model that the platform recommends; `presets` are those of flavors that are offered and hold it."""

    slug = serializers.CharField()
    name = serializers.CharField()
    uri = serializers.CharField()
    revision = serializers.CharField()
    summary = serializers.CharField()
    licence = serializers.CharField()
    gated = serializers.BooleanField()
    parameters_billion = serializers.FloatField()
    context_length = serializers.IntegerField(allow_null=True, help_text="Tokens that the model was trained for")
    capabilities = serializers.ListField(child=serializers.CharField())
    flavor = serializers.CharField(help_text="Suggested flavor")
    args = serializers.JSONField(help_text="Flags of every preset")
    presets = CatalogPreset(many=True)
    fits_quota = serializers.BooleanField()
    pinned = serializers.BooleanField()
    active = serializers.BooleanField()
    own = serializers.BooleanField(help_text="An admin added it here: it can be changed and taken out")


class CatalogBody(serializers.Serializer[Any]):
    """A model to recommend."""

    uri = serializers.CharField(max_length=LONGEST["uri"], help_text="hf://owner/name")
    revision = serializers.CharField(max_length=LONGEST["revision"], required=False, allow_blank=True)
    name = serializers.CharField(max_length=LONGEST["name"], required=False, allow_blank=True)
    summary = serializers.CharField(max_length=LONGEST["summary"], required=False, allow_blank=True)
    capabilities = serializers.ListField(
        child=serializers.ChoiceField(choices=list(CAPABILITIES)), required=False, max_length=len(CAPABILITIES)
    )


EDITS = ("name", "summary", "capabilities", "revision")


class CatalogChange(serializers.Serializer[Any]):
    """Whether it is shown, and whether it stands at the top; of a model that an admin added also what is said of it."""

    active = serializers.BooleanField(required=False)
    pinned = serializers.BooleanField(required=False)
    name = serializers.CharField(max_length=LONGEST["name"], required=False, allow_blank=True)
    summary = serializers.CharField(max_length=LONGEST["summary"], required=False, allow_blank=True)
    capabilities = serializers.ListField(
        child=serializers.ChoiceField(choices=list(CAPABILITIES)), required=False, max_length=len(CAPABILITIES)
    )
    revision = serializers.CharField(
        max_length=LONGEST["revision"], required=False, allow_blank=True, help_text="Empty: the newest, pinned"
    )
