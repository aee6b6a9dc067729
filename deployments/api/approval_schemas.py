"""The shapes of what waits, of decisions about several, of emergencies and of policies."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from deployments.api.schemas import AskAnswer, WholeNumber
from deployments.models import Team
from deployments.services import deciding, inbox, policies

OUTCOMES = (deciding.DECIDED, *(word for _, word in deciding.OUTCOMES), "refused")


class EmergencyAnswer(serializers.Serializer[Any]):
    """An admin's call to let through what its authors alone could approve; `digest` is what a second admin signs."""

    id = serializers.IntegerField()
    deployment = serializers.IntegerField()
    revision = serializers.IntegerField()
    digest = serializers.CharField()
    reason = serializers.CharField()
    called_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()


class MayAnswer(serializers.Serializer[Any]):
    """What the caller may say about it, and why not more."""

    approve = serializers.BooleanField()
    reject = serializers.BooleanField()
    why = serializers.CharField()


class WaitingAnswer(serializers.Serializer[Any]):
    """One thing that waits: a revision (`id` is the revision's, `digest` what is signed) or a request for quota."""

    kind = serializers.ChoiceField(choices=inbox.KINDS)
    id = serializers.IntegerField()
    team = serializers.SlugField()
    deployment = serializers.IntegerField(allow_null=True)
    name = serializers.CharField()
    revision = serializers.IntegerField(allow_null=True)
    digest = serializers.CharField()
    flavor = serializers.SlugField()
    gpus = serializers.IntegerField()
    month = serializers.FloatField(help_text="Cost of a month at its most, in the currency of the flavors' prices")
    quota_limit = serializers.IntegerField()
    quota_left = serializers.IntegerField(help_text="GPUs of the team's quota that it leaves; negative: beyond it")
    valid_from = serializers.DateTimeField(allow_null=True)
    valid_until = serializers.DateTimeField(allow_null=True)
    author = serializers.CharField()
    why = serializers.CharField()
    asks = AskAnswer(many=True)
    may = MayAnswer()
    emergency = EmergencyAnswer(allow_null=True)
    created_at = serializers.DateTimeField()


class WaitingPage(serializers.Serializer[Any]):
    """One page, the oldest first."""

    results = WaitingAnswer(many=True)
    next = serializers.URLField(allow_null=True, help_text="The next page; null on the last")


class ItemBody(serializers.Serializer[Any]):
    """One thing to decide about; a revision is named by its digest too."""

    kind = serializers.ChoiceField(choices=inbox.KINDS)
    id = WholeNumber(min_value=1, max_value=10**18)
    digest = serializers.CharField(max_length=64, required=False, allow_blank=True)

    def to_internal_value(self, data: Any) -> Any:
        """The item; a name that is not known here is refused, as in the body around it."""
        unknown = [name for name in data if name not in self.fields] if isinstance(data, dict) else []
        if unknown:
            raise serializers.ValidationError({str(unknown[0])[:60]: [f"Known here: {', '.join(self.fields)}."]})
        return super().to_internal_value(data)


class DecideBody(serializers.Serializer[Any]):
    """One word for several: each is decided on its own."""

    items = serializers.ListField(child=ItemBody(), min_length=1, max_length=deciding.MOST)
    approve = serializers.BooleanField()
    comment = serializers.CharField(max_length=500, required=False, allow_blank=True)


class ResultAnswer(serializers.Serializer[Any]):
    """What became of one of them."""

    kind = serializers.ChoiceField(choices=inbox.KINDS)
    id = serializers.IntegerField()
    name = serializers.CharField()
    outcome = serializers.ChoiceField(choices=OUTCOMES)
    message = serializers.CharField()


class CallBody(serializers.Serializer[Any]):
    """Why it cannot wait for somebody who did not ask for it; the digest here or in If-Match."""

    reason = serializers.CharField(max_length=500)
    digest = serializers.CharField(max_length=64, required=False)


class SignBody(serializers.Serializer[Any]):
    """The digest that the emergency was called for, here or in If-Match."""

    digest = serializers.CharField(max_length=64, required=False)


class SignAnswer(serializers.Serializer[Any]):
    """The approval of two admins."""

    deployment = serializers.IntegerField()
    revision = serializers.IntegerField()
    digest = serializers.CharField()
    kind = serializers.CharField()
    actor = serializers.CharField()
    second = serializers.CharField()
    comment = serializers.CharField()


class PolicyAnswer(serializers.Serializer[Any]):
    """Who approves a team's requests, above how many GPUs an admin does, and what the end of a grant does."""

    team = serializers.SlugField(read_only=True)
    policy = serializers.ChoiceField(choices=Team.Policy.choices)
    ask_above = WholeNumber(min_value=0, max_value=policies.MOST_GPUS, allow_null=True)
    at_expiry = serializers.ChoiceField(choices=Team.AtExpiry.choices)


class PolicyBody(serializers.Serializer[Any]):
    """What to change; what is left out stays."""

    policy = serializers.ChoiceField(choices=Team.Policy.choices, required=False)
    ask_above = WholeNumber(
        min_value=0, max_value=policies.MOST_GPUS, allow_null=True, required=False, help_text="null: however many"
    )
    at_expiry = serializers.ChoiceField(choices=Team.AtExpiry.choices, required=False)
