"""Weights that are fetched ahead: what preflight says of it, and which storage class keeps them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.findings import Finding
from deployments.manifests.cache import gib_for
from deployments.preflight import ClusterFacts, Facts, check
from deployments.preflight.storage import MANY, ONE, StorageFacts, chosen, classes_in, storage_of
from deployments.spec import DeploymentSpec
from tests.deployments.preflighting import SERVED
from tests.deployments.wishes import LLAMA, facts_of, roles_json, spec_json

FILES = StorageFacts("files", "nfs.csi.k8s.io", mode=MANY)
DISKS = StorageFacts("disks", "pd.csi.storage.gke.io", is_default=True)
KNOWN = dataclasses.replace(LLAMA, download_bytes=32 * 2**30)


def facts(*storage: StorageFacts, known: bool = True, **changes: Any) -> Facts:
    """Facts of a cluster with these storage classes."""
    cluster = ClusterFacts(sandbox=True, groups=SERVED, storage=storage if known else None)
    return facts_of(**{"cluster": cluster, "model": KNOWN, **changes})


def said(known: Facts, uri: str = "hf://meta-llama/Llama-3.1-8B-Instruct", **spec: Any) -> dict[str, Finding]:
    """What preflight says about the cache, by code."""
    build = roles_json if spec.get("strategy") == "disaggregated" else spec_json
    wish = DeploymentSpec.from_json(build(source={"uri": uri, "cache": "claim"}, **spec))
    found = check(wish, "chat", "search", known)
    return {finding.code: finding for finding in found if finding.field == "source_cache"}


def test_a_shared_class_takes_any_number_of_replicas_and_says_how_much_it_keeps():
    found = said(facts(DISKS, FILES), replicas={"min": 2, "max": 4})
    assert set(found) == {"cache_takes"}
    assert "38 GiB in the storage class “files”" in found["cache_takes"].message


@pytest.mark.parametrize(
    ("uri", "code"),
    [("pvc://claim/llama", "cache_of_claim"), ("oci://registry.example.com/a@sha256:" + "c" * 64, "cache_of_image")],
)
def test_what_is_mounted_anyway_is_not_fetched(uri: str, code: str):
    finding = said(facts(FILES), uri)[code]
    assert finding.is_error
    assert finding.remedy == "Leave it out."


def test_without_a_size_there_is_no_claim():
    finding = said(facts(FILES, model=LLAMA))["cache_size_unknown"]
    assert finding.is_error
    assert "Credentials" in finding.remedy


def test_without_a_storage_class_it_is_refused():
    finding = said(facts())["cache_no_storage"]
    assert finding.is_error
    assert "admin" in finding.remedy


def test_storage_that_nobody_may_list_is_refused_with_what_to_do():
    assert "SLIPWAY_CACHE_CLASS" in said(facts(known=False))["cache_storage_unknown"].remedy


@pytest.mark.parametrize(
    ("spec", "nodes", "code"),
    [
        ({"replicas": {"min": 1, "max": 2}}, 4, "cache_one_node"),
        ({"replicas": {"min": 1, "max": 2}}, None, "cache_one_node"),
        ({"replicas": {"min": 1, "max": 2}}, 1, "cache_ties"),
        ({"replicas": {"min": 1, "max": 1}}, 4, "cache_ties"),
        ({"strategy": "disaggregated"}, 4, "cache_one_node"),
    ],
)
def test_a_volume_of_one_node_keeps_replicas_together(spec: dict[str, Any], nodes: int | None, code: str):
    known = facts(DISKS)
    flavors = {**known.flavors, "h100": dataclasses.replace(known.flavors["h100"], nodes=nodes)}
    finding = said(dataclasses.replace(known, flavors=flavors), **spec)[code]
    assert finding.is_error == (code == "cache_one_node")
    assert "ReadWriteOnce" in finding.message


def test_what_is_fetched_once_does_not_change_under_later_replicas():
    for cache, told in ((None, True), ("claim", False)):
        wish = DeploymentSpec.from_json(spec_json(source={"uri": "s3://bucket/llama", "cache": cache}))
        codes = {finding.code for finding in check(wish, "chat", "search", facts(FILES))}
        assert ("source_may_change" in codes) == told


def test_nothing_is_said_where_nobody_asks_for_it():
    wish = DeploymentSpec.from_json(spec_json())
    assert not [finding for finding in check(wish, "chat", "search", facts()) if finding.code.startswith("cache_")]


def test_the_class_of_a_shared_file_system_goes_before_the_default():
    assert chosen([DISKS, FILES]) == FILES
    assert chosen([StorageFacts("a"), DISKS]) == DISKS
    assert chosen([]) is None


def test_classes_are_known_by_what_makes_their_volumes():
    listed = [
        {"metadata": {"name": "ceph"}, "provisioner": "rook-ceph.cephfs.csi.ceph.com"},
        {
            "metadata": {"name": "ebs", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "ebs.csi.aws.com",
        },
    ]
    assert storage_of(classes_in(listed)) == (
        StorageFacts("ceph", "rook-ceph.cephfs.csi.ceph.com", False, MANY),
        StorageFacts("ebs", "ebs.csi.aws.com", True, ONE),
    )


def test_an_operator_names_the_class_and_how_it_is_mounted():
    kept = [{"name": "disks", "provisioner": "example.com/disks", "default": True}]
    assert storage_of(kept, "disks:ReadWriteMany") == (StorageFacts("disks", "example.com/disks", True, MANY),)
    assert storage_of(kept, "other") == ()
    assert storage_of(None, "other") == (StorageFacts("other"),)
    assert storage_of(None) is None


def test_a_claim_has_room_for_what_is_fetched_and_a_little_more():
    assert gib_for(10 * 2**30) == 13


def test_a_spec_without_it_keeps_its_digest():
    assert "cache" not in DeploymentSpec.from_json(spec_json()).to_json()["source"]
    wish = DeploymentSpec.from_json(spec_json(source={"uri": "hf://a/b", "cache": "claim"}))
    assert wish.to_json()["source"]["cache"] == "claim"
