"""What is stored. One module per topic; filters live on the QuerySets, facts about one row on the models."""

from .accounts import ApiToken, Membership, Principal, Team, User, admins_now, groups_since
from .audit import AuditSeal, Event
from .catalog import CatalogEntry, EngineProfile, ModelCheck
from .cluster import Cluster, Flavor, Node
from .convergence import AppliedObject, Intent, Status
from .credentials import Credential, CredentialQuerySet, SealedValue, SecretVersion
from .deployment import Approval, Deployment, DeploymentQuerySet, Emergency, Revision, RevisionQuerySet, Wanted
from .endpoint_keys import EndpointKey, KeyUsage
from .idempotency import IdempotencyKey
from .notices import Notification
from .people import GroupRule, Invitation
from .quota import QuotaAccount, QuotaGrant, QuotaHold, Reservation
from .quota_requests import QuotaRequest
from .sign_ins import SignInTries

__all__ = [
    "ApiToken",
    "AppliedObject",
    "Approval",
    "AuditSeal",
    "CatalogEntry",
    "Cluster",
    "Credential",
    "CredentialQuerySet",
    "Deployment",
    "DeploymentQuerySet",
    "Emergency",
    "EndpointKey",
    "EngineProfile",
    "Event",
    "Flavor",
    "GroupRule",
    "IdempotencyKey",
    "Intent",
    "Invitation",
    "KeyUsage",
    "Membership",
    "ModelCheck",
    "Node",
    "Notification",
    "Principal",
    "QuotaAccount",
    "QuotaGrant",
    "QuotaHold",
    "QuotaRequest",
    "Reservation",
    "Revision",
    "RevisionQuerySet",
    "SealedValue",
    "SecretVersion",
    "SignInTries",
    "Status",
    "Team",
    "User",
    "Wanted",
    "admins_now",
    "groups_since",
]
