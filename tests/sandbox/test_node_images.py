"""Images that hold models, as a node's agent mounts them and as it runs them beside an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import cli
from sandbox.node import images
from sandbox.node.images import PullError
from sandbox.node.volumes import found_in, mount_error
from tests.sandbox.node_support import (
    Ground,
    cluster,
    engine_pod,
    ground,
    init_status,
    is_ready,
    main_status,
    waiting_reason,
)

SMALL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGED = images.model_image(SMALL, "1.0").canonical
FILES = images.model_image(SMALL, "1.0-files").canonical
UNKNOWN = PACKAGED.partition("@")[0] + "@sha256:" + "0" * 64


@pytest.fixture(scope="module")
def kubeconfig() -> Iterator[Path]:
    with cluster() as path:
        yield path


def play(kubeconfig: Path, scene: Callable[[Ground], Awaitable[None]]) -> None:
    async def main() -> None:
        async with ground(kubeconfig) as run:
            await scene(run)

    asyncio.run(main())


def mounting(name: str, reference: str, folder: str = "") -> dict[str, Any]:
    """An engine's pod that mounts an image where others download."""
    pod = engine_pod(name)
    spec = pod["spec"]
    del spec["initContainers"]
    spec["volumes"] = [{"name": "model", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}]
    mount = {"name": "model", "mountPath": "/mnt/models", "readOnly": True}
    spec["containers"][0]["volumeMounts"] = [{**mount, "subPath": folder} if folder else mount]
    return pod


def with_car(name: str, reference: str) -> dict[str, Any]:
    """An engine's pod beside which the image runs."""
    pod = engine_pod(name)
    spec, mount = pod["spec"], {"name": "model", "mountPath": "/mnt"}
    spec["initContainers"] = [
        {
            "name": "modelcar",
            "image": reference,
            "restartPolicy": "Always",
            "command": ["sh", "-c", "ln -sf /proc/$$$$/root/models /mnt/models && exec sleep infinity"],
            "startupProbe": {"exec": {"command": ["ls", "/mnt/models/"]}, "periodSeconds": 1},
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [mount],
        }
    ]
    spec["volumes"] = [{"name": "model", "emptyDir": {}}]
    spec["containers"][0]["volumeMounts"] = [mount]
    return pod


def test_an_engine_starts_from_the_folder_of_an_image(kubeconfig: Path):
    async def scene(run: Ground) -> None:
        await run.make(mounting("models", PACKAGED, "models"))
        await run.make(mounting("files", FILES))
        for name, reference in (("models", PACKAGED), ("files", FILES)):
            await run.wait(name, is_ready)
            await run.heard(name, "Pulled", reference)

    play(kubeconfig, scene)


def test_an_image_runs_beside_an_engine_and_hands_over_the_model(kubeconfig: Path):
    async def scene(run: Ground) -> None:
        await run.make(with_car("car", PACKAGED))
        pod = await run.wait("car", is_ready)
        assert "running" in init_status(pod)["state"]

    play(kubeconfig, scene)


def test_an_image_that_is_not_there_keeps_its_container_waiting(kubeconfig: Path):
    async def scene(run: Ground) -> None:
        await run.make(mounting("gone", UNKNOWN, "models"))
        pod = await run.wait("gone", lambda pod: waiting_reason(main_status(pod)) == "ImagePullBackOff")
        assert UNKNOWN in main_status(pod)["state"]["waiting"]["message"]
        # The container's own image is another, and was to be had.
        assert "vllm" in main_status(pod)["image"]

    play(kubeconfig, scene)


def test_a_folder_that_is_not_there_keeps_its_container_from_being_made(kubeconfig: Path):
    async def scene(run: Ground) -> None:
        await run.make(mounting("nofolder", FILES, "models"))
        pod = await run.wait("nofolder", lambda pod: waiting_reason(main_status(pod)) == "CreateContainerError")
        assert '"models": no such file' in main_status(pod)["state"]["waiting"]["message"]

    play(kubeconfig, scene)


def test_an_image_without_a_shell_hands_over_nothing(kubeconfig: Path):
    async def scene(run: Ground) -> None:
        await run.make(with_car("noshell", FILES))
        pod = await run.wait("noshell", lambda pod: init_status(pod).get("restartCount", 0) > 0)
        last = init_status(pod)["lastState"]["terminated"]
        assert last["exitCode"] == 127
        assert "executable file not found" in last["message"]
        assert waiting_reason(main_status(pod)) == "PodInitializing"

    play(kubeconfig, scene)


def test_weights_are_found_where_they_lie_and_nowhere_else():
    packaged = images.find(images.parse(PACKAGED))
    assert packaged.weights is not None
    whole, below = {"mountPath": "/mnt/models"}, {"mountPath": "/mnt/models", "subPath": "models"}
    assert found_in(packaged.weights, below, "/mnt/models") is packaged.weights.files
    assert found_in(packaged.weights, whole, "/mnt/models") is None
    assert found_in(packaged.weights, whole, "/mnt/models/models") is packaged.weights.files
    assert mount_error(packaged, {**below, "name": "m"}) is None
    assert mount_error(packaged, {**below, "name": "m", "subPath": "weights"})


def test_images_are_listed_as_a_wish_names_them(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["images"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"/models  oci://{PACKAGED}" in lines
    assert f"/        oci://{FILES}" in lines
    assert not any("llama" in line for line in lines), "gated models are not given away"


@pytest.mark.parametrize("reference", [UNKNOWN, "ghcr.io/slipway-models/nobody--nothing:1.0", f"{images.MODELS}x:2"])
def test_what_was_never_packaged_cannot_be_pulled(reference: str):
    with pytest.raises(PullError):
        images.find(images.parse(reference))
