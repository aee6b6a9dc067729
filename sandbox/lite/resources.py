"""What this server serves: the table of built-in resources and those that CustomResourceDefinitions add."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sandbox.lite.schema import Raw, Schema, of_crd

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(eq=False)
class Resource:
    """One kind at one version, under the name URLs give it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    generation: bool = False
    schema_name: str = ""
    crd: Raw | None = None
    columns: list[Raw] = field(default_factory=list)
    singular: str = ""
    list_kind: str = ""
    verbs: tuple[str, ...] = VERBS
    crd_schema: Raw | None = None

    def __post_init__(self) -> None:
        self.singular = self.singular or self.kind.lower()
        self.list_kind = self.list_kind or f"{self.kind}List"

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def storage_key(self) -> str:
        """What objects of all versions of this resource are stored under."""
        return f"{self.group}/{self.plural}"

    @property
    def root(self) -> str:
        """The URL prefix of this resource's group and version."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    @cached_property
    def schema(self) -> Schema:
        """The schema of whole objects of this kind."""
        if self.crd_schema is not None:
            return of_crd(self.crd_schema)
        return Schema.of_builtin(self.schema_name) if self.schema_name else Schema.ANY

    @property
    def has_status(self) -> bool:
        """Whether status is written through its own subresource."""
        return "status" in self.subresources


_SCALED = ("status", "scale")

# group, version, plural, kind, namespaced, short names, subresources, categories, counts generations, schema
_TABLE: tuple[tuple[Any, ...], ...] = (
    ("", "v1", "bindings", "Binding", True, (), (), (), False, "core.v1.Binding"),
    ("", "v1", "configmaps", "ConfigMap", True, ("cm",), (), (), False, "core.v1.ConfigMap"),
    ("", "v1", "endpoints", "Endpoints", True, ("ep",), (), (), False, "core.v1.Endpoints"),
    ("", "v1", "events", "Event", True, ("ev",), (), (), False, "core.v1.Event"),
    ("", "v1", "limitranges", "LimitRange", True, ("limits",), (), (), False, "core.v1.LimitRange"),
    ("", "v1", "namespaces", "Namespace", False, ("ns",), ("status", "finalize"), (), False, "core.v1.Namespace"),
    ("", "v1", "nodes", "Node", False, ("no",), ("status",), (), False, "core.v1.Node"),
    (
        "", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",), ("status",), (), False,
        "core.v1.PersistentVolumeClaim",
    ),
    (
        "", "v1", "persistentvolumes", "PersistentVolume", False, ("pv",), ("status",), (), False,
        "core.v1.PersistentVolume",
    ),
    (
        "", "v1", "pods", "Pod", True, ("po",),
        ("status", "log", "binding", "eviction", "ephemeralcontainers"), ("all",), True, "core.v1.Pod",
    ),
    (
        "", "v1", "replicationcontrollers", "ReplicationController", True, ("rc",), _SCALED, ("all",), True,
        "core.v1.ReplicationController",
    ),
    ("", "v1", "resourcequotas", "ResourceQuota", True, ("quota",), ("status",), (), False, "core.v1.ResourceQuota"),
    ("", "v1", "secrets", "Secret", True, (), (), (), False, "core.v1.Secret"),
    ("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",), ("token",), (), False, "core.v1.ServiceAccount"),
    ("", "v1", "services", "Service", True, ("svc",), ("status",), ("all",), False, "core.v1.Service"),
    ("apps", "v1", "deployments", "Deployment", True, ("deploy",), _SCALED, ("all",), True, "apps.v1.Deployment"),
    ("apps", "v1", "replicasets", "ReplicaSet", True, ("rs",), _SCALED, ("all",), True, "apps.v1.ReplicaSet"),
    ("apps", "v1", "statefulsets", "StatefulSet", True, ("sts",), _SCALED, ("all",), True, "apps.v1.StatefulSet"),
    ("apps", "v1", "daemonsets", "DaemonSet", True, ("ds",), ("status",), ("all",), True, "apps.v1.DaemonSet"),
    (
        "apps", "v1", "controllerrevisions", "ControllerRevision", True, (), (), (), False,
        "apps.v1.ControllerRevision",
    ),
    ("batch", "v1", "jobs", "Job", True, (), ("status",), ("all",), True, "batch.v1.Job"),
    (
        "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True, ("hpa",), ("status",),
        ("all",), False, "autoscaling.v2.HorizontalPodAutoscaler",
    ),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", True, ("ing",), ("status",), (), True, "networking.v1.Ingress"),
    (
        "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, ("netpol",), (), (), True,
        "networking.v1.NetworkPolicy",
    ),
    (
        "networking.k8s.io", "v1", "ingressclasses", "IngressClass", False, (), (), (), True,
        "networking.v1.IngressClass",
    ),
    (
        "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), ("status",), (), True,
        "policy.v1.PodDisruptionBudget",
    ),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False, (), (), (), False, "rbac.v1.ClusterRole"),
    (
        "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False, (), (), (), False,
        "rbac.v1.ClusterRoleBinding",
    ),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role", True, (), (), (), False, "rbac.v1.Role"),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", True, (), (), (), False, "rbac.v1.RoleBinding"),
    ("coordination.k8s.io", "v1", "leases", "Lease", True, (), (), (), False, "coordination.v1.Lease"),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True, (), (), (), True, "discovery.v1.EndpointSlice"),
    (
        "storage.k8s.io", "v1", "storageclasses", "StorageClass", False, ("sc",), (), (), False,
        "storage.v1.StorageClass",
    ),
    (
        "scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, ("pc",), (), (), True,
        "scheduling.v1.PriorityClass",
    ),
    (
        "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False, (),
        ("status",), ("api-extensions",), True, "admissionregistration.v1.ValidatingAdmissionPolicy",
    ),
    (
        "admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding",
        False, (), (), ("api-extensions",), True, "admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    ),
    (
        "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False,
        ("crd", "crds"), ("status",), ("api-extensions",), True, "",
    ),
)  # fmt: skip

# Kinds that can only be POSTed: the answer is made on the spot and nothing is kept.
_REVIEWS = (
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", False),
    ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", False),
    ("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview", True),
    ("authentication.k8s.io", "tokenreviews", "TokenReview", False),
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", False),
)


def builtin_resources() -> Iterator[Resource]:
    """Yield every resource that needs no CustomResourceDefinition."""
    for group, version, plural, kind, namespaced, short, subs, categories, generation, schema in _TABLE:
        yield Resource(
            group, version, plural, kind, namespaced, short, categories, subs, generation, schema,
            verbs=("create",) if plural == "bindings" else VERBS,
        )  # fmt: skip
    for group, plural, kind, namespaced in _REVIEWS:
        yield Resource(group, "v1", plural, kind, namespaced, verbs=("create",))


def crd_resources(crd: Raw) -> Iterator[Resource]:
    """Yield one resource per served version of a CustomResourceDefinition."""
    spec = crd["spec"]
    names = spec["names"]
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        yield Resource(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            kind=names["kind"],
            namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames", ())),
            categories=tuple(names.get("categories", ())),
            subresources=tuple(version.get("subresources", {})),
            generation=True,
            crd=crd,
            columns=version.get("additionalPrinterColumns", []),
            singular=names.get("singular", ""),
            list_kind=names.get("listKind", ""),
            crd_schema=version.get("schema", {}).get("openAPIV3Schema", {}),
        )


class Registry:
    """Finds resources by URL or by kind."""

    def __init__(self) -> None:
        self.revision = 0
        self._by_url: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str, str], Resource] = {}
        self._by_crd: dict[str, list[Resource]] = {}
        for resource in builtin_resources():
            self._add(resource)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_url.values())

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """Return the resource a URL names."""
        return self._by_url.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        """Return the resource of an object's apiVersion and kind."""
        group, _, version = api_version.rpartition("/")
        return self._by_kind.get((group, version, kind))

    def plural(self, group: str, plural: str) -> Resource | None:
        """Return any version of a resource."""
        return next((r for r in self._by_url.values() if (r.group, r.plural) == (group, plural)), None)

    def put_crd(self, crd: Raw) -> None:
        """Serve what a CustomResourceDefinition describes, in place of what it described before."""
        self.drop_crd(crd["metadata"]["name"])
        for resource in crd_resources(crd):
            self._add(resource)
            self._by_crd.setdefault(crd["metadata"]["name"], []).append(resource)

    def drop_crd(self, name: str) -> None:
        """Stop serving what a CustomResourceDefinition described."""
        for resource in self._by_crd.pop(name, []):
            del self._by_url[resource.group, resource.version, resource.plural]
            del self._by_kind[resource.group, resource.version, resource.kind]
        self.revision += 1

    def _add(self, resource: Resource) -> None:
        self._by_url[resource.group, resource.version, resource.plural] = resource
        self._by_kind[resource.group, resource.version, resource.kind] = resource
        self.revision += 1
