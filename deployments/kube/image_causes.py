"""What a pod says of weights that come as an image: pulled by the node, mounted, or handed over by a sidecar."""

from __future__ import annotations

import re

from deployments.kube.log_patterns import MAX_EVIDENCE
from deployments.kube.observe import ContainerView, PodView
from deployments.kube.reasons import Code, Reason, Weight

PULLING = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
CREATING = frozenset({"CreateContainerError", "RunContainerError", "CreateContainerConfigError"})
CARS = ("modelcar", "modelcar-init")  # as KServe names them, and Slipway
VOLUME = re.compile(r"image[- ]?volume|sub[-_ ]?path", re.IGNORECASE)
NAMED = re.compile(r'image "(?P<image>[^"]+)"')
DENIED = re.compile(r"denied|unauthorized|authorization|401|403", re.IGNORECASE)


def from_weights_image(pod: PodView) -> Reason | None:
    """What keeps weights in an image from the engine; None where nothing does, or where there is no such image."""
    for container in pod.containers:
        if container.name in CARS and (found := _of_car(container)):
            return found
    engine = pod.engine
    if engine is None or engine.state != "waiting":
        return None
    if engine.reason in PULLING and _of_another_image(engine):
        return _not_pulled(engine)
    if engine.reason in CREATING and VOLUME.search(engine.message):
        return _no_folder(engine.message)
    return None


def _of_car(container: ContainerView) -> Reason | None:
    if container.state == "waiting" and container.reason in PULLING:
        return _not_pulled(container)
    if container.died and not container.ready:
        return _no_folder(container.message or container.last_message)
    return None


def _of_another_image(engine: ContainerView) -> bool:
    """True when what cannot be pulled is not what the container runs, so it is what it mounts."""
    named = NAMED.search(engine.message)
    return named is not None and bool(engine.image) and _whole(named["image"]) != _whole(engine.image)


def _whole(image: str) -> str:
    """A reference as runtimes write it out: with its registry, and by digest alone where it has one."""
    name, at, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    if at:
        name = f"{head}{slash}{last.partition(':')[0]}"
    first = name.partition("/")[0]
    if "/" not in name:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    return f"{name}{at}{digest}"


def _not_pulled(container: ContainerView) -> Reason:
    denied = bool(DENIED.search(container.message))
    return Reason(
        Code.IMAGE_PULL,
        Weight.STALLED,
        "The node cannot get the image that holds the weights.",
        "It is not there, or needs a login: choose a credential of the kind registry login."
        if denied
        else "Check its registry, its name and its digest. It is tried again.",
        field="credential" if denied else "source_uri",
        evidence=container.message.strip()[-MAX_EVIDENCE:],
    )


def _no_folder(message: str) -> Reason:
    return Reason(
        Code.MODEL_FILES,
        Weight.FAILED,
        "The image has no weights in the folder named, or no shell to hand them over.",
        "Look into the image, and name the folder that the weights lie in.",
        field="source_folder",
        evidence=message.strip()[-MAX_EVIDENCE:],
    )
