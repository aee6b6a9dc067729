"""Bodies and answers about kinds of GPU, requests for quota, and waiting for it."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework import serializers

from deployments.api.schemas import DATES_ALSO, DeploymentAnswer, Moment, Number, WholeNumber
from deployments.models import QuotaRequest
from deployments.services.grants import MOST_GPUS


class FlavorChange(serializers.Serializer[Any]):
    """What a flavor says of its GPUs. Memory in MiB, price in euro per GPU and hour."""

    name = serializers.CharField(max_length=60, required=False)
    product = serializers.CharField(
        max_length=80, required=False, help_text="Value of the node label nvidia.com/gpu.product"
    )
    memory_mib = WholeNumber(min_value=1, max_value=2_000_000, required=False)
    resource_name = serializers.CharField(
        max_length=80, required=False, help_text="nvidia.com/gpu, nvidia.com/gpu.shared or nvidia.com/mig-1g.10gb"
    )
    compute_capability = Number(min_value=1, max_value=99.9, required=False)
    gpus_per_node = WholeNumber(min_value=1, max_value=1024, required=False)
    price_per_hour = Number(min_value=0, max_value=99_999.99, required=False)
    node_selector = serializers.DictField(child=serializers.CharField(allow_blank=True), required=False)
    tolerations = serializers.ListField(
        child=serializers.DictField(child=serializers.CharField(allow_blank=True)), required=False, max_length=10
    )
    active = serializers.BooleanField(required=False)


class FlavorBody(FlavorChange):
    """A new flavor."""

    slug = serializers.CharField(max_length=40)
    name = serializers.CharField(max_length=60)
    product = serializers.CharField(max_length=80, help_text="Value of the node label nvidia.com/gpu.product")
    memory_mib = WholeNumber(min_value=1, max_value=2_000_000)
    compute_capability = Number(min_value=1, max_value=99.9)


class FlavorAnswer(serializers.Serializer[Any]):
    """A kind of GPU. Memory in MiB; what the cluster has of it is null while it has not been seen."""

    slug = serializers.SlugField()
    name = serializers.CharField()
    product = serializers.CharField()
    memory_mib = serializers.IntegerField()
    resource_name = serializers.CharField()
    compute_capability = serializers.FloatField()
    gpus_per_node = serializers.IntegerField()
    price_per_hour = serializers.FloatField()
    node_selector = serializers.DictField(child=serializers.CharField())
    tolerations = serializers.ListField(child=serializers.DictField(child=serializers.CharField()))
    active = serializers.BooleanField()
    total = serializers.IntegerField(allow_null=True)
    in_use = serializers.IntegerField(allow_null=True)
    free = serializers.IntegerField(allow_null=True)
    largest_free_block = serializers.IntegerField(allow_null=True)
    granted = serializers.IntegerField()
    reserved = serializers.IntegerField()


class ProposalAnswer(serializers.Serializer[Any]):
    """A kind of GPU that nodes have and nobody offers yet: `flavor` is what POST would take, once somebody agrees."""

    flavor = serializers.JSONField()
    nodes = serializers.IntegerField()
    gpus = serializers.IntegerField()


class QuotaRequestBody(serializers.Serializer[Any]):
    """GPUs that a lead asks for. Without dates (also `since`, `until`): from the decision on, without an end."""

    also: ClassVar[dict[str, str]] = DATES_ALSO

    team = serializers.SlugField(max_length=20)
    flavor = serializers.SlugField(max_length=40)
    gpus = WholeNumber(min_value=1, max_value=MOST_GPUS)
    why = serializers.CharField(max_length=500)
    valid_from = Moment(required=False, allow_null=True)
    valid_until = Moment(required=False, allow_null=True)


class QuotaDecisionBody(serializers.Serializer[Any]):
    """A decision. What is left out is granted as it was asked for; a date of null is at once, and without an end."""

    also: ClassVar[dict[str, str]] = DATES_ALSO

    grant = serializers.BooleanField()
    comment = serializers.CharField(max_length=500)
    flavor = serializers.SlugField(max_length=40, required=False)
    gpus = WholeNumber(min_value=1, max_value=MOST_GPUS, required=False)
    valid_from = Moment(required=False, allow_null=True)
    valid_until = Moment(required=False, allow_null=True)
    beyond = serializers.BooleanField(
        required=False,
        help_text="true: more GPUs than were asked for, other GPUs or a later end are meant; refused without",
    )


class QuotaRequestAnswer(serializers.Serializer[Any]):
    """A request for quota; `granted` is the id of the grant that it led to."""

    id = serializers.IntegerField()
    team = serializers.SlugField()
    flavor = serializers.SlugField()
    gpus = serializers.IntegerField()
    valid_from = serializers.DateTimeField(allow_null=True)
    valid_until = serializers.DateTimeField(allow_null=True)
    why = serializers.CharField()
    author = serializers.CharField()
    created_at = serializers.DateTimeField()
    state = serializers.ChoiceField(choices=QuotaRequest.State.choices)
    decided_by = serializers.CharField(allow_null=True)
    decided_at = serializers.DateTimeField(allow_null=True)
    comment = serializers.CharField()
    granted = serializers.IntegerField(allow_null=True)


class ShareAnswer(serializers.Serializer[Any]):
    """What one team may hold of a flavor, and holds; `valid_until` is when the first of its grants ends."""

    team = serializers.SlugField()
    granted = serializers.IntegerField()
    reserved = serializers.IntegerField()
    valid_until = serializers.DateTimeField(allow_null=True)


class NextEndAnswer(serializers.Serializer[Any]):
    """A grant that ends."""

    grant = serializers.IntegerField()
    team = serializers.SlugField()
    gpus = serializers.IntegerField()
    valid_until = serializers.DateTimeField()


class ReleaseAnswer(serializers.Serializer[Any]):
    """GPUs that come back once the pods of a deployment, stopped or deleted at `since`, are gone."""

    deployment = serializers.IntegerField()
    name = serializers.CharField()
    team = serializers.SlugField()
    gpus = serializers.IntegerField()
    since = serializers.DateTimeField(allow_null=True)


class ContextAnswer(serializers.Serializer[Any]):
    """What an admin weighs about a request that waits.

    `granted_after` is what all teams may hold together if it is granted whole, `beyond` how much of that nodes do not
    have. `shares`, `ends` and `releases` are for admins; to others they are empty.
    """

    capacity = FlavorAnswer()
    asked = serializers.IntegerField()
    granted_after = serializers.IntegerField()
    beyond = serializers.IntegerField()
    shares = ShareAnswer(many=True)
    ends = NextEndAnswer(many=True)
    releases = ReleaseAnswer(many=True)


class TeamQuotaAnswer(serializers.Serializer[Any]):
    """A team's quota of one flavor, in GPUs. `valid_until` is when its first grant ends, `ending` what ends then."""

    team = serializers.SlugField()
    flavor = serializers.SlugField()
    limit = serializers.IntegerField()
    reserved = serializers.IntegerField()
    in_use = serializers.IntegerField(help_text="Of those reserved, what pods hold")
    free = serializers.IntegerField()
    over = serializers.IntegerField(help_text="Reserved beyond the limit: nothing is stopped for it")
    valid_until = serializers.DateTimeField(allow_null=True)
    ending = serializers.IntegerField()


