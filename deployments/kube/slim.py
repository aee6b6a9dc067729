"""Objects of the API decoded down to what is looked at: unknown fields are skipped while parsing, never built. Pure."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
import orjson

from deployments.kube.ownership import hash_of_fields
from deployments.labels import FIELD_MANAGER

T = TypeVar("T")


class _Slim(msgspec.Struct, rename="camel", omit_defaults=True):
    """A part of an object; `plain` gives it back in the API's own shape."""

    def plain(self) -> dict[str, Any]:
        """This part as the API writes it, without what is empty."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


class ManagedFields(msgspec.Struct, rename="camel"):
    """One entry of the managed fields; the field set stays raw until it is ours."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""
    fields_v1: msgspec.Raw = msgspec.field(name="fieldsV1", default_factory=msgspec.Raw)


class Meta(_Slim):
    """What is looked at of any object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class OwnedMeta(Meta):
    """Metadata of an object that we may have written."""

    managed_fields: list[ManagedFields] = []

    def managed(self) -> str:
        """The same hash as `ownership.managed_hash`, from the raw field sets of our own entries."""
        return hash_of_fields(
            (entry.operation, orjson.loads(bytes(entry.fields_v1)))
            for entry in self.managed_fields
            if entry.manager == FIELD_MANAGER and not entry.subresource and bytes(entry.fields_v1)
        )


class Named(_Slim):
    """An object of which only the metadata counts."""

    metadata: OwnedMeta


class _Container(_Slim):
    resources: dict[str, Any] | None = None


class _PodSpec(_Slim):
    node_name: str | None = None
    containers: list[_Container] = []


class _PodStatus(_Slim):
    phase: str | None = None
    reason: str | None = None
    message: str | None = None
    pod_ip: str | None = msgspec.field(name="podIP", default=None)
    conditions: list[dict[str, Any]] | None = None
    container_statuses: list[dict[str, Any]] | None = None
    init_container_statuses: list[dict[str, Any]] | None = None


class Pod(_Slim):
    """A pod."""

    metadata: Meta
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


class _TemplateMeta(_Slim):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Template(_Slim):
    metadata: _TemplateMeta | None = None


class _WorkloadSpec(_Slim):
    replicas: int | None = None
    template: _Template | None = None


class _WorkloadStatus(_Slim):
    replicas: int | None = None
    ready_replicas: int | None = None
    updated_replicas: int | None = None
    conditions: list[dict[str, Any]] | None = None


class Workload(_Slim):
    """An apps/v1 Deployment."""

    metadata: Meta
    spec: _WorkloadSpec = msgspec.field(default_factory=_WorkloadSpec)
    status: _WorkloadStatus = msgspec.field(default_factory=_WorkloadStatus)


class _ServiceStatus(_Slim):
    conditions: list[dict[str, Any]] | None = None
    model_status: dict[str, Any] | None = None


class Service(_Slim):
    """An InferenceService."""

    metadata: OwnedMeta
    status: _ServiceStatus = msgspec.field(default_factory=_ServiceStatus)


class Event(_Slim):
    """A core/v1 Event."""

    metadata: Meta
    type: str | None = None
    reason: str | None = None
    message: str | None = None
    count: int | None = None
    involved_object: dict[str, Any] | None = None
    series: dict[str, Any] | None = None
    last_timestamp: str | None = None
    event_time: str | None = None


class _NodeSpec(_Slim):
    unschedulable: bool = False


class _NodeStatus(_Slim):
    capacity: dict[str, str] | None = None
    allocatable: dict[str, str] | None = None
    conditions: list[dict[str, Any]] | None = None


class Node(_Slim):
    """A node."""

    metadata: Meta
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


class ListMeta(msgspec.Struct, rename="camel"):
    """Where a list was made."""

    resource_version: str = ""


class Page(msgspec.Struct, Generic[T]):
    """One page of a list."""

    metadata: ListMeta
    items: list[T]


class Head(msgspec.Struct):
    """A line of a watch: what happened, and the object still raw."""

    type: str
    object: msgspec.Raw


class _BookmarkMeta(msgspec.Struct, rename="camel"):
    resource_version: str


class Bookmark(msgspec.Struct):
    """An object of which only the version counts."""

    metadata: _BookmarkMeta
