"""What is stored. One module per topic; filters live on the QuerySets, facts about one row on the models."""

from .accounts import ApiToken, Membership, Principal, Team, User
from .audit import Event
from .catalog import CatalogEntry, EngineProfile, ModelCheck
from .cluster import Cluster, Flavor, Node
from .convergence import AppliedObject, Intent, Status
from .deployment import Approval, Deployment, DeploymentQuerySet, Revision, RevisionQuerySet, Wanted
from .quota import QuotaAccount, QuotaGrant, QuotaHold, Reservation

__all__ = [
    "ApiToken",
    "AppliedObject",
    "Approval",
    "CatalogEntry",
    "Cluster",
    "Deployment",
    "DeploymentQuerySet",
    "EngineProfile",
    "Event",
    "Flavor",
    "Intent",
    "Membership",
    "ModelCheck",
    "Node",
    "Principal",
    "QuotaAccount",
    "QuotaGrant",
    "QuotaHold",
    "Reservation",
    "Revision",
    "RevisionQuerySet",
    "Status",
    "Team",
    "User",
    "Wanted",
]
