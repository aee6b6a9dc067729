"""What each kind of source becomes on the cluster: address, storage container, account, network, engine arguments."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from deployments.manifests import Platform, Wish, build, build_cluster_objects, build_service_account
from deployments.manifests.cluster import PUBLIC_S3
from deployments.preflight.objects import check_objects
from tests.deployments.test_manifests import one
from tests.deployments.test_manifests import test_every_object_is_valid_for_its_schema as check_schema
from tests.deployments.wishes import spec_of, wish_of

PLACES = {
    "s3://bucket/models/qwen/": "slipway-hf",
    "gs://bucket/models/qwen": "slipway-hf",
    "https://files.example.com/qwen.tar.gz": "slipway-hf",
    "pvc://claim/qwen": None,
    "pvc://claim": None,
}


STORAGE = {"matchLabels": {"kubernetes.io/metadata.name": "storage"}}


def wish(uri: str, credential: str | None = "store", platform: Platform | None = None, **resolved: Any) -> Wish:
    made = wish_of(spec_of(source={"uri": uri, "credential": credential}))
    resolution = dataclasses.replace(made.resolution, storage_uri=uri, commit="", **resolved)
    return dataclasses.replace(made, resolution=resolution, platform=platform or made.platform)


def objects(uri: str, credential: str | None = "store", **resolved: Any) -> list[dict[str, Any]]:
    return build(wish(uri, credential, **resolved))


@pytest.mark.parametrize(("uri", "container"), PLACES.items())
def test_places_are_fetched_through_our_container_and_claims_are_mounted(uri: str, container: str | None):
    built = objects(uri)
    predictor = one(built, "InferenceService")["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == uri
    assert predictor.get("storageContainerName") == container
    assert check_objects(built) == []
    for obj in built:
        check_schema(obj)
    if container:
        (ours,) = (item for item in build_cluster_objects("x") if item["metadata"]["name"] == container)
        assert any(_takes(form, uri) for form in ours["spec"]["supportedUriFormats"])


def test_a_public_bucket_goes_through_a_container_that_asks_as_anybody():
    built = objects("s3://bucket/models/qwen/", credential=None)
    predictor = one(built, "InferenceService")["spec"]["predictor"]
    assert predictor["storageContainerName"] == "slipway-s3-public"
    assert predictor["model"]["storageUri"] == "s3://bucket//models/qwen/"
    (public,) = (item for item in build_cluster_objects("x") if item["metadata"]["name"] == "slipway-s3-public")
    assert {"name": "awsAnonymousCredential", "value": "true"} in public["spec"]["container"]["env"]
    assert check_objects(built) == []


@pytest.mark.parametrize("uri", ["s3://bucket/models/qwen", "s3://bucket/", "gs://bucket//x", "hf://a/b:" + "a" * 40])
def test_nobody_else_gets_the_container_that_shows_no_keys(uri: str):
    assert not re.search(PUBLIC_S3, uri)


@pytest.mark.parametrize(
    ("endpoint", "peer", "port"),
    [
        ("http://minio.storage:9000", {"namespaceSelector": STORAGE}, 9000),
        ("https://minio.storage.svc.cluster.local", {"namespaceSelector": STORAGE}, 443),
        ("http://10.1.2.3:9000", {"ipBlock": {"cidr": "10.1.2.3/32"}}, 9000),
        (
            "https://minio.corp.example.com",
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["127.0.0.0/8", "169.254.0.0/16"]}},
            443,
        ),
    ],
)
def test_pods_reach_a_store_of_the_operators_and_nothing_else_beside(endpoint: str, peer: dict[str, Any], port: int):
    closed = one(objects("s3://bucket/m/"), "NetworkPolicy")["spec"]["egress"]
    egress = one(objects("s3://bucket/m/", endpoint=endpoint), "NetworkPolicy")["spec"]["egress"]
    assert egress == [*closed, {"to": [peer], "ports": [{"protocol": "TCP", "port": port}]}]


def test_workload_identity_names_the_teams_account_only_where_no_key_is_named():
    platform = Platform(google_account="slipway-{team}@project.iam.gserviceaccount.com")

    def identity(uri: str, credential: str | None) -> Any:
        asked = wish(uri, credential, platform)
        account = build_service_account(asked)
        closed = one(build(asked), "NetworkPolicy")["spec"]["egress"]
        return account["metadata"]["annotations"].get("iam.gke.io/gcp-service-account"), len(closed)

    assert identity("gs://bucket/m", None) == ("slipway-search@project.iam.gserviceaccount.com", 3)
    assert identity("gs://bucket/m", "key") == (None, 1)
    assert identity("s3://bucket/m/", None) == (None, 1)


def test_a_single_file_is_what_the_engine_is_given():
    def arguments(**resolved: Any) -> list[str]:
        runtime = one(objects("s3://bucket/qwen.gguf", **resolved), "ServingRuntime")
        args: list[str] = runtime["spec"]["containers"][0]["args"]
        return args

    assert arguments()[-1] == "--model=/mnt/models"
    assert arguments(file="qwen.gguf")[-1] == "--model=/mnt/models/qwen.gguf"
    assert arguments(file="qwen.gguf", tokenizer="beside")[-2:] == [
        "--model=/mnt/models/qwen.gguf",
        "--tokenizer=/mnt/models",
    ]


def _takes(form: dict[str, str], uri: str) -> bool:
    return uri.startswith(form["prefix"]) if "prefix" in form else bool(re.search(form["regex"], uri))
