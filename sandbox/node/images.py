"""Images of the registries this node can reach, and the time it takes to pull them."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from functools import cache

from sandbox.engine.boot import ModelFiles
from sandbox.engine.builds import NEWEST_VERSION, Build, known
from sandbox.hub import catalog

PULL_BYTES_PER_SECOND = 520e6  # at speed 1
PULL_MOST_SECONDS = 20.0  # at speed 1: the sandbox shortens large pulls
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
NAME = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")


@dataclass(frozen=True)
class Weights:
    """A model in an image: the folder it lies in, and whether there is a shell beside it."""

    files: ModelFiles
    folder: str
    shell: bool


@dataclass(frozen=True)
class Repository:
    """One repository: which program its images run, their compressed size, and the tags it has."""

    program: str
    size: int
    tags: str = r"latest|v?\d+\.\d+(\.\d+)?(-[a-z0-9.-]+)?"
    weights: Weights | None = None
    plugins: frozenset[str] = frozenset()  # of vLLM's

    def build(self, reference: str) -> Build:
        """What vLLM an image of it has: the tag says so, and a digest alone is the newest."""
        tag = reference.partition("@")[0].rpartition(":")[2].removeprefix("v")
        return Build(tag if tag in known() else NEWEST_VERSION, self.plugins)


VLLM = Repository("vllm", 9_843_112_960, r"latest|nightly|v0\.\d+\.\d+(-[a-z0-9.-]+)?")
# The same with a package installed into it, as an operator of GGUF models builds it.
VLLM_GGUF = dataclasses.replace(VLLM, plugins=frozenset({"gguf"}))
LLM_D = Repository("vllm", 10_412_883_968)
PICKER = Repository("endpoint-picker", 71_303_168)
SIDECAR = Repository("routing-sidecar", 62_914_560)
INITIALIZER = Repository("storage-initializer", 486_539_264)
PAUSE = Repository("pause", 318_000, r"\d+(\.\d+)*|latest")
REPOSITORIES = {
    "docker.io/vllm/vllm-openai": VLLM,
    "quay.io/vllm/vllm-openai": VLLM,
    "ghcr.io/slipway-engines/vllm-openai-gguf": VLLM_GGUF,
    "ghcr.io/llm-d/llm-d-cuda": LLM_D,
    "ghcr.io/llm-d/llm-d-router-endpoint-picker": PICKER,
    "ghcr.io/llm-d/llm-d-router-disagg-sidecar": SIDECAR,
    "docker.io/kserve/storage-initializer": INITIALIZER,
    "ghcr.io/kserve/storage-initializer": INITIALIZER,
    "registry.k8s.io/pause": PAUSE,
}
# The public models of the hub as images: ghcr.io/slipway-models/owner--model. One tag is packaged as KServe asks for,
# on an image with a shell, the other holds the files alone.
MODELS = "ghcr.io/slipway-models/"
MODEL_TAGS = {"1.0": ("/models", True), "1.0-files": ("/", False)}
REGISTRIES = {"docker.io", "quay.io", "ghcr.io", "registry.k8s.io"}


class InvalidImageName(Exception):
    """The reference cannot be parsed."""


class PullError(Exception):
    """The image cannot be pulled; the text is the runtime's."""


@dataclass(frozen=True)
class Image:
    """A parsed reference: `name` with its registry, and `version` as `:tag` or `@digest`."""

    reference: str
    name: str
    version: str

    @property
    def canonical(self) -> str:
        """The full reference."""
        return f"{self.name}{self.version}"

    @property
    def image_id(self) -> str:
        """The digest reference that a status shows."""
        if self.version.startswith("@"):
            return self.canonical
        return f"{self.name}@sha256:{hashlib.sha256(self.canonical.encode()).hexdigest()}"

    @property
    def default_policy(self) -> str:
        """The pull policy when a container names none."""
        return "Always" if self.version == ":latest" else "IfNotPresent"


def parse(reference: str) -> Image:
    """Read an image reference as containerd does; raises InvalidImageName."""
    rest, _, digest = reference.partition("@")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    first, slash, others = head.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, path = first, others
    else:
        registry, path = "docker.io", head if slash else f"library/{head}"
    broken = not NAME.fullmatch(path) or (digest and not DIGEST.fullmatch(digest)) or (tag and not TAG.fullmatch(tag))
    if broken:
        raise InvalidImageName(
            f'Failed to apply default image tag "{reference}": couldn\'t parse image name "{reference}": '
            "invalid reference format"
        )
    return Image(reference, f"{registry}/{path}", f"@{digest}" if digest else f":{tag or 'latest'}")


def find(image: Image) -> Repository:
    """The repository of an image; raises PullError with the words of containerd."""
    registry, _, path = image.name.partition("/")
    failed = f'failed to pull and unpack image "{image.canonical}": failed to resolve reference "{image.canonical}": '
    if registry not in REGISTRIES:
        host = registry.partition(":")[0]
        version = image.version[1:]
        raise PullError(
            f'rpc error: code = Unknown desc = {failed}failed to do request: Head "https://{registry}/v2/{path}/'
            f'manifests/{version}": dial tcp: lookup {host} on 10.96.0.10:53: no such host'
        )
    model = _models().get(image.name)
    repository = REPOSITORIES.get(image.name) if model is None else _packaged(model, image)
    if model is None and repository is None:
        raise PullError(
            f"rpc error: code = Unknown desc = {failed}pull access denied, repository does not exist or may require "
            "authorization: server message: insufficient_scope: authorization failed"
        )
    if repository is None or (image.version.startswith(":") and not re.fullmatch(repository.tags, image.version[1:])):
        raise PullError(f"rpc error: code = NotFound desc = {failed}{image.canonical}: not found")
    return repository


def model_image(model: str, tag: str) -> Image:
    """The image of one of the hub's public models, by its digest."""
    name = MODELS + model.lower().replace("/", "--")
    return parse(parse(f"{name}:{tag}").image_id)


def public_models() -> list[str]:
    """The models that there are images of."""
    return sorted(model.id for model in _models().values())


@cache
def _models() -> dict[str, catalog.Model]:
    found = catalog.load().values()
    return {model_image(model.id, "1.0").name: model for model in found if not model.gated}


def _packaged(model: catalog.Model, image: Image) -> Repository | None:
    """The image of a model with one of the tags there are, or with the digest of one."""
    for tag, (folder, shell) in MODEL_TAGS.items():
        if image.version == f":{tag}" or image.canonical == model_image(model.id, tag).canonical:
            files = ModelFiles(model.config, {file.name: file.size for file in model.files})
            size = sum(files.files.values())
            return Repository("weights", size, re.escape(tag), Weights(files, folder, shell))
    return None


def pull_seconds(repository: Repository) -> float:
    """Seconds of a pull at speed 1."""
    return min(PULL_MOST_SECONDS, 1.5 + repository.size / PULL_BYTES_PER_SECOND)
