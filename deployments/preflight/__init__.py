"""Pure rules: a spec and facts in, findings out."""

from deployments.findings import Finding, Severity, has_errors
from deployments.preflight.facts import ClusterFacts, Facts, FlavorFacts, QuotaFacts

__all__ = ["ClusterFacts", "Facts", "Finding", "FlavorFacts", "QuotaFacts", "Severity", "has_errors"]
