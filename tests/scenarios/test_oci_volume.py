"""Weights that come as an image, mounted by KServe or by the runtime: from the wish to Running, and what goes wrong."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.preflight.facts import ClusterFacts
from deployments.services import approvals
from sandbox.node.images import model_image
from tests.deployments import factories as make
from tests.scenarios.grounds import Object
from tests.scenarios.stage import Says, Stage

pytestmark = pytest.mark.django_db

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def image(tag: str, **source: Any) -> dict[str, Any]:
    """A wish for a small model as one of the images there are."""
    return {"strategy": "oci-volume", "source": {"uri": f"oci://{model_image(MODEL, tag).canonical}", **source}}


@pytest.mark.timeout(200)
def test_weights_in_an_image_from_wish_to_running(stage: Stage):
    files = stage.ask("files", **image("1.0-files", folder="/"))
    row = stage.comes_to(stage.ask(**image("1.0")), Says("Running"), within=60)
    stage.comes_to(files, Says("Running"), within=60, note="files alone")

    pods = {pod["metadata"]["labels"]["serving.kserve.io/inferenceservice"]: pod["spec"] for pod in stage.pods()}
    # KServe mounts the folder that it knows, the runtime any other; nothing downloads.
    assert [mounted(pods[name]) for name in ("chat", "files")] == ["models", None]
    assert all("initContainers" not in pod for pod in pods.values())
    assert (row.applied.gpus, row.applied.surge, stage.held(row)) == (1, 0, 1)


@pytest.mark.timeout(120)
def test_where_images_are_not_mounted_a_sidecar_hands_over_the_weights(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    # The grounds can mount images; Slipway takes the cluster for one that is too old to.
    monkeypatch.setattr(ClusterFacts, "mounts_images", property(lambda self: False))
    row = stage.ask("car", **image("1.0"))
    assert row.latest.guarded == ["modelcar"]
    admin = make.make_user("root", admin=True)
    approvals.decide(principal=make.principal(admin), revision=row.latest, digest=row.latest.digest, approve=True)

    stage.comes_to(row, Says("Running"), within=60)

    # As it was written: the namespace's level admits it, and KServe adds nothing of its own.
    [pod] = stage.pods()
    assert [item["name"] for item in pod["spec"]["initContainers"]] == ["modelcar"]
    assert [item["name"] for item in pod["spec"]["containers"]] == ["kserve-container"]


@pytest.mark.timeout(120)
def test_an_image_that_lacks_what_was_said_names_the_field(stage: Stage):
    wrong = stage.ask("wrong", **image("1.0", folder="/weights"))
    gone = image("1.0")
    gone["source"]["uri"] = gone["source"]["uri"].partition("@")[0] + "@sha256:" + "0" * 64
    row = stage.ask("gone", **gone)
    stage.comes_to(row, Says("Stalled", "image_pull", "source_uri"), within=40)
    stage.comes_to(wrong, Says("Failed", "model_files", "source_folder"), within=40)


def mounted(pod: Object) -> str | None:
    """The folder of the image that the engine finds its model in."""
    (volume,) = (item["name"] for item in pod["volumes"] if "image" in item)
    engine = next(item for item in pod["containers"] if item["name"] == "kserve-container")
    (mount,) = (item for item in engine["volumeMounts"] if item["name"] == volume)
    folder: str | None = mount.get("subPath")
    return folder
