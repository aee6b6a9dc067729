"""Typed causes: what pods, events, statuses and logs say, in words for people, with the field that fixes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Weight(StrEnum):
    """What a reason means for the deployment's state."""

    PROGRESS = "progress"
    STALLED = "stalled"
    BLOCKED = "blocked"
    FAILED = "failed"


class Code(StrEnum):
    """The causes Slipway can tell apart."""

    NO_FREE_GPU = "no_free_gpu"
    NO_MATCHING_NODE = "no_matching_node"
    NODE_FULL = "node_full"
    UNSCHEDULABLE = "unschedulable"
    QUOTA_EXCEEDED = "quota_exceeded"
    POD_SECURITY = "pod_security"
    PODS_REFUSED = "pods_refused"
    IMAGE_PULL = "image_pull"
    MODEL_ACCESS = "model_access"
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_SCHEME = "model_scheme"
    HUB_UNREACHABLE = "hub_unreachable"
    DOWNLOAD_MEMORY = "download_memory"
    DOWNLOAD_DISK = "download_disk"
    DOWNLOAD_FAILED = "download_failed"
    DOWNLOADING = "downloading"
    STARTING = "starting"
    PULLING = "pulling"
    KV_CACHE_TOO_SMALL = "kv_cache_too_small"
    GPU_MEMORY = "gpu_memory"
    GPU_BUSY = "gpu_busy"
    UNKNOWN_FLAG = "unknown_flag"
    BAD_VALUE = "bad_value"
    CONTEXT_TOO_LONG = "context_too_long"
    HEADS_NOT_DIVISIBLE = "heads_not_divisible"
    QUANTIZATION = "quantization"
    MODEL_FILES = "model_files"
    PLUGIN_MISSING = "plugin_missing"
    NO_USER_NAME = "no_user_name"
    REMOTE_CODE = "remote_code"
    ENGINE_CRASH = "engine_crash"
    HOST_MEMORY = "host_memory"
    START_TOO_SLOW = "start_too_slow"
    VOLUME = "volume"
    CONFIG = "config"
    DEVICE_PLUGIN = "device_plugin"
    EVICTED = "evicted"
    RUNTIME = "runtime"
    RECONCILE = "reconcile"
    ROLLOUT_SLOW = "rollout_slow"
    NO_REPLICAS_YET = "no_replicas_yet"
    PROBE_FAILED = "probe_failed"
    # What stands in the way of a write: the reconciler's own words.
    NAME_TAKEN = "name_taken"
    DISOWNED = "disowned"
    NOT_APPROVED = "not_approved"
    NOT_RESERVED = "not_reserved"
    TEAM_BLOCKED = "team_blocked"
    PERMISSION = "permission"
    UNAUTHORIZED = "unauthorized"
    KIND_MISSING = "kind_missing"
    INVALID = "invalid"
    DENIED = "denied"
    NAMESPACE_MISSING = "namespace_missing"
    NAMESPACE_TERMINATING = "namespace_terminating"
    OTHER_CLUSTER = "other_cluster"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    TOO_MANY_REQUESTS = "too_many_requests"
    WEBHOOK_UNREACHABLE = "webhook_unreachable"


@dataclass(frozen=True)
class Reason:
    """One typed cause of a state.

    `title` is a sentence for people, `remedy` what to do, `field` the form field that fixes it (empty when none
    does) and `value` the value to put there. `evidence` is the line of the cluster that says so: hostile text.
    """

    code: Code
    weight: Weight
    title: str
    remedy: str = ""
    field: str = ""
    value: int | float | bool | str | None = None
    numbers: Mapping[str, int | float | str] = dataclasses.field(default_factory=dict)
    evidence: str = ""
    pod: str = ""
    revision: int | None = None

    def as_json(self) -> dict[str, Any]:
        """This reason as the API, rows and the command line show it."""
        return {
            "code": self.code.value,
            "weight": self.weight.value,
            "title": self.title,
            "remedy": self.remedy,
            "field": self.field,
            "value": self.value,
            "numbers": dict(self.numbers),
            "evidence": self.evidence,
            "pod": self.pod,
            "revision": self.revision,
        }
