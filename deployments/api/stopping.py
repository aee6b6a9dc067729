"""Stopping several deployments at once."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import schemas
from deployments.api.base import ApiViewSet
from deployments.api.bodies import validated
from deployments.api.deployments import PROBLEMS
from deployments.services import stopping


class StopBody(serializers.Serializer[Any]):
    """Several deployments to stop, and why."""

    ids = serializers.ListField(
        child=schemas.WholeNumber(min_value=1, max_value=10**18), min_length=1, max_length=stopping.MOST
    )
    reason = serializers.CharField(max_length=stopping.MOST_WORDS, required=False, allow_blank=True)


class StoppedAnswer(serializers.Serializer[Any]):
    """What became of one of them."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    outcome = serializers.ChoiceField(choices=stopping.OUTCOMES)
    message = serializers.CharField()


class StoppingViewSet(ApiViewSet):
    """Several deployments at once."""

    @extend_schema(
        operation_id="deployments_stop_several",
        request=StopBody,
        responses={200: StoppedAnswer(many=True), **PROBLEMS, 422: schemas.Problem},
    )
    def create(self, request: Request) -> Response:
        """Stop several, each on its own: the answer says what became of each."""
        body = validated(StopBody, request)
        results = stopping.stop_all(principal=self.principal, pks=body["ids"], reason=body.get("reason", ""))
        return Response(
            [{"id": one.pk, "name": one.name, "outcome": one.outcome, "message": one.message} for one in results]
        )
