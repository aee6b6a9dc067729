"""The shapes of endpoint keys and of what they used."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from deployments.api.schemas import WholeNumber
from deployments.services import endpoint_keys as keys


class EndpointKeyBody(serializers.Serializer[Any]):
    """A new key: of the team, or with `personal` of the caller alone; for some deployments, or for all."""

    team = serializers.SlugField(max_length=20)
    name = serializers.CharField(max_length=80)
    personal = serializers.BooleanField(default=False)
    every_deployment = serializers.BooleanField(default=False, help_text="All of the team, those to come too")
    deployments = serializers.ListField(
        child=WholeNumber(min_value=1), required=False, max_length=keys.MOST_DEPLOYMENTS, help_text="Ids"
    )
    days = WholeNumber(min_value=1, max_value=keys.MOST_DAYS, default=keys.DEFAULT_DAYS)
    requests_per_minute = WholeNumber(min_value=1, max_value=keys.MOST_REQUESTS, required=False, allow_null=True)
    tokens_per_minute = WholeNumber(min_value=1, max_value=keys.MOST_TOKENS, required=False, allow_null=True)


class RotateBody(serializers.Serializer[Any]):
    """For how long the old key goes on beside its successor; 0: it ends now."""

    grace_hours = WholeNumber(min_value=0, max_value=keys.MOST_GRACE_HOURS, default=keys.DEFAULT_GRACE_HOURS)


class EndpointKeyAnswer(serializers.Serializer[Any]):
    """A key without its text. `person` is null for a key of the team; `replaces` is the key it was rotated from."""

    id = serializers.IntegerField()
    team = serializers.SlugField()
    person = serializers.CharField(allow_null=True)
    name = serializers.CharField()
    prefix = serializers.CharField()
    every_deployment = serializers.BooleanField()
    deployments = serializers.ListField(child=serializers.IntegerField())
    requests_per_minute = serializers.IntegerField(allow_null=True)
    tokens_per_minute = serializers.IntegerField(allow_null=True)
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)
    replaces = serializers.IntegerField(allow_null=True)


class NewEndpointKeyAnswer(EndpointKeyAnswer):
    """A new key with its text, which is never shown again."""

    key = serializers.CharField()


class KeyUsageAnswer(serializers.Serializer[Any]):
    """What a key used of one deployment in one hour; `refused` were over a limit."""

    id = serializers.IntegerField()
    deployment = serializers.IntegerField()
    hour = serializers.DateTimeField(help_text="Its beginning")
    requests = serializers.IntegerField()
    refused = serializers.IntegerField()
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
