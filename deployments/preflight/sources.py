"""Rules about where weights come from, and about the format that they are stored in."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from deployments.findings import Finding, error, info, warning
from deployments.preflight.facts import Facts
from deployments.preflight.rules import Case, Rules
from deployments.sources import RESOLVED, Scheme, Source, SourceCode
from deployments.sources.formats import WeightFormat
from deployments.sources.listing import is_archive
from deployments.spec import DeploymentSpec, Strategy
from portal.lib.hosts import why_not_public

rules = Rules()

POINTER = "/spec/source/uri"
VERSIONED = frozenset({Scheme.HF, Scheme.OCI})


@rules.rule
def entry_resolved(case: Case) -> Iterator[Finding]:
    """KServe takes an entry of a registry for a path, and its pod dies: the address of the artifact must be known."""
    source, found = case.loads, case.facts.source_check
    if source is None or source.scheme not in RESOLVED:
        return
    if found is None or found.code in {SourceCode.FOUND, SourceCode.UNREACHABLE}:
        yield error(
            "source_unresolved",
            POINTER,
            f"What {source.uri} stands for is not known: its registry has not answered.",
            "Try again later, or name the artifact itself, as s3://… or gs://….",
        )


@rules.rule
def download_is_public(case: Case) -> Iterator[Finding]:
    """The cluster's loader connects to whatever is named, also where the portal's own look-up could not get."""
    source, found = case.loads, case.facts.source_check
    if source is None or source.scheme is not Scheme.HTTPS or (found and found.code is SourceCode.UNUSABLE):
        return
    if _server_of(source.uri) in _operators(case.facts):
        return
    parts = urlsplit(source.uri)
    why = why_not_public(parts.hostname or "")
    if not why and (parts.scheme != "https" or parts.port not in {None, 443}):
        why = "Only https:// addresses on port 443 may be given."
    if why:
        yield error(
            "source_inside",
            POINTER,
            why,
            "Use a public address, or have an admin add the server to DOWNLOAD_SERVERS.",
        )


@rules.rule
def server_was_seen(case: Case) -> Iterator[Finding]:
    """What nobody here could reach, somebody decides about: policy alone does not send the cluster there."""
    source, found = case.loads, case.facts.source_check
    if source is None or not (server := unseen_server(source, case.spec, case.facts)):
        return
    if source.scheme is Scheme.S3:
        yield warning(
            "source_unseen",
            "/spec/source/credential",
            f"{server}, the server of “{case.spec.source.credential}”, has not answered when these keys were tested, "
            "and the cluster would take them there all the same.",
            "An admin decides. Once the server answers, enter the keys again: they are tested anew.",
        )
    elif found is not None:
        yield warning(
            "source_unseen",
            POINTER,
            f"Slipway has never reached {source.container}, and the cluster would load from it all the same.",
            "An admin decides. Send it once the server answers, or put the file into a bucket of the team.",
        )


def unseen_server(source: Source, spec: DeploymentSpec, facts: Facts) -> str:
    """The server that the cluster would load from, where a person typed it and it never answered; empty elsewhere.

    The cluster's resolver knows names that the portal's does not, so such a name may lead inside. That is a question of
    plain downloads and of S3 keys with an endpoint alone. All other servers an admin chose: the hub (HUB_URL), Google's
    buckets (GS_URL), registries of images (SLIPWAY_OCI_REGISTRIES) and of models (MLFLOW_URL, MODEL_REGISTRY_URL), of
    which what their entries stand for is judged here; buckets without keys or without an endpoint are Amazon's. Whether
    those answer at the moment says nothing of where they are.
    """
    if source.scheme is Scheme.HTTPS:
        server, found = _server_of(source.uri), facts.source_check
        seen = found is not None and (found.code is not SourceCode.UNREACHABLE or found.model is not None)
    elif source.scheme is Scheme.S3:
        keys = facts.credentials.get(spec.source.credential or "")
        server, seen = (keys.endpoint, keys.answered) if keys is not None else ("", True)
    else:
        return ""
    return "" if seen or server in _operators(facts) else server


def _server_of(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"


def _operators(facts: Facts) -> frozenset[str]:
    """Servers of downloads and buckets that an admin configured."""
    return frozenset(origin.rstrip("/") for origin in facts.origins)


@rules.rule
def revision_of_a_place(case: Case) -> Iterator[Finding]:
    """Only hubs keep versions; images name theirs in the reference."""
    source = case.loads
    if case.spec.source.revision is None or source is None or source.scheme in VERSIONED:
        return
    yield error(
        "revision_of_a_place",
        "/spec/source/revision",
        f"A source of {source.scheme.value}: has no versions to choose from.",
        "Leave it out, and keep each version of a model in a folder of its own.",
    )


@rules.rule
def place_may_change(case: Case) -> Iterator[Finding]:
    """What lies in a bucket today need not be what was approved yesterday."""
    source = case.loads
    if case.spec.source.cache is not None:
        return  # every replica mounts what was fetched once
    if source is not None and source.scheme in {Scheme.S3, Scheme.GS, Scheme.PVC, Scheme.HTTPS}:
        yield info(
            "source_may_change",
            POINTER,
            f"Nothing pins what lies at {source.uri}: a replica that starts later loads what is there then.",
            "Write each version of a model to a folder of its own, and never into one that is in use.",
        )


@rules.rule
def single_file(case: Case) -> Iterator[Finding]:
    """KServe's presets for prefill and decode, and for replicas across nodes, load a folder, never a file."""
    if not case.is_gguf:
        return
    if case.spec.nodes > 1:
        fits = case.flavor is not None and case.spec.gpus_per_replica <= case.flavor.gpus_per_node
        yield error(
            "file_and_nodes",
            "/spec/nodes",
            "Replicas that span nodes load models from folders, and this one is a single GGUF file.",
            "Use one node, or the same model as safetensors." if fits else "Use the same model as safetensors.",
            1 if fits else None,
        )
    if case.spec.strategy is not Strategy.DISAGGREGATED:
        return
    yield error(
        "file_and_strategy",
        "/spec/strategy",
        "Prefill and decode load models from folders, and this one is a single GGUF file.",
        "Choose standard, or the same model as safetensors.",
        Strategy.STANDARD.value,
    )


@rules.rule
def gguf_is_slow(case: Case) -> Iterator[Finding]:
    """GGUF is made for processors: vLLM serves it, slower than other formats of the same size."""
    if case.is_gguf:
        yield warning(
            "weights_gguf",
            POINTER,
            "vLLM serves GGUF files as an experiment, and slower than AWQ, GPTQ or fp8 weights of the same size.",
            "Where the model comes in one of those too, take that.",
        )


@rules.rule
def pickles(case: Case) -> Iterator[Finding]:
    """Checkpoints of PyTorch are pickles, which can hold programs."""
    if case.model is not None and case.model.format == WeightFormat.PYTORCH:
        yield warning(
            "weights_pytorch",
            POINTER,
            "The weights are PyTorch checkpoints: slower to load, and a pickle can hold programs as well as numbers.",
            "Convert them to safetensors.",
        )


@rules.rule
def archive(case: Case) -> Iterator[Finding]:
    """An archive is unpacked beside itself, and what is in it nobody has seen."""
    source = case.loads
    if source is not None and is_archive(source.path):
        yield warning(
            "source_archive",
            POINTER,
            "The archive is fetched and unpacked by every new replica, and takes its size on the disk twice.",
            "config.json must lie at its top. A folder in a bucket starts faster.",
        )
