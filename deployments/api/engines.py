"""Engines: vLLM images, and what they have besides vLLM."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api.base import ApiViewSet, etag, if_match
from deployments.api.bodies import validated
from deployments.api.deployments import PROBLEMS, WRITES
from deployments.engine.plugins import Plugin, unknown
from deployments.services import engines

NAMES = [plugin.value for plugin in Plugin]


class ProfileChange(serializers.Serializer[Any]):
    """What an admin says of an engine: all that its image has besides vLLM."""

    plugins = serializers.ListField(
        child=serializers.ChoiceField(choices=NAMES, error_messages={"invalid_choice": unknown("{input}")}),
        required=False,
        max_length=len(NAMES),
    )


class ProfileAnswer(serializers.Serializer[Any]):
    """A vLLM image, by digest, its version, and what it has besides vLLM."""

    slug = serializers.CharField()
    name = serializers.CharField()
    version = serializers.CharField()
    image = serializers.CharField()
    plugins = serializers.ListField(child=serializers.ChoiceField(choices=NAMES))
    active = serializers.BooleanField(help_text="Offered to wishes")
    default = serializers.BooleanField(help_text="The newest on offer: the request form begins with it")
    deployments = serializers.IntegerField(
        help_text="Deployments that one may see whose newest revision names this engine"
    )


class ProfileViewSet(ApiViewSet):
    """Engines."""

    lookup_value_regex = "[a-z0-9][a-z0-9._-]{0,39}"
    scopes: ClassVar[dict[str, str]] = {"partial_update": "approve"}

    @extend_schema(operation_id="profiles_list", responses={200: ProfileAnswer(many=True), **PROBLEMS})
    def list(self, request: Request) -> Response:
        """The engines that may be chosen, the newest first; to admins also those that are not offered."""
        return Response([_shown(found) for found in engines.engines(self.principal)])

    @extend_schema(responses={200: ProfileAnswer, **PROBLEMS})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One engine; its ETag says how it is now."""
        return _one(engines.engine(self.principal, pk))

    @extend_schema(request=ProfileChange, responses={200: ProfileAnswer, **WRITES})
    def partial_update(self, request: Request, pk: str) -> Response:
        """Say what the image of an engine has besides vLLM (admins). What runs stays as it was signed.

        With If-Match it is changed only while it is as GET showed it; without, the last change counts.
        """
        body = validated(ProfileChange, request)
        row = engines.change(principal=self.principal, slug=pk, plugins=body.get("plugins"), seen=if_match(request))
        return _one(engines.as_seen(self.principal, row))


def _one(found: engines.Engine) -> Response:
    return Response(_shown(found), headers=etag(engines.tag_of(found.profile)))


def _shown(found: engines.Engine) -> dict[str, Any]:
    row = found.profile
    return {
        "slug": row.slug,
        "name": row.name,
        "version": row.version,
        "image": row.image,
        "plugins": row.plugins,
        "active": row.active,
        "default": found.is_default,
        "deployments": found.deployments,
    }
