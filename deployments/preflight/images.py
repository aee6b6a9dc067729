"""Rules about weights that lie in an image: whether this cluster can mount it, where in it they lie, and its pin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from deployments.findings import Finding, error, warning
from deployments.preflight.facts import IMAGE_VOLUMES
from deployments.preflight.rules import Case, Rules
from deployments.sources import Scheme
from deployments.sources.oci import FOLDER, is_listed, parse_image, within
from deployments.spec import Strategy

rules = Rules()

POINTER = "/spec/source/folder"
# Endings of what lies in the folder of a model.
FILES = frozenset({".gguf", ".safetensors", ".bin", ".pt", ".pth", ".json", ".model"})
# Registries named in one sentence.
NAMED = 5


@rules.rule
def registry_listed(case: Case) -> Iterator[Finding]:
    """An admin says whose images come into pods: they may hold more than weights, and some bring their own shell."""
    source, listed = case.loads, case.facts.registries
    if source is None or source.scheme is not Scheme.OCI or listed is None:
        return
    image = parse_image(source.uri)
    if is_listed(image, listed):
        return
    # An entry of MLflow or of a model registry stands for it.
    what = "The image" if source.uri == case.spec.source.uri else f"{case.spec.source.uri} is an image that"
    if not listed:
        yield error(
            "registry_not_listed",
            "/spec/source/uri",
            f"{what} lies in {image.name}, and an admin has listed no registry that images may come from.",
            f"Ask an admin to list {image.registry}, or name the model at another source.",
        )
        return
    names = ", ".join(listed[:NAMED]) + (", …" if len(listed) > NAMED else "")
    yield error(
        "registry_not_listed",
        "/spec/source/uri",
        f"{what} lies in {image.name}, and that is not among the registries that images may come from.",
        f"Push it to one of them ({names}), or ask an admin to list {image.registry}.",
    )


@rules.rule
def image_volumes(case: Case) -> Iterator[Finding]:
    """Weights in an image are mounted by the cluster itself from one version on; before, the image's shell helps."""
    cluster = case.facts.cluster
    if not _is_image(case) or cluster.mounts_images:
        return
    wanted = ".".join(map(str, IMAGE_VOLUMES))
    said = f"Kubernetes mounts images as volumes from {wanted} on; this cluster has {cluster.version}."
    if _is_llm(case):
        yield error(
            "image_volumes",
            "/spec/source/uri",
            f"{said} {_who(case)} take weights from an image in no other way.",
            f"Choose {Strategy.OCI_VOLUME.value} on one node, or another source.",
        )
    elif within(case.spec.source.folder)[0] == "/":
        yield error(
            "image_without_shell",
            POINTER,
            f"{said} Its way around needs a shell in the image, beside the weights in a folder.",
            f"Package the weights below {FOLDER} on an image with sh, ln and sleep, or ask for a newer cluster.",
            None if case.is_gguf else FOLDER,
        )
    elif case.spec.strategy is Strategy.OCI_VOLUME:
        yield warning(
            "image_volumes",
            "/spec/strategy",
            f"{said} The image's own shell (sh, ls, ln, sleep) then hands over the weights, which an admin approves.",
            "Use another source, or ask for a newer cluster.",
        )


@rules.rule
def folder_of_images(case: Case) -> Iterator[Finding]:
    """Only images have folders that somebody chooses; of an LLMInferenceService KServe mounts one folder alone."""
    folder = case.spec.source.folder
    if folder is None:
        return
    if not _is_image(case):
        yield error("folder_of_no_image", POINTER, "Only sources of oci:// have a folder in an image.", "Leave it out.")
    elif not case.is_gguf and PurePosixPath(folder).suffix.lower() in FILES:
        yield error(
            "folder_is_file",
            POINTER,
            f"{folder} is the name of a file: it would be mounted in place of the folder that the engine looks into.",
            "Name the folder that holds it. Only a GGUF file, with the ending .gguf, is a model of its own.",
            str(PurePosixPath(folder).parent),
        )
    elif _is_llm(case) and folder != FOLDER and not case.is_gguf:
        yield error(
            "folder_fixed",
            POINTER,
            f"{_who(case)} find the weights in the folder {FOLDER} of an image, and in no other.",
            f"Package the weights below {FOLDER}, or choose {Strategy.OCI_VOLUME.value} on one node.",
            FOLDER,
        )


@rules.rule
def version_in_the_reference(case: Case) -> Iterator[Finding]:
    """An image has its version in its reference."""
    if case.spec.source.revision is not None and _is_image(case):
        yield error(
            "revision_of_image",
            "/spec/source/revision",
            "An image names its version itself, best by digest: oci://registry/repository@sha256:…",
            "Leave this out.",
        )


def _is_llm(case: Case) -> bool:
    """True where KServe's kind for language models runs it, which mounts images in its own way alone."""
    return case.spec.strategy is Strategy.DISAGGREGATED or case.spec.nodes > 1


def _who(case: Case) -> str:
    return "Replicas that span nodes" if case.spec.nodes > 1 else "Prefill and decode"


def _is_image(case: Case) -> bool:
    return case.loads is not None and case.loads.scheme is Scheme.OCI
