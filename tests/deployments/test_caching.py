"""Weights that are fetched ahead, from the form to what is signed, and the step of it on the page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.forms.request import DeploymentForm, initial_of
from deployments.kube.errors import ClusterError, ErrorClass
from deployments.models import AppliedObject, Cluster, Deployment, Flavor, Team, User, Wanted
from deployments.reconciler.plan import FETCHED
from deployments.services import requests
from deployments.services.errors import RefusedError
from deployments.spec import DeploymentSpec, digest
from deployments.views.steps import Step, steps
from deployments.watcher import heart
from tests.deployments import factories as make
from tests.deployments.test_views_request import typed

pytestmark = pytest.mark.django_db

FILES = [{"name": "files", "provisioner": "nfs.csi.k8s.io", "default": True}]
SERVED = {
    "serving.kserve.io": ["v1beta1", "v1alpha1"],
    "gateway.networking.k8s.io": ["v1"],
    "monitoring.coreos.com": ["v1"],
}
IMAGE = "registry.example.com/models/granite@sha256:" + "c" * 64


def cluster(storage: object = FILES) -> None:
    """A cluster that was seen just now, with these storage classes."""
    make.make_cluster()
    Cluster.objects.update(capabilities={"groups": SERVED, "storage": storage}, seen_at=timezone.now(), trouble="")


def known() -> None:
    check = make.make_check()
    check.facts = {**check.facts, "download_bytes": 20 * 2**30}
    check.save()


def wish(**changes: Any) -> DeploymentSpec:
    spec = {
        "source": {"uri": make.QWEN, "cache": "claim"},
        "flavor": "h100-80gb",
        "engine": {"profile": "vllm-0.32.0", "args": {"max-model-len": 8192}},
    }
    return DeploymentSpec.from_json({**spec, **changes})


@pytest.fixture
def ready(team: Team, h100: Flavor) -> None:
    make.make_profile()
    make.make_grant(team, h100, 4)
    known()
    cluster()


def ask(team: Team, ann: User, **changes: Any) -> Deployment:
    return requests.submit(principal=make.principal(ann), team=team, name="chat", spec=wish(**changes))


def test_the_claim_is_part_of_what_an_approval_signs(ready: None, team: Team, ann: User) -> None:
    revision = ask(team, ann).latest
    assert revision is not None
    sized = {name: revision.resolution[name] for name in ("claim_gib", "claim_class", "claim_mode")}
    assert sized == {"claim_gib": 24, "claim_class": "files", "claim_mode": "ReadWriteMany"}
    kinds = [obj["kind"] for obj in revision.objects_json]
    assert kinds[:3] == ["NetworkPolicy", "PersistentVolumeClaim", "Job"]
    changed = [{**obj, "spec": {}} if obj["kind"] == "Job" else obj for obj in revision.objects_json]
    assert revision.digest == digest(wish(), revision.resolution, revision.objects_json)
    assert revision.digest != digest(wish(), revision.resolution, changed)


def test_without_a_storage_class_it_is_not_asked_for(ready: None, team: Team, ann: User) -> None:
    cluster([])
    with pytest.raises(RefusedError) as refused:
        ask(team, ann)
    assert [(finding.code, finding.field) for finding in refused.value.findings if finding.is_error] == [
        ("cache_no_storage", "source_cache")
    ]


def test_the_operators_class_is_the_one(ready: None, team: Team, ann: User, settings: Any) -> None:
    cluster([*FILES, {"name": "disks", "provisioner": "ebs.csi.aws.com", "default": False}])
    settings.SLIPWAY_CACHE_CLASS = "disks"
    revision = ask(team, ann).latest
    assert revision is not None
    assert (revision.resolution["claim_class"], revision.resolution["claim_mode"]) == ("disks", "ReadWriteOnce")


def test_the_form_reads_it_and_keeps_it_when_edited(hub: list[str], alice: User) -> None:
    def spec_of(**fields: str) -> DeploymentSpec:
        spec = DeploymentForm(typed(**fields), principal=make.principal(alice)).spec
        assert spec is not None
        return spec

    assert spec_of().source.cache is None
    ahead = spec_of(source_cache="claim")
    assert ahead.source.cache == "claim"
    assert spec_of(**{name: str(value) for name, value in initial_of(ahead.to_json()).items()}) == ahead
    # The field is not shown where nodes keep the weights.
    assert spec_of(strategy="oci-volume", source_uri=IMAGE, source_cache="claim").source.cache is None


def test_a_value_that_is_none_stands_at_its_field(hub: list[str], alice: User) -> None:
    form = DeploymentForm(typed(source_cache="disk"), principal=make.principal(alice))
    assert "source_cache" in form.errors


def test_fetching_is_a_step_of_its_own(ready: None, team: Team, ann: User) -> None:
    row = ask(team, ann)
    assert row.latest is not None
    # As a worker has it that fetches: nothing of this is stored.
    row.latest.verdict, row.approved = "approved", row.latest
    row.state, row.reason = Deployment.State.DOWNLOADING, {"numbers": {"percent": 42}}
    row.wanted = Wanted.RUNNING

    def step() -> Step:
        found = {each.label: each for each in steps(row, None, None)}
        return found["Fetched"]

    assert (step().mark, step().note) == ("now", "42 %")
    at = timezone.now() - timedelta(minutes=1)
    AppliedObject.objects.create(
        deployment=row,
        revision=row.latest,
        api_version="batch/v1",
        kind="Job",
        namespace=team.namespace,
        name="chat-weights-0",
        uid="u",
        managed=FETCHED,
        applied_at=at,
    )
    assert (step().mark, step().at) == ("done", at)


def test_a_watcher_that_may_not_list_storage_classes_sees_everything_else() -> None:
    class Door:
        def version(self, *, timeout: float) -> str:
            return "v1.36.3"

        def read(self, ref: object, *, timeout: float) -> dict[str, Any]:
            return {"metadata": {"uid": "one"}}

        def groups(self, *, timeout: float) -> dict[str, list[str]]:
            return SERVED

        def list_all(self, kind: object, *, timeout: float) -> list[dict[str, Any]]:
            raise ClusterError(ErrorClass.WAIT, "permission", "No.")

    beat = heart.look(Door(), closely=True)  # type: ignore[arg-type]
    assert (beat.uid, beat.storage, beat.trouble) == ("one", None, "")
