"""The shapes of bodies and answers: serializers check small bodies and describe all of them in the OpenAPI document."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from deployments.api.openapi import inlined
from deployments.models import Deployment, Event, QuotaGrant, Reservation, Revision
from deployments.services.grants import MOST_GPUS
from deployments.services.tokens import DEFAULT_DAYS, MOST_DAYS
from deployments.services.unknown_models import MOST as MOST_OF_MODEL
from deployments.services.unknown_models import NUMBERS
from deployments.spec import MAX_NAME, MAX_NOTE, DeploymentSpec, Role
from portal.lib import plain

SCOPES = ("read", "write", "approve", "invoke")


class WholeNumber(serializers.IntegerField):
    """A whole number of JSON, or a text of the digits 0 to 9 alone."""

    def to_internal_value(self, data: Any) -> int:
        """The number; an error that says what is wrong otherwise."""
        found = plain.whole(data) if isinstance(data, str) else data
        if isinstance(found, bool) or not isinstance(found, int):
            self.fail("invalid")
        return int(found)


class Number(serializers.FloatField):
    """A finite number of JSON, or a text like `3.5`."""

    def to_internal_value(self, data: Any) -> float:
        """The number; an error that says what is wrong otherwise."""
        found = plain.decimal(data)
        if found is None:
            self.fail("invalid")
        return float(found)


class Moment(serializers.DateTimeField):
    """A date with a time, in the digits 0 to 9."""

    def to_internal_value(self, value: Any) -> Any:
        """The moment; an error that says what is wrong otherwise."""
        if plain.moment(value) is None:
            self.fail("invalid", format="YYYY-MM-DDThh:mm[:ss][+HH:MM|-HH:MM|Z]")
        return super().to_internal_value(value)


_SPEC = DeploymentSpec.model_json_schema()


@extend_schema_field(inlined(_SPEC, _SPEC.get("$defs", {})))
class SpecField(serializers.JSONField):
    """The closed spec; it is checked by `deployments.spec`, here it is only described."""


class SpecBody(serializers.Serializer[Any]):
    """A change of the spec: PUT takes all of it, PATCH what changes (null removes a flag)."""

    spec = SpecField()
    note = serializers.CharField(max_length=MAX_NOTE, required=False)
    base_revision = WholeNumber(min_value=1, required=False, help_text="Instead of If-Match: the revision changed")


class RequestBody(serializers.Serializer[Any]):
    """One wish: for whom, under which name, and what."""

    team = serializers.SlugField(max_length=20)
    name = serializers.CharField(max_length=MAX_NAME)
    spec = SpecField()
    note = serializers.CharField(max_length=MAX_NOTE, required=False)


class DeploymentAnswer(serializers.Serializer[Any]):
    """A deployment with its newest revision's spec. `gpus` counts that revision at most scale."""

    id = serializers.IntegerField()
    team = serializers.SlugField()
    name = serializers.CharField()
    spec = SpecField()
    state = serializers.ChoiceField(choices=Deployment.State.choices)
    state_since = serializers.DateTimeField()
    reason = serializers.JSONField()
    detail = serializers.JSONField()
    wanted = serializers.CharField()
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    revision = serializers.IntegerField()
    verdict = serializers.ChoiceField(choices=Revision.Verdict.choices)
    digest = serializers.CharField()
    flavor = serializers.SlugField()
    gpus = serializers.IntegerField()
    approved_revision = serializers.IntegerField(allow_null=True)
    applied_revision = serializers.IntegerField(allow_null=True)
    endpoint = serializers.URLField()


class FindingAnswer(serializers.Serializer[Any]):
    """One result of preflight, with the field it belongs to and the value that would fix it."""

    severity = serializers.ChoiceField(choices=["error", "warning", "info"])
    code = serializers.CharField()
    field = serializers.CharField()
    pointer = serializers.CharField()
    message = serializers.CharField()
    remedy = serializers.CharField()
    value = serializers.JSONField(allow_null=True)
    also = serializers.ListField(
        child=serializers.DictField(),
        help_text="What to put elsewhere at the same time: pointer, field and value of each",
    )


class RevisionAnswer(serializers.Serializer[Any]):
    """One immutable spec with what it was resolved to; `digest` is what an approval signs."""

    id = serializers.IntegerField()
    number = serializers.IntegerField()
    spec = SpecField()
    resolution = serializers.JSONField()
    digest = serializers.CharField()
    flavor = serializers.SlugField()
    gpus = serializers.IntegerField()
    surge = serializers.IntegerField()
    guarded = serializers.ListField(child=serializers.CharField())
    findings = FindingAnswer(many=True)
    verdict = serializers.ChoiceField(choices=Revision.Verdict.choices)
    author = serializers.CharField()
    note = serializers.CharField()
    created_at = serializers.DateTimeField()


class RevisionDetail(RevisionAnswer):
    """A revision with the objects that will be applied."""

    objects = serializers.ListField(child=serializers.JSONField())


