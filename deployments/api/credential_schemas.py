"""The shapes of credentials. Their values only ever come in."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from deployments.models import Credential
from deployments.services.credential_values import NAMES, PARTS

_PARTS = {part.name: part for parts in PARTS.values() for part in parts}


class _Parts(serializers.Serializer[Any]):
    """What is entered, by kind: each kind takes its own parts and no others."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        """The parts of all kinds; which of them are needed is the service's to say."""
        parts = {
            name: serializers.CharField(
                write_only=True,
                required=False,
                allow_blank=True,
                trim_whitespace=False,
                max_length=part.longest,
                help_text=f"{part.label}. {part.help}".strip(),
            )
            for name, part in _PARTS.items()
        }
        return {**super().get_fields(), **parts}


class CredentialBody(_Parts):
    """A new credential. `test_uri` is a model of its kind of source that it is tested with.

    A token of the hub may be tested with a model and LoRA adapters: their addresses, with a space between.
    """

    team = serializers.SlugField(max_length=20)
    name = serializers.CharField(max_length=40)
    kind = serializers.ChoiceField(
        Credential.Kind.choices,
        # The usual message repeats what was sent, which may be a value in the wrong place.
        error_messages={"invalid_choice": f"Choose one of: {', '.join(Credential.Kind.values)}."},
    )
    test_uri = serializers.CharField(max_length=512, required=False, allow_blank=True)


class CredentialRotateBody(_Parts):
    """A new value for a credential. Without `test_uri` it is tested with the model of the last test."""

    test_uri = serializers.CharField(max_length=512, required=False, allow_blank=True)


class CredentialTestAnswer(serializers.Serializer[Any]):
    """What the server said that the credential opens, when its value was entered."""

    at = serializers.DateTimeField()
    code = serializers.CharField(
        help_text="found: accepted; gated, not_found, bad_token, unreachable or unusable: why not"
    )
    message = serializers.CharField()
    remedy = serializers.CharField()
    uri = serializers.CharField(help_text="The model it was tested with; empty: none")


class CredentialAnswer(serializers.Serializer[Any]):
    """A credential without its value. `problem` says why the value that was entered last is not in use."""

    id = serializers.IntegerField()
    team = serializers.SlugField()
    name = serializers.CharField()
    kind = serializers.ChoiceField(Credential.Kind.choices)
    state = serializers.ChoiceField(Credential.State.choices)
    problem = serializers.CharField()
    fingerprint = serializers.CharField(help_text="Of the value in use, or of the one that is being stored")
    settings = serializers.DictField(child=serializers.CharField(), help_text="What is no secret: endpoint, region …")
    tested = CredentialTestAnswer(allow_null=True)
    used_by = serializers.ListField(child=serializers.CharField(), help_text="Names of deployments")
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    last_used_at = serializers.DateTimeField(allow_null=True)


def parts_of(body: dict[str, Any]) -> dict[str, Any]:
    """What was entered, out of a validated body."""
    return {name: body[name] for name in NAMES if name in body}
