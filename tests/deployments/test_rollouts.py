"""Whether a change of what serves interrupts it: said before it is sent, on its page, and to who approves."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from django.urls import reverse

from deployments.forms.request import DeploymentForm
from deployments.manifests import build, gpus_of
from deployments.models import Deployment, User, Wanted
from deployments.preflight import QuotaFacts, Serving, check
from deployments.preflight.storage import ONE as ONE_NODE
from deployments.preflight.storage import StorageFacts
from deployments.preflight.trials import with_changes
from deployments.services import facts, ledger, requests
from deployments.spec import DeploymentSpec
from deployments.spec_errors import parse_spec
from tests.deployments import factories as make
from tests.deployments.apis import Api
from tests.deployments.preflighting import codes, said, the, with_cluster
from tests.deployments.viewing import flat, signed_in
from tests.deployments.wishes import FLAVORS, LLAMA, facts_of, roles_json, spec_json, spec_of, wish_of

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
        assert finding.severity == "warning"
        assert "for about as long as a start takes" in finding.message
    assert "service_interrupted" not in codes(said(facts_of(serving=now(fewest=before)), replicas=after, surge=1))


def with_room(free: int, limit: int, **more: Any) -> Any:
    """Facts of a change of one H100, of which so many are free, and the team may hold so many."""
    flavors = {**FLAVORS, "h100": dataclasses.replace(FLAVORS["h100"], free=free)}
    quota = QuotaFacts(limit=limit, reserved=1, held=1)
    return facts_of(flavors=flavors, quotas={"h100": quota}, serving=now(), **more)


def test_the_new_pod_first_is_offered_with_what_it_takes():
    finding = the("service_interrupted", said(with_room(free=1, limit=2)))
    assert (finding.field, finding.value) == ("surge", 1)
    assert "1 more GPU of H100 80 GB" in finding.remedy
    changed = with_changes(spec_of(args={"max-model-len": 8192}), [(finding.pointer, finding.value)])
    assert changed is not None
    found = check(changed, "chat", "search", with_room(free=1, limit=2))
    assert codes(found) & {"service_interrupted", "quota_exceeded", "no_room_to_roll"} == set()
    two = said(with_room(free=3, limit=4), args={"tensor-parallel-size": 2})
    assert "2 more GPUs of H100 80 GB" in the("service_interrupted", two).remedy


@pytest.mark.parametrize(("free", "limit"), [(0, 2), (1, 1)], ids=["no GPU is free", "no quota is left"])
def test_without_a_gpu_for_it_nothing_is_set_by_a_button(free: int, limit: int):
    finding = the("service_interrupted", said(with_room(free, limit)))
    assert (finding.field, finding.value) == ("surge", None)
    assert "not as many free" in finding.remedy


@pytest.mark.parametrize(
    ("free", "limit", "code"), [(1, 1, "quota_exceeded"), (0, 2, "no_room_to_roll")], ids=["quota", "cluster"]
)
def test_where_a_pod_more_has_no_gpu_to_be_replaced_in_place_is_proposed(free: int, limit: int, code: str):
    finding = the(code, said(with_room(free, limit), surge=1))
    assert (finding.severity, finding.field, finding.value) == ("warning", "surge", 0)
    assert "replaced in place" in finding.remedy
    changed = with_changes(spec_of(args={"max-model-len": 8192}, surge=1), [(finding.pointer, finding.value)])
    assert changed is not None
    assert code not in codes(check(changed, "chat", "search", with_room(free, limit)))


def test_a_volume_of_one_node_holds_no_pod_of_another():
    disks = (StorageFacts("disks", mode=ONE_NODE),)
    cluster = with_cluster(storage=disks).cluster
    known = facts_of(cluster=cluster, model=dataclasses.replace(LLAMA, download_bytes=2**34), serving=now())
    ahead = {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "cache": "claim"}
    finding = the("cache_one_node", said(known, source=ahead, surge=1))
    assert (finding.is_error, finding.field, finding.value) == (True, "surge", 0)
    # So it is not offered either.
    assert the("service_interrupted", said(known, source=ahead)).field == "replicas_min"


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (roles_json(surge=1), "Roles start new replicas before old ones go"),
        (spec_json(surge=1, nodes=2, args=TWO_NODES), "replaced in place"),
        (spec_json(surge=2), "at most 1"),
        (spec_json(surge=True), "number"),
    ],
)
def test_kserve_leaves_the_choice_to_services_alone(wish: dict[str, Any], says: str):
    (problem,) = parse_spec(wish)[1]
    assert (problem.pointer, problem.field) == ("/spec/surge", "surge")
    assert says in problem.message


def test_what_was_signed_before_keeps_its_digest():
    assert "surge" not in spec_of().to_json()
    assert DeploymentSpec.from_json(spec_of(surge=1).to_json()).surge == 1
    assert spec_of(surge=0).to_json() == spec_of().to_json()


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
    """Without a surge no GPU beside those of its replicas, with it those of one: else finding and charge were false."""
    spec = spec_of(replicas=ONE)
    objects = build(wish_of(spec))
    (service,) = (obj for obj in objects if obj["kind"] == "InferenceService")
    rolling = service["spec"]["predictor"]["deploymentStrategy"]
    assert rolling == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    assert gpus_of(objects) == spec.gpus == 4
    assert Serving.of(spec.to_json()).replaced_alone


@pytest.mark.parametrize("strategy", ["standard", "oci-volume"])
def test_a_pod_first_is_built_and_counted(strategy: str):
    image = f"oci://registry.example.com/m@sha256:{'c' * 64}"
    source = {"uri": image if strategy == "oci-volume" else "hf://a/b"}
    spec = spec_of(replicas=ONE, surge=1, args={"tensor-parallel-size": 2}, strategy=strategy, source=source)
    objects = build(wish_of(spec))
    (service,) = (obj for obj in objects if obj["kind"] == "InferenceService")
    rolling = service["spec"]["predictor"]["deploymentStrategy"]
    assert rolling == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert (spec.gpus, gpus_of(objects)) == (8, 10)
    assert not Serving.of(spec.to_json()).replaced_alone


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
def test_the_form_offers_it_and_keeps_what_was_chosen(hub: list[str], alice: User) -> None:
    row = running(alice, tensor_parallel_size="2", replicas_max="1")
    page = edit_page(alice, row)
    assert '<option value="1">Start the new pod first: no interruption' in page
    assert "for 2 more GPUs of the quota until the change is through" in page
    assert 'value="surge=1"' in page, "the finding's own button"
    edit = typed(tensor_parallel_size="2", replicas_max="1", surge="1") | {"base_revision": "1"}
    signed_in(alice).post(reverse("deployment-edit", args=[row.pk]), edit)
    row = Deployment.objects.get()
    assert row.latest is not None
    assert (row.latest.spec["surge"], row.latest.gpus, row.latest.surge) == (1, 2, 2)
    assert "service_interrupted" not in {finding["code"] for finding in row.latest.findings}
    assert '<option value="1" selected>' in edit_page(alice, row)


@pytest.mark.django_db
def test_other_strategies_do_not_send_the_choice(hub: list[str], alice: User) -> None:
    form = DeploymentForm(typed(strategy="disaggregated", surge="1"), principal=make.principal(alice))
    assert "surge" not in form.spec_data
    form = DeploymentForm(typed(surge="5"), principal=make.principal(alice))
    assert form.spec is None
    assert form.errors["surge"]


@pytest.mark.django_db
def test_the_quota_is_charged_with_the_pod_that_comes_first(hub: list[str], ann_api: Api, ann: User) -> None:
    wish = {"team": "search", "name": "chat", "spec": make.a_spec(surge=1)}
    answer = ann_api("post", "deployments/", wish)
    assert (answer.status_code, answer.json()["spec"]["surge"]) == (201, 1)
    row = Deployment.objects.get()
    assert row.latest is not None
    assert (row.latest.gpus, row.latest.surge, ledger.charge(old=None, new=row.latest)) == (1, 1, 2)
    make.approve(row.latest)
    Deployment.objects.update(applied=row.latest)
    # What gives the surge up says so to the new workload: until that is there, the old one may still roll with it.
    spec = DeploymentSpec.from_json(make.a_spec())
    requests.revise(principal=make.principal(ann), deployment=row, spec=spec, base_revision=1)
    row = Deployment.objects.get()
    assert row.latest is not None
    assert (row.latest.surge, ledger.charge(old=row.applied, new=row.latest)) == (0, 2)


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
