"""What opens private models and registries: what people may know of it. The values themselves are never in here.

A value that somebody enters is sealed to the workers' key and lies in `SealedValue` for minutes; a worker makes a
Secret of it on the cluster, which nobody of Slipway can read again.
"""

from __future__ import annotations

from django.contrib.postgres.expressions import ArraySubquery
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.fields.json import KeyTextTransform, KeyTransform
from django.utils import timezone

from .accounts import Principal, Team, User
from .deployment import Deployment
from .locking import HeldRows


def is_waiting() -> Exists:
    """Of a credential: a value was entered, and no worker has made a Secret of it yet."""
    return Exists(SealedValue.objects.filter(version__credential=OuterRef("pk")))


def names_of_users() -> ArraySubquery:
    """Of a credential: the names of the deployments that name it in their newest, approved or applied revision."""
    rows = Deployment.objects.alive().filter(team=OuterRef("team"))
    naming = Q()
    for which in ("latest", "approved", "applied"):
        named = KeyTextTransform("credential", KeyTransform("source", f"{which}__spec"))
        rows = rows.annotate(**{f"named_by_{which}": named})
        naming |= Q(**{f"named_by_{which}": OuterRef("name")})
    return ArraySubquery(rows.filter(naming).order_by("name").values("name"))


class CredentialQuerySet(HeldRows["Credential"]):
    """The doors to credentials."""

    def kept(self) -> CredentialQuerySet:
        """Those that were not deleted."""
        return self.filter(deleted_at=None)

    def visible_to(self, principal: Principal) -> CredentialQuerySet:
        """Credentials whose name and state the principal may see: of the own teams, for an admin all."""
        return self.kept().filter(team__in=Team.objects.visible_to(principal))

    def usable_by(self, principal: Principal) -> CredentialQuerySet:
        """Credentials that the principal may name in a request for a model."""
        return self.kept().filter(team__in=Team.objects.writable_by(principal))

    def manageable_by(self, principal: Principal) -> CredentialQuerySet:
        """Credentials that the principal may enter again and delete: of teams they lead, for an admin all."""
        return self.kept().filter(team__in=Team.objects.managed_by(principal), team__archived_at=None)

    def told(self) -> CredentialQuerySet:
        """With `waiting`: a value was entered, and no worker has made a Secret of it yet."""
        return self.select_related("current").annotate(waiting=is_waiting())

    def with_users(self) -> CredentialQuerySet:
        """With `users`: the names of the deployments that name it."""
        return self.annotate(users=names_of_users())


class Credential(models.Model):
    """Access to somebody else's server, by name; it belongs to a team, and each value that was entered is a version."""

    class Kind(models.TextChoices):
        HF = "hf", "Hugging Face token"
        S3 = "s3", "S3 keys"
        GS = "gs", "Google service account"
        REGISTRY = "registry", "Registry login"

    class State(models.TextChoices):
        PENDING = "pending", "Being stored"
        READY = "ready", "Ready"
        ENTER_AGAIN = "enter_again", "Enter again"

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="credentials")
    name = models.CharField(max_length=40)
    kind = models.CharField(max_length=10, choices=Kind)
    # The version whose Secret is in use; empty until the first one is made.
    current = models.ForeignKey("SecretVersion", null=True, on_delete=models.PROTECT, related_name="+")
    # Why the value that was entered last is not in use: expired, unfit, bad_token, no_key, or a code of the cluster.
    problem = models.CharField(max_length=40, blank=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    last_used_at = models.DateTimeField(null=True, blank=True)
    # What the last test said, and which model it was asked for (empty: only whether the value is accepted at all).
    tested_at = models.DateTimeField(null=True, blank=True)
    test_code = models.CharField(max_length=20, blank=True)
    test_message = models.CharField(max_length=500, blank=True)
    test_remedy = models.CharField(max_length=500, blank=True)
    test_uri = models.CharField(max_length=512, blank=True)
    test_facts = models.JSONField(default=dict)
    deleted_at = models.DateTimeField(null=True, blank=True)

    objects = CredentialQuerySet.as_manager()

    class Meta:
        ordering = ["team", "name"]
        constraints = [
            models.UniqueConstraint(
                fields=["team", "name"], condition=Q(deleted_at=None), name="one_credential_of_a_name"
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> str:
        """Whether it can be used; needs the annotation of `told`."""
        return self.state_of(self.current_id, waiting=getattr(self, "waiting", False))

    @classmethod
    def state_of(cls, current: int | None, *, waiting: bool) -> str:
        """A value that is stored goes on working while a new one is on its way."""
        if current is not None:
            return cls.State.READY
        return cls.State.PENDING if waiting else cls.State.ENTER_AGAIN


class SecretVersion(models.Model):
    """One value that somebody entered: the Secret made of it, and the only record that this Secret exists."""

    credential = models.ForeignKey(Credential, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    # Tells values apart without telling them: keyed, so that nobody can try values against it.
    fingerprint = models.CharField(max_length=16)
    # What is no secret of it: endpoint, region, registry.
    settings = models.JSONField(default=dict)
    namespace = models.CharField(max_length=63)
    name = models.CharField(max_length=63, unique=True)
    uid = models.CharField(max_length=64, blank=True)
    entered_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    entered_at = models.DateTimeField(default=timezone.now)
    made_at = models.DateTimeField(null=True, blank=True)
    # Not to be used any more; its Secret goes as soon as no pod names it.
    retired_at = models.DateTimeField(null=True, blank=True)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["credential", "number"], name="one_version_of_a_number")]
        indexes = [
            models.Index(fields=["credential"], name="secrets_to_remove", condition=Q(deleted_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.credential} version {self.number}"


class SealedValue(models.Model):
    """A value on its way to a worker, sealed to the workers' key; ten minutes at most."""

    version = models.OneToOneField(SecretVersion, on_delete=models.CASCADE, related_name="sealed")
    key_name = models.CharField(max_length=16)
    ciphertext = models.BinaryField()
    # A model to test the value with; empty: only whether it is accepted.
    test_uri = models.CharField(max_length=512, blank=True)
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"sealed value of {self.version}"
