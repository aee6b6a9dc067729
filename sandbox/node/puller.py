"""Pulling images: shared between pods, cached on the node, retried with back-off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from sandbox.node import images
from sandbox.node.images import Image, InvalidImageName, PullError, Repository
from sandbox.node.machine import Node
from sandbox.node.status import ContainerState, waiting


async def pull(
    node: Node,
    pod: dict[str, Any],
    spec: dict[str, Any],
    state: ContainerState,
    field: str,
    changed: Callable[[], None],
    *,
    volume: bool = False,
) -> Repository:
    """Bring the image of a container to the node; returns when it is there, however often it has to try.

    With `volume` it is one that the container mounts: it waits for that too, but runs another.
    """
    backoff = node.pace.backoff_first
    while True:
        try:
            image = images.parse(spec["image"])
            repository = await _once(node, pod, spec, image, field)
        except InvalidImageName as error:
            state.state = waiting("InvalidImageName", str(error))
            node.events.record(pod, "Warning", "InspectFailed", str(error), field)
        except PullError as error:
            _failed(node, pod, spec["image"], state, field, str(error))
        else:
            if not volume:
                state.image, state.image_id = image.canonical, image.image_id
            return repository
        changed()
        await asyncio.sleep(node.pace.retry)
        if "ErrImagePull" in str(state.state):
            text = f'Back-off pulling image "{spec["image"]}"'
            state.state = waiting("ImagePullBackOff", f"{text}: {_inner(state)}")
            node.events.record(pod, "Normal", "BackOff", text, field)
            node.events.record(pod, "Warning", "Failed", "Error: ImagePullBackOff", field)
            changed()
        await asyncio.sleep(max(0.0, backoff - node.pace.retry))
        backoff = min(backoff * 2, node.pace.backoff_most)


async def _once(node: Node, pod: dict[str, Any], spec: dict[str, Any], image: Image, field: str) -> Repository:
    repository = images.find(image)
    policy = spec.get("imagePullPolicy") or image.default_policy
    cached = node.has_image(image)
    if cached and policy != "Always":
        text = f'Container image "{spec["image"]}" already present on machine'
        node.events.record(pod, "Normal", "Pulled", text, field)
        return repository
    node.events.record(pod, "Normal", "Pulling", f'Pulling image "{spec["image"]}"', field)
    begun = time.monotonic()
    if cached:
        await node.pace.sleep(0.4)  # the registry is only asked for the digest
    else:
        await _shared(node, image, repository)
    took = time.monotonic() - begun
    text = (
        f'Successfully pulled image "{spec["image"]}" in {took:.3f}s ({took:.3f}s including waiting). '
        f"Image size: {repository.size} bytes."
    )
    node.events.record(pod, "Normal", "Pulled", text, field)
    return repository


async def _shared(node: Node, image: Image, repository: Repository) -> None:
    """Pull once, however many containers wait for it."""
    task = node.images.get(image.canonical)
    if task is None:
        task = asyncio.ensure_future(node.pace.sleep(images.pull_seconds(repository)))
        node.images[image.canonical] = task
    await asyncio.shield(task)
    node.images[image.canonical] = None


def _failed(node: Node, pod: dict[str, Any], name: str, state: ContainerState, field: str, error: str) -> None:
    state.state = waiting("ErrImagePull", error)
    node.events.record(pod, "Warning", "Failed", f'Failed to pull image "{name}": {error}', field)
    node.events.record(pod, "Warning", "Failed", "Error: ErrImagePull", field)


def _inner(state: ContainerState) -> str:
    return f"ErrImagePull: {state.state['waiting'].get('message', '')}"
