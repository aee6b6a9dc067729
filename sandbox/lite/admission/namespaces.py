"""Nothing is made in a namespace that is not there, or that is on its way out."""

from __future__ import annotations

from sandbox.lite import errors
from sandbox.lite.admission.change import Change

_PROTECTED = ("default", "kube-system", "kube-public")


def must_be_open(change: Change) -> None:
    """404 without the namespace, 403 while it is terminating."""
    if not change.creating or not change.resource.namespaced:
        return
    namespace = change.cluster.read("/namespaces", "", change.namespace)
    if namespace is None:
        raise errors.not_found("", "namespaces", change.namespace)
    if namespace["metadata"].get("deletionTimestamp"):
        error = errors.forbidden(
            change.resource.group,
            change.resource.plural,
            change.asked_name,
            f"unable to create new content in namespace {change.namespace} because it is being terminated",
        )
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {change.namespace} is being terminated",
            "field": "metadata.namespace",
        }
        error.details = (error.details or {}) | {"causes": [cause]}
        raise error


def may_be_deleted(name: str) -> None:
    """403 for the namespaces a cluster cannot be without."""
    if name in _PROTECTED:
        raise errors.forbidden("", "namespaces", name, "this namespace may not be deleted")