class KubectlAnswer(serializers.Serializer[Any]):
    """Commands for the file that `yaml` is when it is saved under the name they give."""

    diff = serializers.CharField()
    apply = serializers.CharField()
    get = serializers.CharField()


class ManifestsAnswer(serializers.Serializer[Any]):
    """A revision as files. `account` goes with the signed `objects`; `diff` is empty where nothing is compared."""

    revision = serializers.IntegerField()
    digest = serializers.CharField()
    running = serializers.IntegerField(allow_null=True)
    against = serializers.IntegerField(allow_null=True)
    account = serializers.JSONField()
    objects = serializers.ListField(child=serializers.JSONField())
    yaml = serializers.CharField()
    diff = serializers.CharField()
    kubectl = KubectlAnswer()


class DecisionBody(serializers.Serializer[Any]):
    """A decision about the newest revision, named by its digest (here or in If-Match)."""

    digest = serializers.CharField(max_length=64, required=False)
    comment = serializers.CharField(max_length=500, required=False, allow_blank=True)


class DecisionAnswer(serializers.Serializer[Any]):
    """What was decided, and in which role."""

    approved = serializers.BooleanField()
    digest = serializers.CharField()
    kind = serializers.CharField()
    comment = serializers.CharField()
    deployment = DeploymentAnswer()


class ReasonBody(serializers.Serializer[Any]):
    """Why, for the timeline."""

    reason = serializers.CharField(max_length=300, required=False, allow_blank=True)


class ForceBody(serializers.Serializer[Any]):
    """Why GPUs are given back although nobody proved that the pods are gone: it stays in the ledger and the audit."""

    reason = serializers.CharField(max_length=300)


class AskAnswer(serializers.Serializer[Any]):
    """One reason why somebody has to decide, and who the least person is that may: a lead or an admin."""

    code = serializers.ChoiceField(
        choices=[
            *("team_policy", "lead_policy", "ask_above", "guarded", "source_unseen", "over_quota", "author_rules"),
            "quota_request",
        ]
    )
    message = serializers.CharField()
    who = serializers.ChoiceField(choices=["lead", "admin"])


class ModelNumbers(serializers.Serializer[Any]):
    """Numbers of a model that nobody could look up; they serve the estimate, and are stored nowhere."""

    weights_bytes = WholeNumber(min_value=1, max_value=MOST_OF_MODEL, required=False, help_text="All files together")
    layers = WholeNumber(min_value=1, max_value=MOST_OF_MODEL, required=False)
    heads = WholeNumber(min_value=1, max_value=MOST_OF_MODEL, required=False, help_text="Attention heads")
    kv_heads = WholeNumber(min_value=1, max_value=MOST_OF_MODEL, required=False)
    head_dim = WholeNumber(min_value=1, max_value=MOST_OF_MODEL, required=False, help_text="The width of a head")


class PreflightBody(RequestBody):
    """A wish to look at, and with it what is known of a model that cannot be read."""

    model = ModelNumbers(required=False)


class RoleAnswer(serializers.Serializer[Any]):
    """What the pods of one role run, in the memory of each of their GPUs, and other ways for that role to fit."""

    role = serializers.ChoiceField(choices=[role.value for role in Role])
    gpus_per_replica = serializers.IntegerField()
    fit = serializers.JSONField(allow_null=True)
    options = serializers.ListField(child=serializers.JSONField())


class PreflightAnswer(serializers.Serializer[Any]):
    """What the request form shows: findings, memory fit in GiB per GPU, other ways, quota and who would approve."""

    ok = serializers.BooleanField()
    findings = FindingAnswer(many=True)
    gpus = serializers.IntegerField(help_text="At the most replicas, without surge")
    surge = serializers.IntegerField(help_text="On top of that while a new revision rolls out; both are reserved")
    asks = AskAnswer(many=True)
    approval = serializers.CharField()
    fit = serializers.JSONField(allow_null=True, help_text="Of two roles that of decode; see `roles`")
    options = serializers.ListField(
        child=serializers.JSONField(), help_text="Other ways to fit, of two roles those of decode"
    )
    roles = RoleAnswer(
        many=True, help_text="Each role: prefill and decode of a disaggregated wish, else one that does both"
    )
    model = serializers.JSONField(allow_null=True)
    missing = serializers.ListField(
        child=serializers.ChoiceField(choices=NUMBERS),
        help_text="Numbers of the model that nobody knows: without them there is no `fit`. Send them as `model`",
    )
    quota = serializers.JSONField(allow_null=True)


class UsageAnswer(serializers.Serializer[Any]):
    """A team's quota of one flavor, in GPUs."""

    flavor = serializers.SlugField()
    limit = serializers.IntegerField()
    reserved = serializers.IntegerField()
    free = serializers.IntegerField()
    until = serializers.DateTimeField(allow_null=True)


# Other names of dates, which bodies about quota may have in the place of those that answers have.
DATES_ALSO = {"since": "valid_from", "until": "valid_until"}


