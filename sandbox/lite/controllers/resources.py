"""The kinds of objects controllers read and write."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.client import Obj, resource_path


@dataclass(frozen=True)
class Resource:
    """One kind: where its collection lives and what its objects call themselves."""

    api_version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def collection(self) -> str:
        """The path of all its objects in all namespaces."""
        return resource_path(self.api_version, self.plural)

    def path(self, namespace: str, name: str | None = None) -> str:
        """The path of one namespace's objects or, with `name`, of one object."""
        return resource_path(self.api_version, self.plural, namespace or None, name)

    def of(self, obj: Obj) -> str:
        """The path of `obj`, which is of this kind."""
        meta = obj["metadata"]
        return self.path(meta.get("namespace", ""), meta["name"])


CONFIG_MAPS = Resource("v1", "configmaps", "ConfigMap")
NAMESPACES = Resource("v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("v1", "nodes", "Node", namespaced=False)
PERSISTENT_VOLUME_CLAIMS = Resource("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
PERSISTENT_VOLUMES = Resource("v1", "persistentvolumes", "PersistentVolume", namespaced=False)
STORAGE_CLASSES = Resource("storage.k8s.io/v1", "storageclasses", "StorageClass", namespaced=False)
JOBS = Resource("batch/v1", "jobs", "Job")
PODS = Resource("v1", "pods", "Pod")
SECRETS = Resource("v1", "secrets", "Secret")
SERVICE_ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
SERVICES = Resource("v1", "services", "Service")
DEPLOYMENTS = Resource("apps/v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps/v1", "replicasets", "ReplicaSet")
LEASES = Resource("coordination.k8s.io/v1", "leases", "Lease")
INGRESSES = Resource("networking.k8s.io/v1", "ingresses", "Ingress")
POD_DISRUPTION_BUDGETS = Resource("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
INFERENCE_SERVICES = Resource("serving.kserve.io/v1beta1", "inferenceservices", "InferenceService")
SERVING_RUNTIMES = Resource("serving.kserve.io/v1alpha1", "servingruntimes", "ServingRuntime")
CLUSTER_SERVING_RUNTIMES = Resource(
    "serving.kserve.io/v1alpha1", "clusterservingruntimes", "ClusterServingRuntime", namespaced=False
)
CLUSTER_STORAGE_CONTAINERS = Resource(
    "serving.kserve.io/v1alpha1", "clusterstoragecontainers", "ClusterStorageContainer", namespaced=False
)
GATEWAYS = Resource("gateway.networking.k8s.io/v1", "gateways", "Gateway")
HTTP_ROUTES = Resource("gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute")
INFERENCE_POOLS = Resource("inference.networking.k8s.io/v1", "inferencepools", "InferencePool")
OLD_INFERENCE_POOLS = Resource("inference.networking.x-k8s.io/v1alpha2", "inferencepools", "InferencePool")
LLM_INFERENCE_SERVICES = Resource("serving.kserve.io/v1alpha2", "llminferenceservices", "LLMInferenceService")
LLM_INFERENCE_SERVICE_CONFIGS = Resource(
    "serving.kserve.io/v1alpha2", "llminferenceserviceconfigs", "LLMInferenceServiceConfig"
)
LEADER_WORKER_SETS = Resource("leaderworkerset.x-k8s.io/v1", "leaderworkersets", "LeaderWorkerSet")
STATEFUL_SETS = Resource("apps/v1", "statefulsets", "StatefulSet")
CONTROLLER_REVISIONS = Resource("apps/v1", "controllerrevisions", "ControllerRevision")
ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")
CLUSTER_ROLE_BINDINGS = Resource(
    "rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