class HoldAnswer(serializers.Serializer[Any]):
    """What a deployment holds of its team's quota, since when. `coming_back`: it was stopped or deleted."""

    id = serializers.IntegerField()
    deployment = serializers.IntegerField()
    name = serializers.CharField()
    team = serializers.SlugField()
    flavor = serializers.SlugField()
    gpus = serializers.IntegerField()
    since = serializers.DateTimeField(allow_null=True)
    next_grant_ends = serializers.DateTimeField(allow_null=True)
    coming_back = serializers.BooleanField()


class EndAnswer(serializers.Serializer[Any]):
    """A grant that ends within thirty days: what is `left` to the team then, and what it holds `over` that now.

    What is over goes on and cannot grow; where `at_expiry` is stop, the newest deployments are stopped.
    """

    grant = serializers.IntegerField()
    team = serializers.SlugField()
    flavor = serializers.SlugField()
    gpus = serializers.IntegerField()
    valid_until = serializers.DateTimeField()
    left = serializers.IntegerField()
    over = serializers.IntegerField()
    at_expiry = serializers.CharField()


class FreeingAnswer(serializers.Serializer[Any]):
    """What gives the team GPUs: a deployment that stops or holds some, a grant that begins, a request that waits."""

    kind = serializers.CharField(help_text="stopping, grant, request or hold")
    gpus = serializers.IntegerField()
    name = serializers.CharField(allow_blank=True)
    deployment = serializers.IntegerField(allow_null=True)
    at = serializers.DateTimeField(allow_null=True)


class AlternativeAnswer(serializers.Serializer[Any]):
    """A change with which it would start now: values by JSON pointer, and the GPUs that it then reserves."""

    text = serializers.CharField()
    set = serializers.DictField()
    gpus = serializers.IntegerField()


class QueueAnswer(serializers.Serializer[Any]):
    """The place in the team's line for a flavor, in GPUs: it needs `needs`, `more` than it holds.

    With `fits_apart` it starts at once where the old revision is stopped first, as it then needs `apart`.
    With `ask_for` GPUs of quota on top it starts, whoever waits before it served; by `beyond` the whole quota is too
    small for it.
    """

    flavor = serializers.SlugField()
    place = serializers.IntegerField()
    of = serializers.IntegerField()
    needs = serializers.IntegerField()
    apart = serializers.IntegerField()
    fits_apart = serializers.BooleanField()
    more = serializers.IntegerField()
    ask_for = serializers.IntegerField()
    beyond = serializers.IntegerField()
    free = serializers.IntegerField()
    limit = serializers.IntegerField()
    frees = FreeingAnswer(many=True)
    alternatives = AlternativeAnswer(many=True)


class DeploymentDetail(DeploymentAnswer):
    """A deployment; `waiting` is null for one that does not wait for quota."""

    waiting = QueueAnswer(allow_null=True)
