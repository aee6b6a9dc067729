"""What only a real control plane does: webhooks, conversion, and an etcd whose time runs backwards."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployments.models import Cluster
from tests.scenarios.grounds import Ground
from tests.scenarios.stage import SERVICE, Heard, Says, Stage, engine
from tests.scenarios.webhook import HOOK, configuration, refusing

pytestmark = pytest.mark.django_db

CONTROL_PLANE = "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kserve", "llmisvc", "lws"


def test_a_webhook_refuses(stage: Stage, tmp_path: Path):
    stage.open_namespace()
    with refusing(tmp_path, "no models on Wednesdays") as (port, authority):
        stage.ground.create(configuration(port, authority, stage.namespace))
        try:
            row = stage.comes_to(stage.ask(), Says("Blocked", "denied"), within=12)
            assert "no models on Wednesdays" in row.reason["title"]
            assert stage.service(row) is None
        finally:
            stage.ground.remove("ValidatingWebhookConfiguration", HOOK)
        row = stage.comes_to_pass(row, lambda: stage.sweep(row).applied_id, within=12, note="after it was removed")


def test_a_webhook_is_down(stage: Stage, tmp_path: Path):
    stage.open_namespace()
    with refusing(tmp_path, "never heard") as (port, authority):
        hook = configuration(port, authority, stage.namespace)
    stage.ground.create(hook)
    try:
        row = stage.comes_to(stage.ask(), Says("Applying", "webhook_unreachable"), within=12)
        assert "does not answer" in row.reason["title"]
        assert stage.service(row) is None
    finally:
        stage.ground.remove("ValidatingWebhookConfiguration", HOOK)
    stage.comes_to(row, Says("Running"), within=60, note="after it was removed")


def test_conversion_of_v1alpha1(stage: Stage):
    """An older client's object is stored as v1alpha2, and given back as it was."""
    stage.open_namespace()
    path = f"/apis/serving.kserve.io/{{}}/namespaces/{stage.namespace}/llminferenceservices"
    model = {"uri": "hf://Qwen/Qwen2.5-0.5B-Instruct", "name": "qwen", "criticality": "Critical"}
    old = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LLMInferenceService",
        "metadata": {"name": "older", "namespace": stage.namespace},
        "spec": {"model": model, "replicas": 0, "router": {"route": {}, "gateway": {}, "scheduler": {}}},
    }
    stage.ground.call("POST", path.format("v1alpha1"), old)

    new = stage.ground.call("GET", f"{path.format('v1alpha2')}/older")
    assert new["apiVersion"] == "serving.kserve.io/v1alpha2"
    assert {"uri": model["uri"], "name": "qwen"}.items() <= new["spec"]["model"].items()
    assert "criticality" not in new["spec"]["model"]
    back = stage.ground.call("GET", f"{path.format('v1alpha1')}/older")
    assert back["spec"]["model"] == model
    assert back["metadata"]["uid"] == new["metadata"]["uid"]


def test_etcd_restored_to_an_older_state(stage: Stage):
    row = stage.running()
    keep_state(stage.ground)
    row = stage.revise(row, engine=engine(max_model_len=4096))
    row = stage.until(row, lambda: stage.newest_serves(row, 2), within=60, what="revision 2")
    later = stage.running("later")
    uid = stage.service(later)["metadata"]["uid"]

    restore_state(stage.ground)
    assert stage.ground.read(SERVICE, "later", stage.namespace) is None
    assert stage.service(row)["metadata"]["labels"]["slipway.dev/revision"] == "1"

    said: set[Heard] = set()
    healed = stage.hearing(row, stage.hearing(later, lambda: stage.told(row, "healed"), said), said)
    stage.comes_to_pass(row, healed, within=40, note="what was older is put right")
    stage.comes_to_pass(later, lambda: stage.told(later, "restored"), within=15, note="what was newer comes back")
    # Until then: what was seen last, then that it is being applied; nobody is blamed, and nothing is given back.
    # A call that etcd's absence held up may run out of time on a busy machine: that it did is said, too.
    assert {heard.says for heard in said} <= {Says("Running"), Says("Applying"), Says("Applying", "timeout")}
    assert {(heard.outcome, heard.team) for heard in said} <= {("", ""), ("waiting", ""), ("timeout", "")}
    assert (stage.held(row), stage.held(later)) == (1, 1)
    row = stage.comes_to_pass(row, lambda: stage.newest_serves(row, 2), within=45, note="the first serves")
    later = stage.comes_to_pass(later, lambda: stage.newest_serves(later, 1), within=45, note="the second serves")
    assert stage.service(row)["metadata"]["labels"]["slipway.dev/revision"] == "2"
    assert stage.service(later)["metadata"]["uid"] != uid
    assert (stage.held(row), stage.held(later)) == (1, 1)
    stage.until(row, lambda: Cluster.objects.get().trouble == "", what="the banner gone")


def keep_state(ground: Ground) -> None:
    """Copy etcd's data while it holds its breath."""
    with held_still(ground, ("kube-apiserver", "etcd")):
        shutil.copytree(ground.folder / "etcd", ground.folder / "etcd-kept")


def restore_state(ground: Ground) -> None:
    """Put the copy back, as an administrator does: everything that remembers the future is started again."""
    with held_still(ground, ("kube-apiserver", "etcd")):
        (ground.folder / "etcd").rename(ground.folder / "etcd-lost")
        (ground.folder / "etcd-kept").rename(ground.folder / "etcd")
        before = ground.pid("kube-apiserver")
        for program in ("etcd", *CONTROL_PLANE):
            ground.kill(program)
    shutil.rmtree(ground.folder / "etcd-lost")
    deadline = time.monotonic() + 90
    while ground.pid("kube-apiserver") in (0, before) or not ground.answers():
        assert time.monotonic() < deadline, "the API server did not come back"
        time.sleep(0.1)


@contextmanager
def held_still(ground: Ground, programs: Sequence[str]) -> Iterator[None]:
    """Programs that do nothing for the length of the block."""
    pids = [ground.pid(program) for program in programs]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue
