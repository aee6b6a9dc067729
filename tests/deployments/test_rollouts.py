"""Whether a change of what serves interrupts it: said before it is sent, on its page, and to who approves."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from deployments.manifests import build, gpus_of
from deployments.models import Deployment, User, Wanted
from deployments.preflight import Serving, check
from deployments.services import facts
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make
from tests.deployments.preflighting import codes, said, the
from tests.deployments.viewing import flat, signed_in
from tests.deployments.wishes import facts_of, roles_json, spec_of, wish_of

TWO_NODES = {"max-model-len": 8192, "tensor-parallel-size": 4, "pipeline-parallel-size": 2}
ONE, TWO = {"min": 1, "max": 4}, {"min": 2, "max": 4}


def now(strategy: str = "standard", nodes: int = 1, fewest: int = 1) -> Serving:
    return Serving(strategy, nodes, fewest)


@pytest.mark.parametrize(("before", "after", "told"), [(1, ONE, True), (1, TWO, True), (2, ONE, True), (2, TWO, False)])
def test_the_only_replica_goes_before_its_successor_comes(before: int, after: dict[str, int], told: bool):
    found = said(facts_of(serving=now(fewest=before)), replicas=after)
    assert ("service_interrupted" in codes(found)) is told
    if told:
        finding = the("service_interrupted", found)
        assert (finding.field, finding.severity) == ("replicas_min", "warning")
        assert "for about as long as a start takes" in finding.message
        assert "Two replicas or more" in finding.remedy


def test_what_serves_nothing_is_not_interrupted():
    assert "service_interrupted" not in codes(said(facts_of(serving=None)))


def test_groups_of_nodes_are_replaced_in_place():
    found = said(facts_of(serving=now(nodes=2)), args=TWO_NODES, nodes=2)
    assert the("service_interrupted", found).field == "replicas_min"
    assert "service_interrupted" not in codes(
        said(facts_of(serving=now(nodes=2, fewest=2)), args=TWO_NODES, nodes=2, replicas=TWO)
    )


def test_another_kind_of_workload_takes_the_place_of_the_first():
    found = said(facts_of(serving=now(fewest=3)), args=TWO_NODES, nodes=2, replicas=TWO)
    assert the("service_interrupted", found).field == "nodes"
    apart = DeploymentSpec.from_json(roles_json())
    found = check(apart, "chat", "search", facts_of(serving=now(fewest=3)))
    assert the("service_interrupted", found).field == "strategy"
    # Roles roll with a surge, which is charged.
    found = check(apart, "chat", "search", facts_of(serving=Serving.of(apart.to_json())))
    assert "service_interrupted" not in codes(found)


def test_what_is_built_is_what_is_told():
    """No GPU beside those of its replicas: were a surge built, the finding would be false and the charge higher."""
    spec = spec_of(replicas=ONE)
    objects = build(wish_of(spec))
    (service,) = (obj for obj in objects if obj["kind"] == "InferenceService")
    rolling = service["spec"]["predictor"]["deploymentStrategy"]
    assert rolling == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    assert gpus_of(objects) == spec.gpus == 4
    assert Serving.of(spec.to_json()).replaced_alone


def typed(**changes: str) -> dict[str, str]:
    wish = {"team": "search", "name": "chat", "source_uri": make.QWEN, "strategy": "standard", "flavor": "h100-80gb"}
    most = {"tensor_parallel_size": "1", "replicas_min": "1", "replicas_max": "2", "max_model_len": "16384"}
    return {**wish, **most, "gpu_memory_utilization": "0.9", "note": "", **changes}


def running(alice: User, **changes: str) -> Deployment:
    signed_in(alice).post(reverse("deployment-create"), typed(**changes))
    row = Deployment.objects.get()
    assert row.latest is not None
    make.approve(row.latest)
    Deployment.objects.update(applied=row.latest)
    return Deployment.objects.get()


def edit_page(alice: User, row: Deployment) -> str:
    return flat(signed_in(alice).get(reverse("deployment-edit", args=[row.pk])).content.decode())


@pytest.mark.django_db
def test_the_edit_page_promises_what_happens(hub: list[str], alice: User) -> None:
    row = running(alice)
    page = edit_page(alice, row)
    assert "where one replica runs, service is interrupted for about as long as a start takes" in page
    assert "goes on serving" not in page
    assert "Service is interrupted wherever one replica runs" in page, "the finding stands beside the form"
    Deployment.objects.update(wanted=Wanted.STOPPED)
    row.refresh_from_db()
    page = edit_page(alice, row)
    assert "interrupted" not in page
    assert "What serves now" not in page


@pytest.mark.django_db
def test_two_replicas_are_replaced_one_by_one(hub: list[str], alice: User) -> None:
    page = edit_page(alice, running(alice, replicas_min="2"))
    assert "its replicas are replaced one by one" in page
    assert "interrupted" not in page


@pytest.mark.django_db
def test_who_approves_reads_it_on_the_card(hub: list[str], alice: User) -> None:
    row = running(alice)
    edit: dict[str, Any] = typed(max_model_len="8192") | {"base_revision": "1"}
    signed_in(alice).post(reverse("deployment-edit", args=[row.pk]), edit)
    row = Deployment.objects.get()
    assert row.latest is not None
    assert "service_interrupted" in {finding["code"] for finding in row.latest.findings}
    page = flat(signed_in(make.make_user("carol", admin=True)).get(reverse("approvals")).content.decode())
    assert "Service is interrupted wherever one replica runs" in page


@pytest.mark.django_db
def test_what_serves_is_read_without_its_objects(hub: list[str], alice: User, django_assert_num_queries: Any) -> None:
    row = running(alice)
    with django_assert_num_queries(1):
        assert facts.serving_of(row) == Serving("standard", 1, 1)
    assert facts.serving_of(None) is None
