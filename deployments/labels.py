"""Names that Slipway writes on the cluster, and names of others that it reads there."""

MANAGED_BY = "slipway"
FIELD_MANAGER = "slipway"
LABEL_INSTALL = "slipway.dev/install"
LABEL_TEAM = "slipway.dev/team"
LABEL_DEPLOYMENT = "slipway.dev/deployment"
LABEL_REVISION = "slipway.dev/revision"
# On pods of a deployment that are no engines of it, and what it says of those that fetch weights ahead.
LABEL_COMPONENT = "slipway.dev/component"
FETCH_COMPONENT = "fetch"
ANNOTATION_HASH = "slipway.dev/spec-hash"
ANNOTATION_SECRETS = "slipway.dev/secrets"
# Of a signed service: the container of its own that the token of the deployment's credential goes to.
ANNOTATION_TOKEN = "slipway.dev/token-for"  # noqa: S105 - a name
ANNOTATION_STOP = "serving.kserve.io/stop"
LABEL_ISVC = "serving.kserve.io/inferenceservice"
LABEL_LLM_NAME = "app.kubernetes.io/name"  # of an LLMInferenceService, on pods whose part-of says so
LABEL_LLM_COMPONENT = "app.kubernetes.io/component"
LABEL_PART_OF = "app.kubernetes.io/part-of"
PART_OF_LLM = "llminferenceservice"
PREFILL_COMPONENT = "llminferenceservice-workload-prefill"
WORKER_COMPONENT = "llminferenceservice-workload-worker"
SCHEDULER_COMPONENT = "llminferenceservice-router-scheduler"
LABEL_ROLE = "llm-d.ai/role"
ENGINE_CONTAINER = "kserve-container"
LLM_ENGINE_CONTAINER = "main"  # of an LLMInferenceService
ENGINE_CONTAINERS = (ENGINE_CONTAINER, LLM_ENGINE_CONTAINER)
INITIALIZER = "storage-initializer"
ADAPTER_INITIALIZER = "adapter-initializer"
GPU_PREFIX = "nvidia.com/"
