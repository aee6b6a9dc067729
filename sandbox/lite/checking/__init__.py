"""What a schema cannot say about built-in kinds, field by field and in the words of kube-apiserver.

A check yields the causes of a refusal in the order in which kube-apiserver finds them. `CHECKS` has one for each kind
that is checked whole (what is required included), `CHANGES` those for what an update may not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sandbox.lite.checking import pods, policies, quotas, services, small, workloads
from sandbox.lite.errors import Cause

Obj = dict[str, Any]

CHECKS: dict[str, Callable[[Obj], Iterator[Cause]]] = {
    "/configmaps": small.config_map,
    "/secrets": small.secret,
    "/services": services.service,
    "/pods": pods.pod,
    "/resourcequotas": quotas.resource_quota,
    "/limitranges": quotas.limit_range,
    "apps/deployments": workloads.deployment,
    "networking.k8s.io/networkpolicies": policies.network_policy,
    "policy/poddisruptionbudgets": policies.disruption_budget,
    "rbac.authorization.k8s.io/rolebindings": policies.role_binding,
    "rbac.authorization.k8s.io/clusterrolebindings": policies.role_binding,
}
STATUS_CHECKS: dict[str, Callable[[Obj], Iterator[Cause]]] = {
    "apps/deployments": workloads.deployment_status,
    "/resourcequotas": quotas.resource_quota_status,
}
CHANGES: dict[str, Callable[[Obj, Obj], Iterator[Cause]]] = {
    "/configmaps": small.config_map_change,
    "/secrets": small.secret_change,
    "/services": services.service_change,
    "/resourcequotas": quotas.resource_quota_change,
}
# Whose changes are looked at before the object itself.
CHANGES_FIRST = "/configmaps", "/secrets", "/services"
