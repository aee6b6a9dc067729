"""The official Python client, as the portal uses it, against the lite server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, dynamic, watch

from sandbox.lite.testing import RunningCluster
from tests.sandbox.conftest import Api, config_map, named, pod

NAMESPACE = "team-python"


@pytest.fixture(scope="module")
def python(lite: RunningCluster, api: Api) -> Any:
    api.namespace(NAMESPACE)
    return config.new_client_from_config(str(lite.kubeconfig))


@pytest.fixture(scope="module")
def resources(lite: RunningCluster, python: Any) -> Any:
    return dynamic.DynamicClient(python, cache_file=str(lite.folder / "discovery.json")).resources


def test_typed_lists_and_creates(python: Any) -> None:
    core = client.CoreV1Api(python)

    made = core.create_namespaced_pod(NAMESPACE, pod("typed"))

    assert made.metadata.uid
    assert [item.metadata.name for item in core.list_namespaced_pod(NAMESPACE).items] == ["typed"]
    assert core.read_namespaced_pod("typed", NAMESPACE).spec.tolerations[0].effect == "NoExecute"
    assert {item.metadata.name for item in core.list_namespace().items} >= {"default", "kserve", NAMESPACE}


def test_typed_errors_carry_the_reason(python: Any) -> None:
    with pytest.raises(client.ApiException) as caught:
        client.CoreV1Api(python).read_namespaced_pod("nobody", NAMESPACE)

    assert caught.value.status == 404
    assert '"reason":"NotFound"' in str(caught.value.body)


def test_server_side_apply_through_the_dynamic_client(resources: Any) -> None:
    services = resources.get(api_version="serving.kserve.io/v1beta1", kind="InferenceService")
    model = {"modelFormat": {"name": "vLLM"}, "storageUri": "hf://a/b"}
    body = named("InferenceService", "applied", services.group_version, spec={"predictor": {"model": model}})
    body["metadata"] |= {"namespace": NAMESPACE, "annotations": {"serving.kserve.io/deploymentMode": "Standard"}}
    strict = [("fieldValidation", "Strict")]

    made = services.server_side_apply(body=body, field_manager="slipway", force_conflicts=True, query_params=strict)
    again = services.server_side_apply(body=body, field_manager="slipway", force_conflicts=True, query_params=strict)

    assert made.metadata.managedFields[0].manager == "slipway"
    assert again.metadata.resourceVersion == made.metadata.resourceVersion


def test_conflicts_are_told_as_such(resources: Any) -> None:
    maps = resources.get(api_version="v1", kind="ConfigMap")
    body = config_map("fought", a="1")
    maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="one")

    with pytest.raises(dynamic.exceptions.ConflictError) as caught:
        maps.server_side_apply(body=config_map("fought", a="2"), namespace=NAMESPACE, field_manager="two")

    assert "FieldManagerConflict" in str(caught.value.body)


def test_watch_with_bookmarks_and_an_end(python: Any, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.lite.watch.BOOKMARK_SECONDS", 0.2)
    core = client.CoreV1Api(python)
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    api.post(f"/api/v1/namespaces/{NAMESPACE}/configmaps", config_map("watched"))

    events = list(
        watch.Watch().stream(
            core.list_namespaced_config_map,
            NAMESPACE,
            resource_version=version,
            allow_watch_bookmarks=True,
            timeout_seconds=1,
        )
    )

    assert (events[0]["type"], events[0]["object"].metadata.name) == ("ADDED", "watched")
    assert {event["type"] for event in events[1:]} == {"BOOKMARK"}


def test_an_expired_watch_raises_410(lite: RunningCluster, python: Any, api: Api) -> None:
    core = client.CoreV1Api(python)
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    api.post(f"/api/v1/namespaces/{NAMESPACE}/configmaps", config_map("expired"))
    lite.compact()

    with pytest.raises(client.ApiException) as caught:
        next(watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, resource_version=version))

    assert caught.value.status == 410


def test_faults_reach_it_as_on_a_real_cluster(lite: RunningCluster, python: Any) -> None:
    from sandbox.lite.testing import Fault

    lite.faults.before_hook = lambda request: Fault(status=503)
    with pytest.raises(client.ApiException) as caught:
        client.CoreV1Api(python).list_namespace()
    lite.faults.clear()

    assert caught.value.status == 503


def test_discovery_knows_custom_kinds(resources: Any, tmp_path: Path) -> None:
    found = resources.get(api_version="gateway.networking.k8s.io/v1", kind="HTTPRoute")

    assert (found.name, found.namespaced) == ("httproutes", True)
