"""What downloads may take on the cluster: read by the watcher, and held against what is configured."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.findings import Severity
from deployments.kube.errors import ClusterError, ErrorClass
from deployments.manifests import build_cluster_objects
from deployments.models import Cluster
from deployments.preflight import ClusterFacts, CredentialFacts, check
from deployments.preflight.fetching import bytes_of, limits_in
from deployments.services import facts
from deployments.spec import DeploymentSpec
from deployments.watcher import heart
from tests.deployments import factories as make
from tests.deployments.preflighting import codes, the
from tests.deployments.wishes import facts_of, roles_json, spec_of

NAMES = ("slipway-hf", "slipway-s3-public")


def said(limits: dict[str, str] | None, wanted: str = "8Gi", spec: DeploymentSpec | None = None, **source: Any) -> Any:
    known = ClusterFacts(sandbox=True, fetch_limits=limits, fetch_memory=wanted, claims=frozenset({"weights"}))
    wish = spec or spec_of(**({"source": source} if source else {}))
    return check(wish, "chat", "search", facts_of(cluster=known, credentials={"keys": CredentialFacts(kind="s3")}))


def test_limits_are_read_as_they_are_written() -> None:
    assert limits_in(build_cluster_objects("install")) == dict.fromkeys(NAMES, "8Gi")
    assert limits_in([{"metadata": {"name": "bare"}, "spec": {}}]) == {"bare": ""}


@pytest.mark.parametrize(
    ("amount", "size"),
    [("8Gi", 8 * 2**30), ("8192Mi", 2**33), ("1G", 10**9), ("1.5Gi", 1.5 * 2**30), ("1073741824", 2**30), ("", None),
     ("much", None), ("1Xi", None)],
)  # fmt: skip
def test_amounts_are_those_of_kubernetes(amount: str, size: float | None) -> None:
    assert bytes_of(amount) == size


def test_less_than_what_is_configured_is_a_warning_before_a_download_is_killed() -> None:
    finding = the("fetch_memory_low", said({"slipway-hf": "1Gi"}))
    assert (finding.severity, finding.field) == (Severity.WARNING, "source_uri")
    assert finding.message.startswith("Downloads may take 1Gi of memory on this cluster, where 8Gi is configured")
    for limits, wanted in (
        ({"slipway-hf": "8192Mi"}, "8Gi"),
        ({"slipway-hf": "24Gi"}, "8Gi"),
        ({"slipway-hf": ""}, "8Gi"),
    ):
        assert "fetch_memory_low" not in codes(said(limits, wanted))
    assert codes(said(None)) == codes(said({"slipway-hf": "8Gi"}))


def test_without_the_storage_container_nothing_would_start() -> None:
    finding = the("storage_container_missing", said({"slipway-s3-public": "8Gi"}))
    assert finding.is_error
    assert "k8s/portal/storage-container.yaml" in finding.remedy
    public = the("storage_container_missing", said({"slipway-hf": "8Gi"}, uri="s3://bucket/chat"))
    assert "slipway-s3-public" in public.message
    assert "storage_container_missing" not in codes(
        said({"slipway-hf": "8Gi"}, uri="s3://bucket/chat", credential="keys")
    )


def test_what_names_no_storage_container_needs_none() -> None:
    for spec in (
        spec_of(source={"uri": "pvc://weights/chat"}),
        spec_of(source={"uri": "hf://a/b", "cache": "claim"}),
        DeploymentSpec.from_json(roles_json()),
        spec_of(nodes=2, args={"pipeline-parallel-size": 2}),
    ):
        assert "storage_container_missing" not in codes(said({}, spec=spec))


class Door:
    """A cluster as the heart asks it."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused

    def version(self, *, timeout: float) -> str:
        return "v1.36.3"

    def read(self, ref: Any, *, timeout: float) -> Any:
        return {"metadata": {"uid": "u"}}

    def groups(self, *, timeout: float) -> dict[str, list[str]]:
        return {}

    def list_all(self, kind: Any, *, timeout: float) -> Any:
        if kind is heart.STORAGE_CONTAINER and self.refused:
            raise ClusterError(ErrorClass.WAIT, self.refused, "No.")
        return build_cluster_objects("install") if kind is heart.STORAGE_CONTAINER else []


@pytest.mark.django_db
def test_the_watcher_keeps_the_limits_where_it_may_read_them(settings: Any) -> None:
    settings.FETCH_MEMORY = "24Gi"
    row = heart.main_cluster()
    for refused, limits in (("", dict.fromkeys(NAMES, "8Gi")), ("permission", None), ("kind_missing", None)):
        heart.record(row, heart.look(Door(refused), closely=True), blind="")  # type: ignore[arg-type]
        known = facts.gather(team=make.make_team(f"t{len(refused)}"), name="chat").cluster
        assert (known.fetch_limits, known.fetch_memory) == (limits, "24Gi")
    Cluster.objects.update(seen_at=None)
    assert facts.gather(team=None, name="chat").cluster.fetch_limits is None