class GrantBody(serializers.Serializer[Any]):
    """A new grant of GPUs; `since` and `until` are read as other names of the dates."""

    also: ClassVar[dict[str, str]] = DATES_ALSO

    team = serializers.SlugField(max_length=20)
    flavor = serializers.SlugField(max_length=40)
    gpus = WholeNumber(min_value=1, max_value=MOST_GPUS)
    valid_from = Moment(required=False, allow_null=True, help_text="Empty: at once")
    valid_until = Moment(required=False, allow_null=True, help_text="Empty: without an end")
    comment = serializers.CharField(max_length=500, required=False, allow_blank=True)


class GrantChange(serializers.Serializer[Any]):
    """A cut, a raise or another end of a grant; `until` is read as another name of `valid_until`."""

    also: ClassVar[dict[str, str]] = {"until": "valid_until"}

    gpus = WholeNumber(min_value=0, max_value=MOST_GPUS, required=False, help_text="0 ends what may grow at once")
    valid_until = Moment(
        required=False, allow_null=True, help_text="In the future; null: without an end; left out: as it is"
    )
    comment = serializers.CharField(max_length=500, required=False, allow_blank=True)


class GrantAnswer(serializers.ModelSerializer[QuotaGrant]):
    """GPUs of a flavor that a team may hold."""

    team = serializers.SlugField()
    flavor = serializers.SlugField()
    granted_by = serializers.CharField(allow_null=True)

    class Meta:
        model = QuotaGrant
        fields = (
            "id",
            "team",
            "flavor",
            "gpus",
            "valid_from",
            "valid_until",
            "comment",
            "granted_by",
            "created_at",
        )


class GrantDetail(GrantAnswer):
    """A grant, and how much more of its flavor than the cluster has all grants together promise by now."""

    beyond_cluster = serializers.IntegerField(
        allow_null=True, help_text="GPUs granted to all teams beyond what nodes have; null while that is not known"
    )

    class Meta:
        model = QuotaGrant
        fields = (*GrantAnswer.Meta.fields, "beyond_cluster")


class ReservationAnswer(serializers.ModelSerializer[Reservation]):
    """One line of the ledger: GPUs taken (positive) or given back (negative)."""

    team = serializers.SlugField()
    flavor = serializers.SlugField()
    deployment = serializers.IntegerField()
    revision = serializers.IntegerField(allow_null=True)
    actor = serializers.CharField(allow_null=True)

    class Meta:
        model = Reservation
        fields = (
            "id",
            "team",
            "flavor",
            "deployment",
            "revision",
            "delta",
            "balance_before",
            "kind",
            "reason",
            "actor",
            "created_at",
        )


class EventAnswer(serializers.ModelSerializer[Event]):
    """One line of the audit."""

    team = serializers.SlugField(allow_null=True)
    deployment = serializers.IntegerField(allow_null=True)
    actor = serializers.CharField(allow_null=True)

    class Meta:
        model = Event
        fields = (
            "id",
            "kind",
            "level",
            "message",
            "team",
            "deployment",
            "actor",
            "data",
            "request_id",
            "created_at",
        )


class TokenBody(serializers.Serializer[Any]):
    """A new token: never more than its maker may do."""

    name = serializers.CharField(max_length=80)
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=SCOPES), min_length=1, max_length=4)
    days = WholeNumber(min_value=1, max_value=MOST_DAYS, default=DEFAULT_DAYS)
    teams = serializers.ListField(child=serializers.SlugField(max_length=20), required=False, max_length=100)


class TokenAnswer(serializers.Serializer[Any]):
    """A token without its text."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    prefix = serializers.CharField()
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=SCOPES))
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)


class NewTokenAnswer(TokenAnswer):
    """A new token with its text, which is never shown again."""

    token = serializers.CharField()


class WhoAnswer(serializers.Serializer[Any]):
    """Who the caller is, and what they may do."""

    username = serializers.CharField()
    name = serializers.CharField()
    admin = serializers.BooleanField()
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=SCOPES))
    teams = serializers.JSONField()


class ProblemEntry(serializers.Serializer[Any]):
    """One thing that is wrong, with the JSON pointer and the form field it belongs to."""

    pointer = serializers.CharField()
    field = serializers.CharField()
    detail = serializers.CharField()
    code = serializers.CharField()
    remedy = serializers.CharField()
    value = serializers.JSONField(allow_null=True)


class Problem(serializers.Serializer[Any]):
    """RFC 9457: why something was not done."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()
    instance = serializers.CharField()
    request_id = serializers.CharField()
    errors = ProblemEntry(many=True, required=False)  # type: ignore[assignment]


def page_of(answer: type[serializers.BaseSerializer[Any]]) -> type[serializers.Serializer[Any]]:
    """One keyset page of `answer`."""
    name = answer.__name__.removesuffix("Answer") + "Page"
    fields = {
        "results": answer(many=True),
        "next": serializers.URLField(allow_null=True, help_text="The next page; null on the last"),
        "__doc__": "One page, newest first.",
        "__module__": __name__,
    }
    return type(name, (serializers.Serializer,), fields)
